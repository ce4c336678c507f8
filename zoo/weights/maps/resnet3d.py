"""Names of torchvision's video ResNets: `stem.0`, `layer{1-4}.{0,1}.conv{1,2}.0`, `fc`."""

from zoo.models.resnet3d import ResNet3DConfig
from zoo.weights import convert
from zoo.weights.convert import conv_norm


def table(config: ResNet3DConfig) -> convert.Table:
    """The names for a config: a factorised convolution is one more sequence of layers."""
    if config.kinds[0] == "2plus1d":
        rules = [
            *conv_norm("stem.0", "stem.1", "stem_spatial"),
            *conv_norm("stem.3", "stem.4", "stem"),
        ]
    else:
        rules = [*conv_norm("stem.0", "stem.1", "stem")]
    for stage, kind in enumerate(config.kinds, start=1):
        source, target = f"layer{stage}.{{j}}", f"layer{stage}_{{j}}"
        conv, name = f"{source}.conv{{k}}", f"{target}/conv{{k}}"
        if kind == "2plus1d":
            rules += conv_norm(f"{conv}.0.0", f"{conv}.0.1", f"{name}_spatial")
            rules += conv_norm(f"{conv}.0.3", f"{conv}.1", name)
        else:
            rules += conv_norm(f"{conv}.0", f"{conv}.1", name)
        downsample = f"{source}.downsample"
        rules += conv_norm(f"{downsample}.0", f"{downsample}.1", f"{target}/shortcut")
    rules += convert.linear("fc", "head")
    return convert.Table(tuple(rules), (convert.BATCHES_TRACKED,))
