"""Named shapes of the operators, read by the tests and the benchmark.

The shapes are those of the networks they are named after, in a training batch for one accelerator,
and follow from their published strides and widths: X3D-M (16 frames of 224x224), MoViNet-A2 (50 of
224x224, its stream variant where a name says causal), SlowFast-R50 (32 of 224x224), R(2+1)D-18 (16
of 112x112), I3D, C3D, VideoMAE-B and MViTv2-S (16 of 224x224), TimeSformer-B (8 of 224x224),
Video-Swin-T (32 of 224x224), and cnn_base and cnn_small of this project. Those that begin with
cpu or small are for a CPU.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Spec:
    """One call of an operator.

    x: [n, *spatial, c]. window, stride: one entry for each spatial axis, of the pool or the
    convolution; empty for sums. padding: as the operators take it. outputs: channels of the result
    (convolutions only). groups: of the convolution. activation: of depthwise_conv3d. For attention
    x is [b, n, h, d], and keys is how many keys there are, as many as queries where it is 0.
    """

    name: str
    x: tuple[int, ...]
    window: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: str | tuple[tuple[int, int], ...] = "VALID"
    outputs: int = 0
    groups: int = 1
    activation: str | None = None
    keys: int = 0

    def batch(self, n: int) -> "Spec":
        """The same call for a batch of n, for a slower device or a smaller memory."""
        return dataclasses.replace(self, x=(n, *self.x[1:]))


def _depthwise(
    name: str,
    x: tuple[int, ...],
    window: tuple[int, ...] = (3, 3, 3),
    step: int = 1,
    activation: str | None = None,
    causal: bool = False,
) -> Spec:
    """As many outputs as inputs; padded by half the window, or along time at the start alone."""
    pads = tuple((size // 2, size // 2) for size in window)
    if causal:
        pads = ((window[0] - 1, 0), *pads[1:])
    return Spec(name, x, window, (1, step, step), pads, x[-1], x[-1], activation)


def _padded(
    name: str,
    x: tuple[int, ...],
    window: tuple[int, ...],
    outputs: int,
    stride: tuple[int, ...] = (1, 1, 1),
) -> Spec:
    """A convolution padded by half its window."""
    return Spec(name, x, window, stride, tuple((s // 2, s // 2) for s in window), outputs)


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
    Spec("small.pool", (16, 62, 62, 32), (2, 2), (2, 2)),
    Spec("i3d.pool5", (8, 8, 28, 28, 480), (3, 3, 3), (2, 2, 2), "SAME"),
)

CONV = (
    Spec("small.conv", (16, 31, 31, 32), (3, 3), (1, 1), "VALID", 64),
    Spec("cnn_small.conv1", (1024, 64, 64, 3), (3, 3), (1, 1), "VALID", 32),
    Spec("cnn_base.conv1", (512, 224, 224, 3), (3, 3), (1, 1), "VALID", 32),
    Spec("cnn_base.conv2", (512, 111, 111, 32), (3, 3), (1, 1), "VALID", 64),
    Spec("cnn_base.conv3", (512, 54, 54, 64), (3, 3), (1, 1), "VALID", 128),
    _padded("r2plus1d_18.stem", (8, 16, 112, 112, 3), (1, 7, 7), 45, (1, 2, 2)),
    _padded("r2plus1d_18.spatial", (8, 16, 56, 56, 64), (1, 3, 3), 144),
    _padded("r2plus1d_18.temporal", (8, 16, 56, 56, 144), (3, 1, 1), 64),
    _padded("r2plus1d_18.spatial_down", (8, 16, 56, 56, 64), (1, 3, 3), 230, (1, 2, 2)),
    _padded("r2plus1d_18.temporal_down", (8, 16, 28, 28, 230), (3, 1, 1), 128, (2, 1, 1)),
    _padded("x3d_m.stem", (32, 16, 224, 224, 3), (1, 3, 3), 24, (1, 2, 2)),
    _padded("x3d_m.expand", (32, 16, 56, 56, 24), (1, 1, 1), 54),
    _padded("x3d_m.project", (32, 16, 56, 56, 54), (1, 1, 1), 24),
    _padded("movinet_a2.stem", (8, 50, 224, 224, 3), (1, 3, 3), 16, (1, 2, 2)),
    _padded("movinet_a2.expand", (8, 50, 14, 14, 72), (1, 1, 1), 240),
    _padded("movinet_a2.project", (8, 50, 14, 14, 240), (1, 1, 1), 72),
    _padded("c3d.conv2", (8, 16, 56, 56, 64), (3, 3, 3), 128),
    _padded("slowfast_r50.slow_stem", (8, 8, 224, 224, 3), (1, 7, 7), 64, (1, 2, 2)),
    _padded("slowfast_r50.fast_stem", (8, 32, 224, 224, 3), (5, 7, 7), 8, (1, 2, 2)),
    _padded("slowfast_r50.slow_spatial", (8, 8, 56, 56, 64), (1, 3, 3), 64),
    _padded("slowfast_r50.slow_temporal", (8, 8, 14, 14, 1024), (3, 1, 1), 256),
    _padded("slowfast_r50.fast_temporal", (8, 32, 56, 56, 32), (3, 1, 1), 8),
    _padded("slowfast_r50.lateral", (8, 32, 56, 56, 8), (7, 1, 1), 16, (4, 1, 1)),
)

DEPTHWISE = (
    _depthwise("x3d_m.stem_temporal", (32, 16, 112, 112, 24), (5, 1, 1)),
    _depthwise("x3d_m.stage2", (32, 16, 56, 56, 54)),
    _depthwise("x3d_m.stage3", (32, 16, 28, 28, 108)),
    _depthwise("x3d_m.stage4", (32, 16, 14, 14, 216)),
    _depthwise("x3d_m.stage5", (32, 16, 7, 7, 432)),
    _depthwise("x3d_m.stage2_down", (32, 16, 112, 112, 54), step=2),
    _depthwise("x3d_m.stage3_down", (32, 16, 56, 56, 108), step=2),
    _depthwise("movinet_a2.block1_down", (8, 50, 112, 112, 40), (1, 5, 5), step=2),
    _depthwise("movinet_a2.block2", (8, 50, 28, 28, 120)),
    _depthwise("movinet_a2.block3_down", (8, 50, 28, 28, 240), (5, 3, 3), step=2),
    _depthwise("movinet_a2.block4", (8, 50, 14, 14, 240), (5, 3, 3)),
    _depthwise("movinet_a2.block5", (8, 50, 7, 7, 480), (1, 5, 5)),
    _depthwise("movinet_a2.causal_spatial", (8, 50, 14, 14, 240), (1, 3, 3)),
    _depthwise("movinet_a2.causal_temporal3", (8, 50, 14, 14, 240), (3, 1, 1), causal=True),
    _depthwise("movinet_a2.causal_temporal5", (8, 50, 14, 14, 240), (5, 1, 1), causal=True),
    _depthwise("cpu.depthwise", (1, 13, 40, 40, 54)),
)

# A convolution with folded normalisation, activation, and the sums for squeeze-excite.
FUSED_DEPTHWISE = (
    _depthwise("x3d_m.stage2_fused", (32, 16, 56, 56, 54)),
    _depthwise("x3d_m.stage2_silu", (32, 16, 56, 56, 54), activation="silu"),
    _depthwise("movinet_a2.block4_fused", (8, 50, 14, 14, 240), (5, 3, 3), activation="silu"),
    _depthwise("cpu.depthwise_fused", (1, 13, 40, 40, 54), activation="silu"),
)

# Of the convolution; the pool is 2x2.
BLOCK = tuple(
    dataclasses.replace(spec, name=spec.name.replace(".conv", ".block"))
    for spec in CONV
    if spec.name.startswith(("cnn_", "small."))
)

CHANNEL_SUMS = (
    Spec("cpu.batch_moments", (1, 13, 40, 40, 54)),
    Spec("r2plus1d_18.batch_moments", (8, 16, 56, 56, 144)),
    Spec("slowfast_r50.batch_moments", (8, 8, 56, 56, 256)),
    Spec("x3d_m.batch_moments", (32, 16, 56, 56, 54)),
)

SPATIAL_SUM = (
    Spec("x3d_m.squeeze", (32, 16, 56, 56, 54)),
    Spec("movinet_a2.squeeze", (8, 50, 14, 14, 240)),
)

# Tokens of a clip; of each frame; of each window of 8x7x7; all against fewer, pooled ones.
ATTENTION = (
    Spec("videomae_b.attention", (8, 1568, 12, 64)),
    Spec("timesformer_b.spatial_attention", (64, 197, 12, 64)),
    Spec("swin3d_t.stage2_attention", (256, 392, 6, 32)),
    Spec("mvit_v2_s.stage1_attention", (8, 25089, 1, 96), keys=393),
    Spec("small.attention", (2, 196, 3, 64)),
)

# Operator and shapes; depthwise convolutions without more are calls of `conv`.
ALL = {
    "max_pool": POOL,
    "conv": CONV + DEPTHWISE,
    "depthwise_conv3d": FUSED_DEPTHWISE,
    "conv_bias_relu_pool": BLOCK,
    "channel_sums": CHANNEL_SUMS,
    "spatial_sum": SPATIAL_SUM,
    "attention": ATTENTION,
}
