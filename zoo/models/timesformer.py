"""TimeSformer: attention among the frames of a place, then among the places of a frame.

`timesformer_b` is TimesformerForVideoClassification of transformers (models/timesformer) with
divided attention, after Bertasius, Wang and Torresani 2021, "Is Space-Time Attention All You Need
for Video Understanding?". Positions are learnt for a grid of places and a number of frames; for
other clips the nearest ones are taken. So any number of frames and any crop will do, as in the
authors' code (github.com/facebookresearch/TimeSformer); transformers' layers group the tokens by
the number of frames in the config, and are right for that number only.
"""

import dataclasses
import math
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from zoo import layers, transformer


@dataclasses.dataclass(frozen=True)
class TimeSformerConfig:
    """What a network of this family is made of.

    Attributes:
      frames: frames of the clip that it is meant for; any number works.
      size: side of the square crop that it is meant for; any works.
      dropout: share of the values dropped after positions, attention and MLP layers in training.
      drop_path: share of the last block's residuals dropped in training, less in earlier blocks.
      remat: recompute blocks in the backward pass, to save memory.
      patch: side of a token's square of pixels.
      width: channels of a token.
      depth: blocks.
      heads: of attention; they divide `width`.
      hidden: units between the two layers of an MLP.
    """

    frames: int = 8
    size: int = 224
    dropout: float = 0.0
    drop_path: float = 0.0
    remat: bool = False
    patch: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int = 3072

    def __post_init__(self) -> None:
        layers.check_rates(self)
        transformer.check_heads(self)


PRESETS: Mapping[str, TimeSformerConfig] = {"timesformer_b": TimeSformerConfig()}
EPSILON = 1e-6


class DividedBlock(nn.Module):
    """Attention along time, attention within each frame, and an MLP.

    Takes and returns the class token [b 1 c] and the others [b t p c].
    """

    heads: int
    hidden: int
    dropout: float
    drop_path: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, class_token: Array, x: Array, train: bool) -> tuple[Array, Array]:
        """The block's result; `train` switches dropout and stochastic depth on."""
        b, t, p, c = x.shape

        def attend(x: Array, name: str) -> Array:
            return transformer.SelfAttention(
                self.heads, fused=True, dropout=self.dropout, dtype=self.dtype, name=name
            )(x, train)

        y = transformer.norm(EPSILON, self.dtype, "norm_time")(x)
        y = attend(y.swapaxes(1, 2).reshape(b * p, t, c), "attention_time")
        y = transformer.dense(c, self.dtype, "mix_time")(y).reshape(b, p, t, c).swapaxes(1, 2)
        x = transformer.residual(x, y, self.drop_path, train)

        # The class token takes part in every frame, and what it becomes there is averaged.
        everywhere = jnp.broadcast_to(class_token[:, None], (b, t, 1, c))
        y = jnp.concatenate([everywhere, x], axis=2).reshape(b * t, 1 + p, c)
        y = transformer.norm(EPSILON, self.dtype, "norm_space")(y)
        y = attend(y, "attention_space").reshape(b, t, 1 + p, c)
        of_class, of_places = y[:, :, 0].mean(axis=1, keepdims=True), y[:, :, 1:]
        y = jnp.concatenate([of_class, of_places.reshape(b, t * p, c)], axis=1)
        z = jnp.concatenate([class_token, x.reshape(b, t * p, c)], axis=1)
        z = transformer.residual(z, y, self.drop_path, train)

        y = transformer.norm(EPSILON, self.dtype, "norm_mlp")(z)
        mlp = transformer.MLP(
            self.hidden, c, "exact", self.dropout, drop_hidden=True, dtype=self.dtype, name="mlp"
        )
        z = transformer.residual(z, mlp(y, train), self.drop_path, train)
        return z[:, :1], z[:, 1:].reshape(b, t, p, c)


class TimeSformer(nn.Module):
    """The network: clips [b t h w c], normalised float32, to logits [b num_classes] in float32.

    With `num_classes=0` it returns the clip's features [b width]. Computes in `dtype`; the
    parameters and the logits are float32.
    """

    config: TimeSformerConfig
    num_classes: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, clips: Float[Array, "b t h w c"], train: bool = False
    ) -> Float[Array, "b n"]:
        """Logits, or features where there are no classes.

        `train` switches dropout and stochastic depth on. Raises ValueError for anything but float
        clips of five axes that hold a square of pixels.
        """
        config = self.config
        layers.check_clips(clips, size=config.patch)
        b, t, height, width, c = clips.shape
        rows, columns = height // config.patch, width // config.patch

        frames = clips.reshape(b * t, height, width, c)
        patch = (config.patch, config.patch)
        x = transformer.Patches(config.width, patch, self.dtype, name="patches")(frames)
        x = x.reshape(b, t, rows * columns, config.width)

        places = transformer.table(self, "positions", (1 + rows * columns, config.width))
        places = places.astype(self.dtype)
        x = x + _places(places[1:], rows, columns)
        token = self.param("class_token", transformer.INIT, (config.width,), jnp.float32)
        token = jnp.broadcast_to(token.astype(self.dtype) + places[0], (b, 1, config.width))
        times = transformer.table(self, "times", (t, config.width)).astype(self.dtype)
        drop = nn.Dropout(config.dropout, deterministic=not train)
        x = drop(x) + times[_nearest(len(times), t)][:, None]
        x, token = drop(x), drop(token)

        block = nn.remat(DividedBlock, static_argnums=(3,)) if config.remat else DividedBlock
        (rates,) = layers.drop_path_rates(config.drop_path, [config.depth])
        for number, rate in enumerate(rates):
            token, x = block(
                config.heads,
                config.hidden,
                config.dropout,
                rate,
                self.dtype,
                name=f"block{number}",
            )(token, x, train)
        x = transformer.norm(EPSILON, jnp.dtype(jnp.float32), "norm")(token[:, 0])
        return transformer.classify(x, self.num_classes, 0.0, train)


def _nearest(given: int, wanted: int) -> np.ndarray:
    """Which of `given` positions stand for each of `wanted`: PyTorch's interpolation "nearest"."""
    step = np.float32(given) / np.float32(wanted)
    return np.minimum(np.floor(np.arange(wanted, dtype=np.float32) * step), given - 1).astype(int)


def _places(places: Float[Array, "p c"], rows: int, columns: int) -> Float[Array, "n c"]:
    """The positions of a grid of rows x columns places, resized where there are more or fewer."""
    count = len(places)
    if count == rows * columns:
        return places
    side = math.isqrt(count)
    if side * side != count:
        raise ValueError(
            f"clips have {rows}x{columns} places, and the weights have positions for {count}, "
            "which are no square and cannot be resized; give clips of the size that the weights "
            "were made for"
        )
    index = _nearest(side, rows)[:, None] * side + _nearest(side, columns)
    return places[index.reshape(-1)]
