"""Names of PyTorchVideo's SlowFast: `blocks.{i}.multipathway_blocks.{0,1}`, 0 the slow one."""

from zoo.models.slowfast import SlowFastConfig
from zoo.weights import convert
from zoo.weights.convert import conv_norm
from zoo.weights.maps.resnet50 import bottleneck


def table(config: SlowFastConfig) -> convert.Table:
    """The names for a config: the number of the head follows from that of the stages."""
    rules = []
    for number, pathway in enumerate(("slow", "fast")):
        stem = f"blocks.0.multipathway_blocks.{number}"
        rules += conv_norm(f"{stem}.conv", f"{stem}.norm", f"{pathway}_stem")
        source = f"blocks.{{i}}.multipathway_blocks.{number}.res_blocks.{{j}}"
        rules += bottleneck(source, f"{pathway}_stage{{i}}_{{j}}", "2d")
    fusion = "blocks.{i}.multipathway_fusion"
    rules += conv_norm(f"{fusion}.conv_fast_to_slow", f"{fusion}.norm", "fusion{i}")
    rules += convert.linear(f"blocks.{len(config.depths) + 2}.proj", "head")
    return convert.Table(tuple(rules), (convert.BATCHES_TRACKED,))
