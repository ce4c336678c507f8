"""Bottleneck residual networks over clips: C2D, I3D, Slow, R(2+1)D and CSN, as in PyTorchVideo.

They differ in where they look along time: not at all but for one pooling (`c2d_r50`), in the first
1x1 convolution of some blocks (`i3d_r50`, `slow_r50`), in a convolution before each spatial one
(`r2plus1d_r50`), or in depthwise 3x3x3 convolutions (`csn_r101`). From
pytorchvideo/models/{resnet,r2plus1d,csn}.py and their `hub`.

The head averages a window of the size that the preset's own clips leave, at every position where
it fits, and then the positions: larger crops and longer clips work, smaller ones need the fields
`frames` and `size`. PyTorchVideo's R(2+1)D ends in a softmax before that average; this one returns
logits.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

import kernels
from zoo import layers

Middle = Literal["2d", "2plus1d", "depthwise"]
DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
EXPANSION = 4
SPATIAL_STRIDES = (1, 2, 2, 2)


@dataclasses.dataclass(frozen=True)
class ResNet50Config:
    """What a network of this family is made of.

    Attributes:
      frames: frames of the clip that it is meant for; sets the window of the head.
      size: side of the square crop that it is meant for; sets the window of the head.
      dropout: share of the features dropped before the head in training.
      drop_path: share of the last block's residuals dropped in training, less in earlier blocks.
      remat: recompute blocks in the backward pass, to save memory.
      depths: blocks of each stage.
      width: channels of the stem; the stages have 4, 8, 16 and 32 times as many.
      stem_window: frames that the stem's 7x7 convolution sees.
      stem_pool: whether a 3x3 max-pool of stride 2 follows the stem.
      pool_frames: whether pairs of frames are max-pooled after the first stage.
      windows: frames that the first convolution of each block sees, a pattern for each stage that
        is repeated over its blocks.
      middle: the second convolution: 1x3x3, 3x1x1 followed by 1x3x3, or depthwise 3x3x3.
      spatial_strides, temporal_strides: of the second convolution of each stage's first block.
    """

    frames: int = 8
    size: int = 224
    dropout: float = 0.5
    drop_path: float = 0.0
    remat: bool = False
    depths: tuple[int, ...] = DEPTHS[50]
    width: int = 64
    stem_window: int = 1
    stem_pool: bool = True
    pool_frames: bool = False
    windows: tuple[tuple[int, ...], ...] = ((1,), (1,), (3,), (3,))
    middle: Middle = "2d"
    spatial_strides: tuple[int, ...] = SPATIAL_STRIDES
    temporal_strides: tuple[int, ...] = (1, 1, 1, 1)

    def __post_init__(self) -> None:
        layers.check_rates(self)
        if self.pool_frames and self.frames < 2:
            raise ValueError(
                f"ResNet50Config.frames is {self.frames}; this network pools pairs of frames, so "
                "it must be at least 2"
            )


_POINTWISE = ((1,),) * 4
PRESETS: Mapping[str, ResNet50Config] = {
    "c2d_r50": ResNet50Config(pool_frames=True, windows=_POINTWISE),
    "i3d_r50": ResNet50Config(
        stem_window=5, pool_frames=True, windows=((3,), (3, 1), (3, 1), (1, 3))
    ),
    "slow_r50": ResNet50Config(),
    "slow_r50_4x16": ResNet50Config(frames=4),
    "r2plus1d_r50": ResNet50Config(
        frames=16,
        stem_pool=False,
        windows=_POINTWISE,
        middle="2plus1d",
        spatial_strides=(2, 2, 2, 2),
        temporal_strides=(1, 1, 2, 2),
    ),
    "csn_r101": ResNet50Config(
        frames=32,
        dropout=0.0,
        depths=DEPTHS[101],
        stem_window=3,
        windows=_POINTWISE,
        middle="depthwise",
        temporal_strides=(1, 2, 2, 2),
    ),
}


class Bottleneck(nn.Module):
    """Three convolutions and a shortcut, [b t h w c] to [b t' h' w' 4 * width].

    The last normalisation starts at zero, so that a new network's blocks are their shortcuts.
    """

    width: int
    window: int
    stride: tuple[int, int, int]
    middle: Middle
    drop_path: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """The block's result; `train` switches batch statistics and stochastic depth on."""
        width, features, stride = self.width, EXPANSION * self.width, self.stride
        conv = functools.partial(layers.ConvNorm, dtype=self.dtype)

        y = conv(width, (self.window, 1, 1), name="a")(x, train)
        if self.middle == "2plus1d":
            y = conv(width, (3, 1, 1), (stride[0], 1, 1), name="b_temporal")(y, train)
            y = conv(width, (1, 3, 3), (1, *stride[1:]), name="b")(y, train)
        elif self.middle == "depthwise":
            y = conv(width, (3, 3, 3), stride, groups=width, name="b")(y, train)
        else:
            y = conv(width, (1, 3, 3), stride, name="b")(y, train)
        zeros = nn.initializers.zeros
        y = conv(features, (1, 1, 1), relu=False, scale_init=zeros, name="c")(y, train)
        if x.shape[-1] != features or math.prod(stride) != 1:
            x = conv(features, (1, 1, 1), stride, relu=False, name="shortcut")(x, train)
        return nn.relu(x + layers.drop_path(self.drop_path, train)(y))


def stage(
    x: Array,
    train: bool,
    name: str,
    *,
    width: int,
    windows: Sequence[int],
    stride: tuple[int, int, int],
    middle: Middle,
    drop_path: Sequence[float],
    remat: bool,
    dtype: jnp.dtype,
) -> Array:
    """Blocks `{name}_{0, 1, ...}`, one for each rate of drop_path, the first of them with the
    stride. Called inside a compact `__call__`."""
    block = nn.remat(Bottleneck, static_argnums=(2,)) if remat else Bottleneck
    blocks = zip(itertools.cycle(windows), drop_path, strict=False)
    for number, (window, rate) in enumerate(blocks):
        step = stride if number == 0 else (1, 1, 1)
        x = block(width, window, step, middle, rate, dtype, name=f"{name}_{number}")(x, train)
    return x


def stem_pool(x: Array) -> Array:
    """The 3x3 max-pool of stride 2 over each frame."""
    b, t, h, w, c = x.shape
    frames = x.reshape(b * t, h, w, c)
    frames = kernels.max_pool(frames, (3, 3), stride=(2, 2), padding=[(1, 1), (1, 1)])
    return frames.reshape(b, t, *frames.shape[1:])


class ResNet50(nn.Module):
    """The network: clips [b t h w c], normalised float32, to logits [b num_classes] in float32.

    With `num_classes=0` it returns the clip's features [b 32 * width]. Computes in `dtype`; the
    parameters and the logits are float32.
    """

    config: ResNet50Config
    num_classes: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, clips: Float[Array, "b t h w c"], train: bool = False
    ) -> Float[Array, "b n"]:
        """Logits, or features where there are no classes.

        `train` switches batch statistics, dropout and stochastic depth on. Raises ValueError for
        anything but float clips of five axes, and for clips that leave less than the window of
        the head.
        """
        config = self.config
        frames, size, window = smallest_clip(config)
        layers.check_clips(clips, frames=frames, size=size)

        x = clips.astype(self.dtype)
        stem = (config.stem_window, 7, 7)
        x = layers.ConvNorm(config.width, stem, (1, 2, 2), dtype=self.dtype, name="stem")(x, train)
        if config.stem_pool:
            x = stem_pool(x)
        rates = layers.drop_path_rates(config.drop_path, config.depths)
        for number, (windows, along_time, in_space, stage_rates) in enumerate(
            zip(config.windows, config.temporal_strides, config.spatial_strides, rates, strict=True)
        ):
            x = stage(
                x,
                train,
                f"stage{number + 1}",
                width=config.width * 2**number,
                windows=windows,
                stride=(along_time, in_space, in_space),
                middle=config.middle,
                drop_path=stage_rates,
                remat=config.remat,
                dtype=self.dtype,
            )
            if number == 0 and config.pool_frames:
                x = kernels.max_pool(x, (2, 1, 1))
        x = layers.window_means(x, window)
        return layers.classify(x, self.num_classes, config.dropout, train)


def smallest_clip(config: ResNet50Config) -> tuple[int, int, tuple[int, int, int]]:
    """Frames and size of the smallest clip that fills the window of the head, and that window."""
    in_space = 2 * (2 if config.stem_pool else 1) * math.prod(config.spatial_strides)
    along_time = math.prod(config.temporal_strides)
    side = -(-config.size // in_space)  # padded strides round up
    smallest = (side - 1) * in_space + 1
    if config.pool_frames:  # rounds down
        pairs = -(-(config.frames // 2) // along_time)
        return 2 * ((pairs - 1) * along_time + 1), smallest, (pairs, side, side)
    left = -(-config.frames // along_time)
    return (left - 1) * along_time + 1, smallest, (left, side, side)
