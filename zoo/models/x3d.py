"""X3D: thin networks of depthwise 3D convolutions with squeeze-excite, as in PyTorchVideo.

Feichtenhofer 2020, "X3D: Expanding Architectures for Efficient Video Recognition"; from
pytorchvideo/models/x3d.py and its `hub`. `x3d_xs`, `x3d_s` and `x3d_m` are one network for
different clips, `x3d_l` has more blocks.

The head averages a window of the size that the preset's own clips leave, at every position where
it fits, and the positions after its layers: larger crops and longer clips work, smaller ones need
the fields `frames` and `size`.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

import kernels
from zoo import layers

STRIDE = 32  # pixels from one position of the last stage to the next


@dataclasses.dataclass(frozen=True)
class X3DConfig:
    """What a network of this family is made of.

    Attributes:
      frames: frames of the clip that it is meant for; sets the window of the head.
      size: side of the square crop that it is meant for; sets the window of the head.
      dropout: share of the features dropped before the head in training.
      drop_path: share of the last block's residuals dropped in training, less in earlier blocks.
      remat: recompute blocks in the backward pass, to save memory.
      depths: blocks of each stage.
      widths: channels of each stage; the stem has as many as the first.
      expansion: channels inside a block for each outside.
      squeeze: channels of squeeze-excite for each inside a block, which every other block has.
      head_width: features before the classes.
    """

    frames: int = 16
    size: int = 224
    dropout: float = 0.5
    drop_path: float = 0.0
    remat: bool = False
    depths: tuple[int, ...] = (3, 5, 11, 7)
    widths: tuple[int, ...] = (24, 48, 96, 192)
    expansion: float = 2.25
    squeeze: float = 1 / 16
    head_width: int = 2048

    def __post_init__(self) -> None:
        layers.check_rates(self)


PRESETS: Mapping[str, X3DConfig] = {
    "x3d_xs": X3DConfig(frames=4, size=160),
    "x3d_s": X3DConfig(frames=13, size=160),
    "x3d_m": X3DConfig(),
    "x3d_l": X3DConfig(size=312, depths=(5, 10, 25, 15)),
}


class SqueezeExcite(nn.Module):
    """Each channel times a number from 0 to 1 that the means of all channels decide."""

    channels: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b t h w c"]:
        """x, gated."""
        dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=layers.HE_FAN_OUT)
        means = kernels.spatial_sum(x) / math.prod(x.shape[1:4])
        gate = nn.relu(dense(self.channels, name="reduce")(means))
        gate = nn.sigmoid(dense(x.shape[-1], name="expand")(gate))
        return kernels.channel_affine(x, gate)


class Block(nn.Module):
    """Expansion, depthwise 3x3x3 convolution, squeeze-excite perhaps, projection, shortcut.

    [b t h w c] to [b t h' w' features]. The shortcut is normalised only where the width changes.
    The last normalisation starts at zero.
    """

    features: int
    inner: int
    squeeze: int
    stride: int
    drop_path: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """The block's result; `train` switches batch statistics and stochastic depth on."""
        features, inner, stride = self.features, self.inner, (1, self.stride, self.stride)
        conv = functools.partial(layers.ConvNorm, dtype=self.dtype)

        y = conv(inner, (1, 1, 1), name="a")(x, train)
        y = conv(inner, (3, 3, 3), stride, groups=inner, relu=False, name="b")(y, train)
        if self.squeeze:
            y = SqueezeExcite(self.squeeze, self.dtype, name="squeeze_excite")(y)
        y = nn.silu(y)
        zeros = nn.initializers.zeros
        y = conv(features, (1, 1, 1), relu=False, scale_init=zeros, name="c")(y, train)
        if x.shape[-1] != features or self.stride > 1:
            widens = x.shape[-1] != features
            x = _pointwise(features, self.dtype, "shortcut", stride)(x)
            if widens:
                x = layers.BatchNorm(dtype=self.dtype, name="shortcut_norm")(x, train)
        return nn.relu(x + layers.drop_path(self.drop_path, train)(y))


class X3D(nn.Module):
    """The network: clips [b t h w c], normalised float32, to logits [b num_classes] in float32.

    With `num_classes=0` it returns the clip's features [b head_width]. Computes in `dtype`; the
    parameters and the logits are float32.
    """

    config: X3DConfig
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
        side = -(-config.size // STRIDE)  # padded strides round up
        layers.check_clips(clips, frames=config.frames, size=(side - 1) * STRIDE + 1)
        conv = functools.partial(layers.ConvNorm, dtype=self.dtype)
        width = config.widths[0]

        x = clips.astype(self.dtype)
        x = layers.Conv(
            width,
            (1, 3, 3),
            (1, 2, 2),
            [(0, 0), (1, 1), (1, 1)],
            use_bias=False,
            dtype=self.dtype,
            kernel_init=layers.HE_FAN_OUT,
            name="stem_spatial",
        )(x)
        x = conv(width, (5, 1, 1), groups=width, name="stem")(x, train)
        block = nn.remat(Block, static_argnums=(2,)) if config.remat else Block
        rates = layers.drop_path_rates(config.drop_path, config.depths)
        for stage, (features, stage_rates) in enumerate(
            zip(config.widths, rates, strict=True), start=1
        ):
            inner = int(config.expansion * features)
            for number, rate in enumerate(stage_rates):
                squeeze = 0 if number % 2 else rounded(inner * config.squeeze)
                stride = 2 if number == 0 else 1
                name = f"stage{stage}_{number}"
                x = block(features, inner, squeeze, stride, rate, self.dtype, name=name)(x, train)
        inner = int(config.expansion * config.widths[-1])
        x = conv(inner, (1, 1, 1), name="head_expand")(x, train)
        x = layers.window_means(x, (config.frames, side, side))
        x = nn.relu(_pointwise(config.head_width, self.dtype, "head_features")(x))
        return layers.classify(x, self.num_classes, config.dropout, train)


def _pointwise(
    features: int, dtype: jnp.dtype, name: str, stride: tuple[int, int, int] = (1, 1, 1)
) -> layers.Conv:
    return layers.Conv(
        features,
        (1, 1, 1),
        stride,
        use_bias=False,
        dtype=dtype,
        kernel_init=layers.HE_FAN_OUT,
        name=name,
    )


def rounded(width: float, divisor: int = 8) -> int:
    """The multiple of divisor nearest to width, but not less than nine tenths of it.

    The rule of the MobileNets, by which the original rounds its numbers of channels.
    """
    nearest = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * width else nearest
