"""Three convolutions, two dense layers: the plain image network, applied to every frame of a clip.

`cnn_base` is the classic text-book classifier for 224x224 frames: three 3x3 convolutions of 32, 64
and 128 channels, each with ReLU and 2x2 max-pooling, a dense layer of 1024, and one of as many
units as there are classes. Padding, initial weights and biases are the defaults of Keras (valid,
Glorot uniform, zeros). `cnn_small` is the same at 64x64 with a dense layer of 128. Neither can
tell the order of the frames. `cnn_small_shift` can: before its second and third convolution and
its dense layer a quarter of the channels comes from the next frame and a quarter from the frame
before (temporal shift, Lin, Gan and Han 2019), each as the change from the frame's own value. Plain
shifted values see motion too, but learn it more slowly and less well (BUILD_NOTES.md).

With `shift_causal=True`, or without a shift, no frame depends on a later one, and the network runs
frame by frame: `init_state` and `step`, of which `zoo.streaming` tells. A stream's logits are then
those of a call on all frames so far. Weights that were trained with the shift both ways do not fit
it; they stream through `zoo.streaming.SlidingWindow`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from zoo import layers, streaming

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
      shift_causal: whether channels come from the frame before alone, for streams.
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
    shift_causal: bool = False

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

    def __call__(
        self, clips: Float[Array, "b t h w c"], train: bool = False
    ) -> Float[Array, "b n"]:
        """Logits, or features where there are no classes; `train` switches dropout on.

        Raises ValueError for anything but float clips of five axes, and for frames too small.
        """
        return self.advance(clips, None, train)[0]

    def init_state(self, batch: int, height: int, width: int) -> streaming.State:
        """The state before the first frame of `batch` streams of height x width, of 3 channels.

        Raises ValueError where frames depend on later ones.
        """
        config = self.config
        if config.shift and not config.shift_causal:
            raise ValueError(
                "this CNN takes channels from the next frame; create it with shift_causal=True, "
                "or stream it through zoo.streaming.SlidingWindow"
            )
        past, channels = {}, 3
        for layer in range(1, len(config.widths) + 2):
            if layer in config.shift:
                past[str(layer)] = jnp.zeros((batch, height, width, channels), self.dtype)
            if layer <= len(config.widths):
                channels = config.widths[layer - 1]
                height, width = ((side - WINDOW + 1) // POOL for side in (height, width))
        mean = jnp.zeros((batch, config.hidden), jnp.float32)
        return {"seen": jnp.zeros(batch, jnp.int32), "mean": mean, "past": past}

    def step(
        self,
        variables: Mapping[str, Any],
        frames: Float[Array, "b h w c"] | Float[Array, "b t h w c"],
        state: streaming.State,
    ) -> tuple[Float[Array, "b n"], streaming.State]:
        """The logits for all frames so far, and the state after the next frame, or the next few.

        Raises ValueError for frames that do not fit the state.
        """
        clips = streaming.as_clips(frames)
        layers.check_clips(clips)
        fitting = jax.eval_shape(lambda: self.init_state(clips.shape[0], *clips.shape[2:4]))
        streaming.check_state(clips, state, fitting)
        return self.apply(variables, clips, state, False, method=CNN.advance)

    @nn.compact
    def advance(
        self, clips: Float[Array, "b t h w c"], state: streaming.State | None, train: bool
    ) -> tuple[Float[Array, "b n"], streaming.State | None]:
        """The logits after clips that follow those of `state`, and the state after them."""
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

        past: dict[str, Array] = {}
        x = clips.reshape(b * t, h, w, c).astype(self.dtype)  # every frame is an image
        for number, width in enumerate(config.widths, start=1):
            x = self._shifted(x, number, t, state, past)
            x = layers.ConvPool(
                width,
                (WINDOW, WINDOW),
                (POOL, POOL),
                config.activation,
                self.dtype,
                name=f"conv{number}",
            )(x)
        x = self._shifted(x, len(config.widths) + 1, t, state, past).reshape(b * t, -1)
        self._require_same_size((h, w), x.shape[-1])
        x = nn.Dense(
            config.hidden,
            dtype=self.dtype,
            kernel_init=nn.initializers.glorot_uniform(),
            name="hidden",
        )(x)
        # Averaging the features instead of the logits gives the same logits, since the last layer
        # is linear, costs less, and gives a clip's features a meaning of their own.
        x = activation(x).astype(jnp.float32).reshape(b, t, -1)
        after = None
        if state is None:
            x = x.mean(axis=1)
        else:
            x = streaming.running_mean(x, state["mean"], state["seen"])[:, -1]
            after = {"seen": streaming.count(state["seen"], t), "mean": x, "past": past}
        if self.num_classes == 0:
            return x, after
        # Also after the mean, so that a unit is dropped for the whole clip and not frame by frame,
        # where the other frames would make up for it.
        x = nn.Dropout(config.dropout, deterministic=not train)(x)
        head = nn.Dense(self.num_classes, kernel_init=nn.initializers.glorot_uniform(), name="head")
        return head(x), after

    def _shifted(
        self,
        x: Float[Array, "bt h w c"],
        layer: int,
        t: int,
        state: streaming.State | None,
        past: dict[str, Array],
    ) -> Array:
        """x with its channels shifted, where they are; its last frame goes to `past`."""
        config, name = self.config, str(layer)
        if layer not in config.shift:
            return x
        clips = x.reshape(-1, t, *x.shape[1:])
        before = None
        if state is not None:
            # Of the first frame of all, nothing comes before it: it is as at the start of a clip.
            start = clips[:, 0] if config.shift_difference else jnp.zeros_like(clips[:, 0])
            started = (state["seen"] > 0)[:, None, None, None]
            before = jnp.where(started, state["past"][name], start)
            past[name] = clips[:, -1]
        clips = layers.temporal_shift(
            clips, config.shift_fraction, config.shift_difference, config.shift_causal, before
        )
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
