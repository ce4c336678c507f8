"""Named shapes of the operators, read by the tests and the benchmark.

The shapes are those of the networks they are named after, in a training batch for one accelerator,
and follow from their published strides and widths: X3D-M (16 frames of 224x224), SlowFast-R50 (32
of 224x224), R(2+1)D-18 (16 of 112x112), I3D, C3D, and cnn_base and cnn_small of this project.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Spec:
    """One call of an operator.

    x: [n, *spatial, c]. window, stride: one entry for each spatial axis. padding: as the operators
    take it. outputs: channels of the result (convolutions only). groups: of the convolution.
    """

    name: str
    x: tuple[int, ...]
    window: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str | tuple[tuple[int, int], ...] = "VALID"
    outputs: int = 0
    groups: int = 1

    def batch(self, n: int) -> "Spec":
        """The same call for a batch of n, for a slower device or a smaller memory."""
        return dataclasses.replace(self, x=(n, *self.x[1:]))


POOL = (
    Spec("cnn_small.pool1", (1024, 62, 62, 32), (2, 2), (2, 2)),
    Spec("cnn_base.pool1", (512, 222, 222, 32), (2, 2), (2, 2)),
    Spec("cnn_base.pool2", (512, 109, 109, 64), (2, 2), (2, 2)),
    Spec("resnet.stem_pool", (512, 112, 112, 64), (3, 3), (2, 2), ((1, 1), (1, 1))),
    Spec(
        "slowfast_r50.stem_pool",
        (8, 8, 112, 112, 64),
        (1, 3, 3),
        (1, 2, 2),
        ((0, 0), (1, 1), (1, 1)),
    ),
    Spec("i3d.pool5", (8, 8, 28, 28, 480), (3, 3, 3), (2, 2, 2), "SAME"),
)

CONV = (
    Spec("cnn_small.conv1", (1024, 64, 64, 3), (3, 3), (1, 1), "VALID", 32),
    Spec("cnn_base.conv1", (512, 224, 224, 3), (3, 3), (1, 1), "VALID", 32),
    Spec("cnn_base.conv2", (512, 111, 111, 32), (3, 3), (1, 1), "VALID", 64),
    Spec("cnn_base.conv3", (512, 54, 54, 64), (3, 3), (1, 1), "VALID", 128),
    Spec(
        "r2plus1d_18.spatial",
        (8, 16, 56, 56, 64),
        (1, 3, 3),
        (1, 1, 1),
        ((0, 0), (1, 1), (1, 1)),
        144,
    ),
    Spec(
        "r2plus1d_18.temporal",
        (8, 16, 56, 56, 144),
        (3, 1, 1),
        (1, 1, 1),
        ((1, 1), (0, 0), (0, 0)),
        64,
    ),
    Spec("x3d_m.expand", (32, 16, 56, 56, 24), (1, 1, 1), (1, 1, 1), "VALID", 54),
    Spec("c3d.conv2", (8, 16, 56, 56, 64), (3, 3, 3), (1, 1, 1), "SAME", 128),
    Spec(
        "slowfast_r50.lateral",
        (8, 32, 56, 56, 8),
        (5, 1, 1),
        (8, 1, 1),
        ((2, 2), (0, 0), (0, 0)),
        16,
    ),
)

DEPTHWISE = (
    Spec("x3d_m.stage2", (32, 16, 56, 56, 54), (3, 3, 3), (1, 1, 1), "SAME", 54, 54),
    Spec("x3d_m.stage3", (32, 16, 28, 28, 108), (3, 3, 3), (1, 1, 1), "SAME", 108, 108),
    Spec("x3d_m.stage4", (32, 16, 14, 14, 216), (3, 3, 3), (1, 1, 1), "SAME", 216, 216),
    Spec("x3d_m.stage5", (32, 16, 7, 7, 432), (3, 3, 3), (1, 1, 1), "SAME", 432, 432),
    Spec("x3d_m.stage3_down", (32, 16, 56, 56, 108), (3, 3, 3), (1, 2, 2), "SAME", 108, 108),
    Spec("cpu.depthwise", (1, 13, 40, 40, 54), (3, 3, 3), (1, 1, 1), "SAME", 54, 54),
)

ALL = {"max_pool": POOL, "conv": CONV, "depthwise_conv3d": DEPTHWISE}
