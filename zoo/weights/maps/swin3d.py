"""Names of torchvision's video Swin: stages at `features.{0,2,4,6}`, merges between them."""

from zoo.models.swin3d import Swin3DConfig, relative_positions
from zoo.weights import convert
from zoo.weights.convert import Rule


def table(config: Swin3DConfig) -> convert.Table:
    """The names for a config, which says how many stages there are."""
    rules = [
        *convert.conv("patch_embed.proj", "patches", bias=True),
        *convert.norm("patch_embed.norm", "patches_norm"),
    ]
    for stage in range(1, len(config.depths) + 1):
        number = 2 * stage - 2
        source, target = f"features.{number}.{{j}}", f"stage{stage}_{{j}}"
        attention = f"{target}/windows/attention"
        rules += [
            Rule(
                f"{source}.attn.relative_position_bias_table",
                f"params/{target}/windows/bias_table",
            ),
            *convert.linear(f"{source}.attn.qkv", f"{attention}/qkv"),
            *convert.linear(f"{source}.attn.proj", f"{attention}/out"),
            *convert.linear(f"{source}.mlp.0", f"{target}/mlp/hidden"),
            *convert.linear(f"{source}.mlp.3", f"{target}/mlp/out"),
            *convert.norm(f"{source}.norm1", f"{target}/norm1"),
            *convert.norm(f"{source}.norm2", f"{target}/norm2"),
        ]
        if stage > 1:
            merge = f"features.{number - 1}"
            rules += convert.linear(f"{merge}.reduction", f"merge{stage}/reduction", bias=False)
            rules += convert.norm(f"{merge}.norm", f"merge{stage}/norm")
    rules += [*convert.norm("norm", "norm"), *convert.linear("head", "head")]
    index = convert.Derived(
        "{path}.relative_position_index",
        "{path}.relative_position_bias_table",
        lambda: relative_positions(config.window),
    )
    return convert.Table(tuple(rules), (index,))
