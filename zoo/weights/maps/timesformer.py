"""Names of TimeSformer in transformers; the published files have the same."""

from zoo.models.timesformer import TimeSformerConfig
from zoo.weights import convert
from zoo.weights.convert import Rule


def table(config: TimeSformerConfig) -> convert.Table:
    """The names; the config changes none."""
    embeddings, source, target = (
        "timesformer.embeddings",
        "timesformer.encoder.layer.{i}",
        "block{i}",
    )
    rules = [
        *convert.conv(f"{embeddings}.patch_embeddings.projection", "patches", bias=True),
        Rule(f"{embeddings}.cls_token", "params/class_token", "vector"),
        Rule(f"{embeddings}.position_embeddings", "params/positions", "without_batch"),
        Rule(f"{embeddings}.time_embeddings", "params/times", "without_batch"),
    ]
    for old, new in (("temporal_attention", "attention_time"), ("attention", "attention_space")):
        rules += convert.linear(f"{source}.{old}.attention.qkv", f"{target}/{new}/qkv")
        rules += convert.linear(f"{source}.{old}.output.dense", f"{target}/{new}/out")
    rules += [
        *convert.linear(f"{source}.temporal_dense", f"{target}/mix_time"),
        *convert.linear(f"{source}.intermediate.dense", f"{target}/mlp/hidden"),
        *convert.linear(f"{source}.output.dense", f"{target}/mlp/out"),
        *convert.norm(f"{source}.temporal_layernorm", f"{target}/norm_time"),
        *convert.norm(f"{source}.layernorm_before", f"{target}/norm_space"),
        *convert.norm(f"{source}.layernorm_after", f"{target}/norm_mlp"),
        *convert.norm("timesformer.layernorm", "norm"),
        *convert.linear("classifier", "head"),
    ]
    return convert.Table(tuple(rules))
