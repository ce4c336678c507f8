"""Inception networks over clips: I3D, and S3D, which factorises it into space and time.

`i3d_inception` is the network of Carreira and Zisserman 2017, "Quo Vadis, Action Recognition? A New
Model and the Kinetics Dataset", as in github.com/piergiaj/pytorch-i3d: GoogLeNet with every window
inflated to three axes, and the padding of TensorFlow. `s3d` is the network of Xie et al. 2018,
"Rethinking Spatiotemporal Feature Learning", as in torchvision (torchvision/models/video/s3d.py):
the same with every larger window taken apart into one over space and one over time, and padded
evenly.

At the clip size of their config the heads see one window of 2x7x7 positions; larger clips have
several, whose logits are averaged.
"""

import dataclasses
import functools
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

import kernels
from zoo import layers

# PyTorch's default for convolutions, which both originals keep.
_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")

# Channels of the four branches: 1x1x1; 1x1x1 before 3x3x3, twice; 1x1x1 after a pooling.
Widths = tuple[int, int, int, int, int, int]
STAGES: tuple[tuple[Widths, ...], ...] = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
Triple = tuple[int, int, int]
# Window and stride of the pooling before each stage, and of the one after the first convolution.
POOLS: tuple[tuple[Triple, Triple], ...] = (
    ((1, 3, 3), (1, 2, 2)),
    ((3, 3, 3), (2, 2, 2)),
    ((2, 2, 2), (2, 2, 2)),
)
STEM_POOL = POOLS[0]


@dataclasses.dataclass(frozen=True)
class InceptionConfig:
    """What a network of this family is made of.

    Attributes:
      frames: frames of the clip that it is meant for; more of them work too.
      size: side of the square crop that it is meant for; larger ones work too.
      dropout: share of the features dropped before the head in training.
      remat: recompute Inception blocks in the backward pass, to save memory.
      separable: every larger window is one over space followed by one over time (S3D).
      same_padding: pad as TensorFlow does (I3D), and not by half the window.
      momentum: of the running statistics.
      stem: channels of the first two convolutions.
      middle: channels of the third.
      stages: channels in the blocks of each of the three stages.
    """

    frames: int = 64
    size: int = 224
    dropout: float = 0.5
    remat: bool = False
    separable: bool = False
    same_padding: bool = True
    momentum: float = 0.99
    stem: int = 64
    middle: int = 192
    stages: tuple[tuple[Widths, ...], ...] = STAGES

    def __post_init__(self) -> None:
        layers.check_rates(self)
        if len(self.stages) != len(POOLS):
            raise ValueError(
                f"InceptionConfig has {len(self.stages)} stages; give {len(POOLS)}, as there is a "
                "pooling before each"
            )


PRESETS: Mapping[str, InceptionConfig] = {
    "i3d_inception": InceptionConfig(),
    "s3d": InceptionConfig(
        frames=128, dropout=0.2, separable=True, same_padding=False, momentum=0.999
    ),
}


class Convolution(nn.Module):
    """A convolution, batch normalisation and ReLU; of two convolutions where it is separable."""

    config: InceptionConfig
    features: int
    side: int
    stride: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"], train: bool) -> Array:
        """The block's result; `train` as of `BatchNorm`. Submodules spatial, if any, and full."""
        side, stride = self.side, self.stride

        def conv(window: Triple, stride: Triple, name: str) -> layers.ConvNorm:
            return layers.ConvNorm(
                self.features,
                window,
                stride,
                padding="SAME" if self.config.same_padding else None,
                epsilon=1e-3,
                momentum=self.config.momentum,
                kernel_init=_INIT,
                dtype=self.dtype,
                name=name,
            )

        if self.config.separable and side > 1:
            x = conv((1, side, side), (1, stride, stride), "spatial")(x, train)
            return conv((side, 1, 1), (stride, 1, 1), "full")(x, train)
        return conv((side, side, side), (stride, stride, stride), "full")(x, train)


