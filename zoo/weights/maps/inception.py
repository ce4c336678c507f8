"""Names of torchvision's S3D and of pytorch-i3d: the same networks, counted and called differently.

S3D's layers are numbered in one sequence (`features.5.branch1.1.0.0`); I3D's have the names of
the TensorFlow original (`Mixed_3b.b1b.conv3d`).
"""

from collections.abc import Sequence

from zoo.models.inception import InceptionConfig
from zoo.weights import convert
from zoo.weights.convert import conv_norm


def table(config: InceptionConfig) -> convert.Table:
    """The names for a config."""
    depths = [len(stage) for stage in config.stages]
    rules = _s3d(depths) if config.separable else _i3d(depths)
    return convert.Table(tuple(rules), (convert.BATCHES_TRACKED,))


def _s3d(depths: Sequence[int]) -> list[convert.Rule]:
    def whole(source: str, target: str) -> tuple[convert.Rule, ...]:
        return conv_norm(f"{source}.0", f"{source}.1", f"{target}/full")

    def separable(source: str, target: str) -> tuple[convert.Rule, ...]:
        spatial = conv_norm(f"{source}.0.0", f"{source}.0.1", f"{target}/spatial")
        return (*spatial, *whole(f"{source}.1", target))

    rules = [
        *separable("features.0", "stem"),
        *whole("features.2", "reduce"),
        *separable("features.3", "middle"),
    ]
    place = 5  # after the second pooling, 4
    for stage, depth in enumerate(depths, start=1):
        for number in range(depth):
            source, target = f"features.{place + number}", f"stage{stage}_{number}"
            rules += whole(f"{source}.branch0", f"{target}/b0")
            for branch in (1, 2):
                rules += whole(f"{source}.branch{branch}.0", f"{target}/b{branch}a")
                rules += separable(f"{source}.branch{branch}.1", f"{target}/b{branch}b")
            rules += whole(f"{source}.branch3.1", f"{target}/b3b")
        place += depth + 1  # and the pooling after the stage
    rules += convert.pointwise("classifier.1", "head")
    return rules


def _i3d(depths: Sequence[int]) -> list[convert.Rule]:
    def unit(source: str, target: str) -> tuple[convert.Rule, ...]:
        return conv_norm(f"{source}.conv3d", f"{source}.bn", f"{target}/full")

    rules = [
        *unit("Conv3d_1a_7x7", "stem"),
        *unit("Conv3d_2b_1x1", "reduce"),
        *unit("Conv3d_2c_3x3", "middle"),
    ]
    for stage, depth in enumerate(depths, start=1):
        for number in range(depth):
            source, target = f"Mixed_{stage + 2}{'bcdefg'[number]}", f"stage{stage}_{number}"
            for branch in ("b0", "b1a", "b1b", "b2a", "b2b", "b3b"):
                rules += unit(f"{source}.{branch}", f"{target}/{branch}")
    rules += convert.pointwise("logits.conv3d", "head")
    return rules
