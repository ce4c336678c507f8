"""Names of PyTorchVideo's bottleneck networks: `blocks.{i}.res_blocks.{j}.branch2.conv_a`."""

from zoo.models.resnet50 import Middle, ResNet50Config
from zoo.weights import convert
from zoo.weights.convert import conv_norm


def bottleneck(source: str, target: str, middle: Middle) -> tuple[convert.Rule, ...]:
    """The rules of one kind of block."""
    branch = f"{source}.branch2"
    if middle == "2plus1d":
        b = (
            *conv_norm(f"{branch}.conv_b.conv_t", f"{branch}.conv_b.norm", f"{target}/b_temporal"),
            *conv_norm(f"{branch}.conv_b.conv_xy", f"{branch}.norm_b", f"{target}/b"),
        )
    else:
        b = conv_norm(f"{branch}.conv_b", f"{branch}.norm_b", f"{target}/b")
    return (
        *conv_norm(f"{branch}.conv_a", f"{branch}.norm_a", f"{target}/a"),
        *b,
        *conv_norm(f"{branch}.conv_c", f"{branch}.norm_c", f"{target}/c"),
        *conv_norm(f"{source}.branch1_conv", f"{source}.branch1_norm", f"{target}/shortcut"),
    )


def table(config: ResNet50Config) -> convert.Table:
    """The names for a config: a pooling after the first stage takes a number of its own."""
    rules = [*conv_norm("blocks.0.conv", "blocks.0.norm", "stem")]
    stages = len(config.depths)
    for stage in range(1, stages + 1):
        block = stage + 1 if config.pool_frames and stage > 1 else stage
        source, target = f"blocks.{block}.res_blocks.{{j}}", f"stage{stage}_{{j}}"
        rules += bottleneck(source, target, config.middle)
    last = stages + 2 if config.pool_frames else stages + 1
    rules += convert.linear(f"blocks.{last}.proj", "head")
    return convert.Table(tuple(rules), (convert.BATCHES_TRACKED,))