class Block(nn.Module):
    """Four branches side by side, [b t h w c] to [b t h w n]."""

    config: InceptionConfig
    widths: Widths
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"], train: bool) -> Array:
        """The branches' channels, one after the other."""
        conv = functools.partial(Convolution, self.config, dtype=self.dtype)
        b0, b1a, b1b, b2a, b2b, b3b = self.widths
        pooled = kernels.max_pool(x, (3, 3, 3), stride=1, padding="SAME")
        branches = (
            conv(b0, 1, name="b0")(x, train),
            conv(b1b, 3, name="b1b")(conv(b1a, 1, name="b1a")(x, train), train),
            conv(b2b, 3, name="b2b")(conv(b2a, 1, name="b2a")(x, train), train),
            conv(b3b, 1, name="b3b")(pooled, train),
        )
        return jnp.concatenate(branches, axis=-1)


class Inception(nn.Module):
    """The network: clips [b t h w c], normalised float32, to logits [b num_classes] in float32.

    With `num_classes=0` it returns the clip's features, as many as the last block has channels.
    Computes in `dtype`; the parameters and the logits are float32.
    """

    config: InceptionConfig
    num_classes: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, clips: Float[Array, "b t h w c"], train: bool = False
    ) -> Float[Array, "b n"]:
        """Logits, or features where there are no classes.

        `train` switches batch statistics and dropout on. Raises ValueError for anything but float
        clips of five axes, and for clips with fewer positions than the head's window has.
        """
        config = self.config
        window = head_window(config)
        layers.check_clips(
            clips,
            frames=_smallest(config, window[0], 0),
            size=_smallest(config, window[1], 1),
        )
        conv = functools.partial(Convolution, config, dtype=self.dtype)
        x = clips.astype(self.dtype)
        x = conv(config.stem, 7, 2, name="stem")(x, train)
        x = _pool(config, x, *STEM_POOL)
        x = conv(config.stem, 1, name="reduce")(x, train)
        x = conv(config.middle, 3, name="middle")(x, train)
        block = nn.remat(Block, static_argnums=(2,)) if config.remat else Block
        for stage, (pool, widths) in enumerate(zip(POOLS, config.stages, strict=True), start=1):
            x = _pool(config, x, *pool)
            for number, channels in enumerate(widths):
                name = f"stage{stage}_{number}"
                x = block(config, channels, self.dtype, name=name)(x, train)
        # Windows overlap, one position apart; their mean weighs the positions in the middle more.
        means = nn.avg_pool(x.astype(jnp.float32), window, (1, 1, 1))
        return layers.classify(means, self.num_classes, config.dropout, train)


def _pool(
    config: InceptionConfig,
    x: Float[Array, "b t h w c"],
    window: Triple,
    stride: Triple,
) -> Array:
    half = [((size - 1) // 2, (size - 1) // 2) for size in window]
    padding = "SAME" if config.same_padding else half
    return kernels.max_pool(x, window, stride=stride, padding=padding)


def _positions(config: InceptionConfig, size: int, axis: int) -> int:
    """How many positions the last stage has along an axis of the clip: 0 for time, 1 for space."""
    steps = [(7, 2), *((w[axis], s[axis]) for w, s in (STEM_POOL, *POOLS))]
    for window, stride in steps:
        if config.same_padding:
            size = -(-size // stride)
        else:
            size = max(0, (size + 2 * ((window - 1) // 2) - window) // stride + 1)
    return size


def head_window(config: InceptionConfig) -> Triple:
    """Positions that the head averages: 2x7x7, and fewer where the config's clip has fewer."""
    time = min(2, _positions(config, config.frames, 0))
    side = min(7, _positions(config, config.size, 1))
    return max(1, time), max(1, side), max(1, side)


def _smallest(config: InceptionConfig, positions: int, axis: int) -> int:
    return next(n for n in range(1, 1000) if _positions(config, n, axis) >= positions)
