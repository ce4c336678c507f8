"""Names in DeepMind's checkpoints of I3D: `RGB/inception_i3d/Mixed_3b/Branch_1/Conv3d_0b_3x3/...`.

Those of github.com/deepmind/kinetics-i3d (i3d.py, data/checkpoints). Its batch normalisation has
no scale, and a checkpoint of Kinetics-600 has the optimiser's values beside the weights and no
prefix.
"""

from zoo.models.inception import InceptionConfig
from zoo.weights import convert
from zoo.weights.convert import Rule

_BRANCHES = {
    "b0": "Branch_0/Conv3d_0a_1x1",
    "b1a": "Branch_1/Conv3d_0a_1x1",
    "b1b": "Branch_1/Conv3d_0b_3x3",
    "b2a": "Branch_2/Conv3d_0a_1x1",
    "b2b": "Branch_2/Conv3d_0b_3x3",
    "b3b": "Branch_3/Conv3d_0b_1x1",
}


def table(config: InceptionConfig) -> convert.Table:
    """The names for a config; S3D was published for PyTorch alone, so it has none here."""
    rules = [
        *_unit("Conv3d_1a_7x7", "stem"),
        *_unit("Conv3d_2b_1x1", "reduce"),
        *_unit("Conv3d_2c_3x3", "middle"),
    ]
    for stage, widths in enumerate(config.stages, start=1):
        for number in range(len(widths)):
            source, target = f"Mixed_{stage + 2}{'bcdefg'[number]}", f"stage{stage}_{number}"
            for branch, place in _BRANCHES.items():
                rules += _unit(f"{source}/{place}", f"{target}/{branch}")
    head = "Logits/Conv3d_0c_1x1/conv_3d"
    rules.append(Rule(f"{head}/w", "params/head/kernel", "inner_pointwise"))
    rules.append(Rule(f"{head}/b", "params/head/bias"))
    # The original has one layer's name wrong.
    wrong, right = (f"Mixed_5b/Branch_2/Conv3d_0{letter}_3x3/{{path}}" for letter in "ab")
    prefixes = (f"{stream}/inception_i3d/{{path}}" for stream in ("RGB", "Flow"))
    return convert.Table(
        tuple(rules),
        aliases=(*((prefix, "{path}") for prefix in prefixes), (wrong, right)),
        filled=(("params/{path}/norm/scale", 1.0),),
        ignored=("{path}/Momentum", "global_step"),
    )


def _unit(source: str, target: str) -> list[Rule]:
    norm, layer = f"{source}/batch_norm", f"{target}/full"
    return [
        Rule(f"{source}/conv_3d/w", f"params/{layer}/conv/kernel"),
        Rule(f"{norm}/beta", f"params/{layer}/norm/bias", "channels"),
        Rule(f"{norm}/moving_mean", f"batch_stats/{layer}/norm/mean", "channels"),
        Rule(f"{norm}/moving_variance", f"batch_stats/{layer}/norm/var", "channels"),
    ]
