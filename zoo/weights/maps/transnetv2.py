"""Names of TransNet V2's PyTorch code, such as `SDDCNN.0.DDCNN.1.Conv3D_4.layers.0` and `fc1`."""

from zoo.models.transnetv2 import DILATIONS, TransNetV2Config
from zoo.weights import convert


def table(_: TransNetV2Config) -> convert.Table:
    """The names, which are the same for every config."""
    rules: list[convert.Rule] = []
    for number, half in enumerate(("first", "second")):
        source, target = f"SDDCNN.{{i}}.DDCNN.{number}", f"block{{i}}/{half}"
        for dilation in DILATIONS:
            for place, name in enumerate(("spatial", "temporal")):
                layer = f"{source}.Conv3D_{dilation}.layers.{place}"
                rules += convert.conv(layer, f"{target}/{name}_{dilation}")
        rules += convert.batch_norm(f"{source}.bn", f"{target}/norm")
    for source, target in (
        ("frame_sim_layer.projection", "projection"),
        ("frame_sim_layer.fc", "similarity"),
        ("color_hist_layer.fc", "colors"),
        ("fc1", "hidden"),
        ("cls_layer1", "head"),
        ("cls_layer2", "head_all"),
    ):
        rules += convert.linear(source, target)
    return convert.Table(tuple(rules), (convert.BATCHES_TRACKED,))
