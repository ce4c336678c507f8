"""Names of torchvision's multiscale vision transformers: `blocks.N.attn.pool_{q,k,v}`, `head.1`."""

from zoo.models.mvit import MViTConfig
from zoo.weights import convert
from zoo.weights.convert import Rule


def table(config: MViTConfig) -> convert.Table:
    """The names for a config, whose version says how positions are kept."""
    source, target = "blocks.{i}", "block{i}"
    rules = [
        *convert.conv("conv_proj", "patches", bias=True),
        Rule("pos_encoding.class_token", "params/class_token"),
        *convert.linear(f"{source}.attn.qkv", f"{target}/attention/qkv"),
        *convert.linear(f"{source}.attn.project.0", f"{target}/attention/out"),
        *convert.linear(f"{source}.mlp.0", f"{target}/mlp/hidden"),
        *convert.linear(f"{source}.mlp.3", f"{target}/mlp/out"),
        *convert.linear(f"{source}.project", f"{target}/widen"),
        *convert.norm(f"{source}.norm1", f"{target}/norm1"),
        *convert.norm(f"{source}.norm2", f"{target}/norm2"),
        *convert.norm("norm", "norm"),
        *convert.linear("head.1", "head"),
    ]
    for of in ("pool_q", "pool_k", "pool_v"):
        pool = f"{source}.attn.{of}"
        rules += convert.conv(f"{pool}.pool", f"{target}/attention/{of}")
        rules += convert.norm(f"{pool}.norm_act.0", f"{target}/attention/{of}/norm")
    if config.second:
        rules += [
            Rule(f"{source}.attn.rel_pos_{axis}", f"params/{target}/attention/distances_{axis}")
            for axis in "thw"
        ]
    else:
        rules += [
            Rule("pos_encoding.spatial_pos", "params/positions_space"),
            Rule("pos_encoding.temporal_pos", "params/positions_time"),
            Rule("pos_encoding.class_pos", "params/positions_class"),
        ]
    return convert.Table(tuple(rules))
