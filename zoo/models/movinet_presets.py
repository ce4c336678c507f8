"""The configs of the MoViNets: what the search found for each size. See `zoo.models.movinet`."""

import dataclasses
from collections.abc import Mapping

from zoo import layers

# Frames and side of a depthwise window.
Window = tuple[int, int]
S3, S5, T3, T5 = (1, 3), (1, 5), (3, 3), (5, 3)

# Expanded channels and window of each block.
Stage = tuple[tuple[int, Window], ...]

# In space, of the first block of each stage.
STRIDES = (2, 2, 2, 1, 2)


@dataclasses.dataclass(frozen=True)
class MoViNetConfig:
    """What a network of this family is made of.

    Attributes:
      frames: frames of the clip that it is meant for; any number works.
      size: side of the square crop that it is meant for.
      dropout: share of the hidden units dropped in training.
      drop_path: share of the last block's residuals dropped in training, less in earlier blocks.
      remat: recompute blocks in the backward pass, to save memory.
      causal: a stream network.
      stem: channels of the first convolution.
      widths: channels of each stage.
      blocks: of each stage, each with its expanded channels and its window.
      pads: of each stage's first block, how many rows and columns of zeros surround the frames for
        its window, and for the 3x3 pooling beside it; other windows are padded by half their size.
      top: channels of the last convolution.
      hidden: units of the dense layer before the classes.
      same_padding: pad as TensorFlow does, and not by `pads`: as much as keeps ceil(size / stride)
        rows, the odd row at the end, and nothing of it counts in a pooling.
    """

    frames: int
    size: int
    stem: int
    widths: tuple[int, ...]
    blocks: tuple[Stage, ...]
    top: int
    pads: tuple[tuple[int, int], ...] = ((2, 1), (1, 1), (1, 1), (1, 1), (1, 1))
    hidden: int = 2048
    causal: bool = False
    same_padding: bool = False
    dropout: float = 0.2
    drop_path: float = 0.0
    remat: bool = False

    def __post_init__(self) -> None:
        layers.check_rates(self)
        stages = len(STRIDES)
        if not len(self.widths) == len(self.blocks) == len(self.pads) == stages:
            raise ValueError(
                f"MoViNetConfig has {len(self.widths)} widths, {len(self.blocks)} stages of blocks "
                f"and {len(self.pads)} pads; give {stages} of each"
            )


def _run(window: Window, *expanded: int) -> Stage:
    """Blocks that share a window."""
    return tuple((channels, window) for channels in expanded)


_A0 = MoViNetConfig(
    frames=50,
    size=172,
    stem=8,
    widths=(8, 32, 56, 56, 104),
    blocks=(
        _run(S5, 24),
        _run(T3, 80, 80, 80),
        _run(T5, 184) + _run(T3, 112, 184),
        _run(T5, 184) + _run(T3, 184, 184, 184),
        _run(T5, 384) + _run(S5, 280, 280, 344),
    ),
    pads=((2, 1), (0, 0), (0, 0), (1, 1), (1, 1)),
    top=480,
)
_A1 = MoViNetConfig(
    frames=50,
    size=172,
    stem=16,
    widths=(16, 40, 64, 64, 136),
    blocks=(
        _run(S5, 40) + _run(T3, 40),
        _run(T3, 96, 120, 96, 96),
        _run(T5, 216) + _run(T3, 128, 216, 168, 216),
        _run(T5, 216) + _run(T3, 216, 216, 128) + _run(S5, 128) + _run(T3, 216),
        _run(T5, 456) + _run(S5, 360, 360, 360, 456) + _run(T3, 456) + _run(S3, 544),
    ),
    pads=((2, 1), (0, 0), (0, 0), (1, 1), (1, 1)),
    top=600,
)
_A2 = MoViNetConfig(
    frames=50,
    size=224,
    stem=16,
    widths=(16, 40, 72, 72, 144),
    blocks=(
        _run(S5, 40) + _run(T3, 40, 64),
        _run(T3, 96, 120, 96, 96, 120),
        _run(T5, 240) + _run(T3, 160, 240, 192, 240),
        _run(T5, 240) + _run(T3, 240, 240, 240) + _run(S5, 144) + _run(T3, 240),
        _run(T5, 480) + _run(S5, 384, 384, 480, 480) + _run(T3, 480) + _run(S3, 576),
    ),
    top=640,
)
_A3 = MoViNetConfig(
    frames=120,
    size=256,
    stem=16,
    widths=(16, 48, 80, 88, 168),
    blocks=(
        _run(S5, 40) + _run(T3, 40, 64, 40),
        _run(T3, 112, 144, 112) + _run(S5, 112) + _run(T3, 144, 144),
        _run(T5, 240) + _run(T3, 152, 240, 192, 240),
        _run(T5, 264) + _run(T3, 264, 264, 264) + _run(S5, 160) + _run(T3, 264, 264, 264),
        _run(T5, 560)
        + _run(S5, 448, 448, 560, 560)
        + _run(T3, 560)
        + _run(S5, 448, 448)
        + _run(T3, 560)
        + _run(S3, 672),
    ),
    top=744,
)
_A4 = MoViNetConfig(
    frames=80,
    size=290,
    stem=24,
    widths=(24, 56, 96, 96, 192),
    blocks=(
        _run(S5, 64) + _run(T3, 64, 96, 64, 96, 64),
        _run(T3, 168, 168, 136, 136, 168, 168, 168) + _run(S5, 136) + _run(T3, 136),
        _run(T5, 320) + _run(T3, 160, 320, 192, 320, 160, 320, 256, 320),
        _run(T5, 320) + _run(T3, 320, 320, 320) + _run(S5, 192) + _run(T3, 320, 320, 192, 320, 320),
        _run(T5, 640)
        + _run(S5, 512, 512, 640, 640)
        + _run(T3, 640)
        + _run(S5, 512, 512, 640, 768, 640)
        + _run(T3, 640, 768),
    ),
    pads=((1, 0), (1, 1), (1, 1), (1, 1), (1, 1)),
    top=856,
)
_A5 = MoViNetConfig(
    frames=120,
    size=320,
    stem=24,
    widths=(24, 64, 112, 120, 224),
    blocks=(
        _run(S5, 64, 64) + _run(T3, 96, 64, 96, 64),
        _run(T5, 192) + _run(T3, 152, 152, 152, 192, 192, 192, 152, 152, 192, 192),
        _run(T5, 376) + _run(T3, 224, 376, 376, 296, 376, 224, 376, 376, 296, 376, 376, 376),
        _run(T5, 376)
        + _run(T3, 376, 376, 376)
        + _run(S5, 224)
        + _run(T3, 376, 376, 224, 376, 376, 376),
        _run(T5, 744)
        + _run(T3, 744)
        + _run(S5, 600, 600, 744, 744)
        + _run(T3, 744)
        + _run(S5, 896, 600, 600, 896, 744)
        + _run(T3, 744)
        + _run(S5, 896, 600, 600, 744)
        + _run(T3, 744),
    ),
    top=992,
)

PRESETS: Mapping[str, MoViNetConfig] = {
    "movinet_a0_base": _A0,
    "movinet_a1_base": _A1,
    "movinet_a2_base": _A2,
    "movinet_a3_base": _A3,
    "movinet_a4_base": _A4,
    "movinet_a5_base": _A5,
    "movinet_a0_stream": dataclasses.replace(_A0, causal=True),
    "movinet_a1_stream": dataclasses.replace(_A1, causal=True),
    "movinet_a2_stream": dataclasses.replace(_A2, causal=True),
}
