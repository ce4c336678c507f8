"""Names of TransNet V2's variables in TensorFlow, such as `TransNet/SDDCNN_1/DDCNN_2/bn/gamma`.

Those that the authors' converter to PyTorch reads (github.com/soCzech/TransNetV2,
inference-pytorch/convert_weights.py). The published SavedModel, `inference/transnetv2-weights`,
keeps them among its objects: import its `variables/variables.index`, with the .data file beside it.
"""

from zoo.models.transnetv2 import DILATIONS, TransNetV2Config
from zoo.weights import convert
from zoo.weights.convert import Rule

_NORM = {
    "gamma": "params/{}/scale",
    "beta": "params/{}/bias",
    "moving_mean": "batch_stats/{}/mean",
    "moving_variance": "batch_stats/{}/var",
}
_DENSE = {
    "dense": "hidden",
    "dense_1": "head",
    "dense_2": "head_all",
    "FrameSimilarity/dense_3": "projection",
    "FrameSimilarity/dense_4": "similarity",
    "ColorHistograms/dense_5": "colors",
}


def table(config: TransNetV2Config) -> convert.Table:
    """The names for a config."""
    rules = []
    for block in range(len(config.widths)):
        for number, half in enumerate(("first", "second"), start=1):
            source, target = f"TransNet/SDDCNN_{block + 1}/DDCNN_{number}", f"block{block}/{half}"
            for dilation in DILATIONS:
                for name in ("spatial", "temporal"):
                    layer = f"{source}/Conv3D_{dilation}/conv_{name}/kernel"
                    rules.append(Rule(layer, f"params/{target}/{name}_{dilation}/kernel"))
            for name, path in _NORM.items():
                rules.append(Rule(f"{source}/bn/{name}", path.format(f"{target}/norm")))
    for source, target in _DENSE.items():
        for name in ("kernel", "bias"):
            rules.append(Rule(f"TransNet/{source}/{name}", f"params/{target}/{name}"))
    return convert.Table(tuple(rules), ignored=("save_counter",), own_names=True)
