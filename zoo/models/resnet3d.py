"""Residual networks of 18 layers over clips: 3D, mixed, and factorised into space and time.

`r3d_18`, `mc3_18` and `r2plus1d_18` of torchvision (torchvision/models/video/resnet.py), after
Tran et al. 2018, "A Closer Look at Spatiotemporal Convolutions for Action Recognition". They take
any number of frames and any crop: the head averages over all positions.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from zoo import layers

Kind = Literal["3d", "2d", "2plus1d"]


@dataclasses.dataclass(frozen=True)
class ResNet3DConfig:
    """What a network of this family is made of.

    Attributes:
      frames: frames of the clip that it is meant for; any number works.
      size: side of the square crop that it is meant for; any works.
      dropout: share of the features dropped before the head in training.
      drop_path: share of the last block's residuals dropped in training, less in earlier blocks.
      remat: recompute blocks in the backward pass, to save memory.
      kinds: of the convolutions of each stage: 3x3x3, 1x3x3, or 1x3x3 followed by 3x1x1.
      depths: blocks of each stage.
      widths: channels of each stage.
    """

    frames: int = 16
    size: int = 112
    dropout: float = 0.0
    drop_path: float = 0.0
    remat: bool = False
    kinds: tuple[Kind, ...] = ("3d",) * 4
    depths: tuple[int, ...] = (2, 2, 2, 2)
    widths: tuple[int, ...] = (64, 128, 256, 512)

    def __post_init__(self) -> None:
        layers.check_rates(self)
        if not len(self.kinds) == len(self.depths) == len(self.widths):
            raise ValueError(
                f"ResNet3DConfig has kinds {self.kinds}, depths {self.depths} and widths "
                f"{self.widths}; give one of each for each stage"
            )


PRESETS: Mapping[str, ResNet3DConfig] = {
    "r3d_18": ResNet3DConfig(),
    "mc3_18": ResNet3DConfig(kinds=("3d", "2d", "2d", "2d")),
    "r2plus1d_18": ResNet3DConfig(kinds=("2plus1d",) * 4),
}


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut, [b t h w c] to [b t' h' w' features]."""

    features: int
    kind: Kind
    stride: int
    drop_path: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """The block's result; `train` switches batch statistics and stochastic depth on."""
        inputs, features, stride = x.shape[-1], self.features, self.stride
        # As many parameters as a 3x3x3 window has. Both convolutions share the number, though the
        # second may have more inputs than the first: so it is in the original.
        middle = inputs * features * 27 // (inputs * 9 + features * 3)
        conv = functools.partial(layers.ConvNorm, dtype=self.dtype)

        y = x
        for name, step in (("conv1", stride), ("conv2", 1)):
            relu = name == "conv1"
            if self.kind == "2plus1d":
                spatial = conv(middle, (1, 3, 3), (1, step, step), name=f"{name}_spatial")
                y = spatial(y, train)
                y = conv(features, (3, 1, 1), (step, 1, 1), relu=relu, name=name)(y, train)
            elif self.kind == "2d":
                y = conv(features, (1, 3, 3), (1, step, step), relu=relu, name=name)(y, train)
            else:
                y = conv(features, (3, 3, 3), (step, step, step), relu=relu, name=name)(y, train)
        if stride != 1 or inputs != features:
            along_time = 1 if self.kind == "2d" else stride
            strides = (along_time, stride, stride)
            x = conv(features, (1, 1, 1), strides, relu=False, name="shortcut")(x, train)
        return nn.relu(x + layers.drop_path(self.drop_path, train)(y))


class ResNet3D(nn.Module):
    """The network: clips [b t h w c], normalised float32, to logits [b num_classes] in float32.

    With `num_classes=0` it returns the clip's features [b widths[-1]]. Computes in `dtype`; the
    parameters and the logits are float32.
    """

    config: ResNet3DConfig
    num_classes: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, clips: Float[Array, "b t h w c"], train: bool = False
    ) -> Float[Array, "b n"]:
        """Logits, or features where there are no classes.

        `train` switches batch statistics, dropout and stochastic depth on. Raises ValueError for
        anything but float clips of five axes.
        """
        config = self.config
        layers.check_clips(clips)
        conv = functools.partial(layers.ConvNorm, dtype=self.dtype)
        width = config.widths[0]

        x = clips.astype(self.dtype)
        if config.kinds[0] == "2plus1d":
            x = conv(45, (1, 7, 7), (1, 2, 2), name="stem_spatial")(x, train)
            x = conv(width, (3, 1, 1), name="stem")(x, train)
        else:
            x = conv(width, (3, 7, 7), (1, 2, 2), name="stem")(x, train)
        block = nn.remat(BasicBlock, static_argnums=(2,)) if config.remat else BasicBlock
        rates = layers.drop_path_rates(config.drop_path, config.depths)
        stages = zip(config.kinds, config.widths, rates, strict=True)
        for stage, (kind, features, stage_rates) in enumerate(stages, start=1):
            for number, rate in enumerate(stage_rates):
                stride = 2 if stage > 1 and number == 0 else 1
                name = f"layer{stage}_{number}"
                x = block(features, kind, stride, rate, self.dtype, name=name)(x, train)
        x = layers.window_means(x, x.shape[1:4])
        return layers.classify(x, self.num_classes, config.dropout, train)
