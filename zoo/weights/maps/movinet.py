"""Names of the PyTorch port of MoViNet: `conv1.conv_1.conv3d`, `blocks.b0_l0.deep.conv_1.norm`.

The stream networks' convolutions are called `conv2d`, and `deep.conv_2` is the one over time.
"""

from zoo.models.movinet_presets import STRIDES, MoViNetConfig
from zoo.weights import convert


def table(config: MoViNetConfig) -> convert.Table:
    """The names for a config."""
    kind = "conv2d" if config.causal else "conv3d"

    def conv_norm(source: str, target: str, number: int = 1) -> tuple[convert.Rule, ...]:
        layer = f"{source}.conv_{number}"
        return convert.conv_norm(f"{layer}.{kind}", f"{layer}.norm", target)

    def dense(source: str, target: str) -> tuple[convert.Rule, ...]:
        transform = "pointwise2d" if config.causal else "pointwise"
        return convert.pointwise(f"{source}.conv_1.{kind}", target, transform)

    rules = [*conv_norm("conv1", "conv1"), *conv_norm("conv7", "conv7")]
    source, target = "blocks.b{i}_l{j}", "b{i}_l{j}"
    for part in ("expand", "deep", "project"):
        rules += conv_norm(f"{source}.{part}", f"{target}/{part}")
    rules += conv_norm(f"{source}.deep", f"{target}/deep_time", number=2)
    for part in ("fc1", "fc2"):
        rules += dense(f"{source}.se.{part}", f"{target}/se/{part}")
    rules.append(convert.Rule(f"{source}.alpha", f"params/{target}/alpha"))
    for stage, stride in enumerate(STRIDES):
        # The pooling before the convolution has a number of its own.
        place = 1 if stride > 1 else 0
        rules += conv_norm(f"blocks.b{stage}_l0.res.{place}", f"b{stage}_l0/res")
    rules += dense("classifier.0", "hidden")
    rules += dense("classifier.3", "head")
    return convert.Table(tuple(rules), (convert.BATCHES_TRACKED,))
