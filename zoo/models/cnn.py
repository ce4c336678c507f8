"""Three convolutions, two dense layers: the plain image network, applied to every frame of a clip.

`cnn_base` is the classic text-book classifier for 224x224 frames: three 3x3 convolutions of 32, 64
and 128 channels, each with ReLU and 2x2 max-pooling, a dense layer of 1024, and one of as many
units as there are classes. Padding, initial weights and biases are the defaults of Keras (valid,
Glorot uniform, zeros). `cnn_small` is the same at 64x64 with a dense layer of 128. Neither can
tell the order of the frames. `cnn_small_shift` can: before its second and third convolution and
its dense layer a quarter of the channels comes from the next frame and a quarter from the frame
before (temporal shift, Lin, Gan and Han 2019), each as the change from the frame's own value. Plain
shifted values see motion too, but learn it more slowly and less well (BUILD_NOTES.md).
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from zoo import layers

WINDOW = 3
POOL = 2


@dataclasses.dataclass(frozen=True)
class CNNConfig:
    """What a network of this family is made of.

    Attributes:
      frames: frames of the clip that it is meant for; any number works.
      size: side of the square crop that it is meant for; the first dense layer depends on it.
      widths: channels of the convolutions.
      hidden: units of the dense layer before the classes.
      activation: after every layer but the last.
      dropout: share of the hidden units dropped in training.
      shift: layers before which channels are shifted in time: convolutions, counted from 1, and
        the dense layer as the number after theirs.
      shift_fraction: share of the channels shifted each way.
      shift_difference: whether shifted channels carry the change between frames in place of the
        other frame's value.
    """

    frames: int = 8
    size: int = 64
    widths: tuple[int, ...] = (32, 64, 128)
    hidden: int = 128
    activation: Literal["relu", "sigmoid"] = "relu"
    dropout: float = 0.0
    shift: tuple[int, ...] = ()
    shift_fraction: float = 1 / 8
    shift_difference: bool = False

    def __post_init__(self) -> None:
        if self.activation not in layers.ACTIVATIONS:
            raise ValueError(
                f"CNNConfig.activation is {self.activation!r}; it must be "
                f"{' or '.join(map(repr, layers.ACTIVATIONS))}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"CNNConfig.dropout is {self.dropout}; it must be from 0 to below 1")
        layer_numbers = range(1, len(self.widths) + 2)
        if not set(self.shift) <= set(layer_numbers):
            raise ValueError(
                f"CNNConfig.shift is {self.shift}; it must name layers from 1 to "
                f"{layer_numbers[-1]}"
            )
        if not 0 <= self.shift_fraction <= 0.5:
            raise ValueError(
                f"CNNConfig.shift_fraction is {self.shift_fraction}; it must be from 0 to 0.5"
            )


PRESETS: Mapping[str, CNNConfig] = {
    "cnn_base": CNNConfig(size=224, hidden=1024),
    "cnn_small": CNNConfig(),
    "cnn_small_shift": CNNConfig(shift=(2, 3, 4), shift_fraction=1 / 4, shift_difference=True),
}


class CNN(nn.Module):
    """The network: clips [b t h w c], normalised float32, to logits [b num_classes] in float32.

    With `num_classes=0` it returns the clip's features [b hidden]. Computes in `dtype`; the
    parameters and the logits are float32.
    """

    config: CNNConfig
    num_classes: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, clips: Float[Array, "b t h w c"], train: bool = False
    ) -> Float[Array, "b n"]:
        """Logits, or features where there are no classes; `train` switches dropout on.

        Raises ValueError for anything but float clips of five axes, and for frames too small.
        """
        config = self.config
        layers.check_clips(clips)
        b, t, h, w, c = clips.shape
        smallest = smallest_size(config)
        if min(h, w) < smallest:
            raise ValueError(
                f"frames of {h}x{w} are too small for {len(config.widths)} convolutions with "
                f"pooling; give frames of at least {smallest}x{smallest}"
            )
        activation = layers.ACTIVATIONS[config.activation]

        x = clips.reshape(b * t, h, w, c).astype(self.dtype)  # every frame is an image
        for number, width in enumerate(config.widths, start=1):
            x = self._shifted(x, number, t)
            x = layers.ConvPool(
                width,
                (WINDOW, WINDOW),
                (POOL, POOL),
                config.activation,
                self.dtype,
                name=f"conv{number}",
            )(x)
        x = self._shifted(x, len(config.widths) + 1, t).reshape(b * t, -1)
        self._require_same_size((h, w), x.shape[-1])
        x = nn.Dense(
            config.hidden,
            dtype=self.dtype,
            kernel_init=nn.initializers.glorot_uniform(),
            name="hidden",
        )(x)
        # Averaging the features instead of the logits gives the same logits, since the last layer
        # is linear, costs less, and gives a clip's features a meaning of their own.
        x = activation(x).astype(jnp.float32).reshape(b, t, -1).mean(axis=1)
        if self.num_classes == 0:
            return x
        # Also after the mean, so that a unit is dropped for the whole clip and not frame by frame,
        # where the other frames would make up for it.
        x = nn.Dropout(config.dropout, deterministic=not train)(x)
        return nn.Dense(
            self.num_classes, kernel_init=nn.initializers.glorot_uniform(), name="head"
        )(x)

    def _shifted(self, x: Float[Array, "bt h w c"], layer: int, t: int) -> Array:
        if layer not in self.config.shift:
            return x
        clips = x.reshape(-1, t, *x.shape[1:])
        config = self.config
        clips = layers.temporal_shift(clips, config.shift_fraction, config.shift_difference)
        return clips.reshape(x.shape)

    def _require_same_size(self, frame: tuple[int, int], inputs: int) -> None:
        """Flax would speak of a parameter's shape here; the user thinks of the clips'."""
        hidden = self.variables.get("params", {}).get("hidden")
        if hidden is not None and hidden["kernel"].shape[0] != inputs:
            raise ValueError(
                f"clips of {frame[0]}x{frame[1]} give {inputs} values to the dense layer, which "
                f"has weights for {hidden['kernel'].shape[0]}; use the crop size that the weights "
                "were made for"
            )


def smallest_size(config: CNNConfig) -> int:
    """Side in pixels of the smallest frame that leaves one position after the last pooling."""
    side = 1
    for _ in config.widths:
        side = side * POOL + WINDOW - 1
    return side
