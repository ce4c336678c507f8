"""TransNet V2: finds the cuts of a video, every frame of it at once.

`transnetv2` of Souček and Lokoč 2020, "TransNet V2: An effective deep network architecture for fast
shot transition detection", as in github.com/soCzech/TransNetV2 (inference-pytorch). Convolutions at
four dilations in time see what changes around a frame; beside them the frame's features and its
colour histogram are compared with those of the 50 frames before and after it.

It takes pixels and not normalised clips: uint8 frames of 27x48, 100 at a time in the original,
which keeps the logits of the 50 in the middle. A sigmoid turns a logit into a probability.
"""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from zoo import layers

DILATIONS = (1, 2, 4, 8)
BINS = 8  # of each colour
REACH = 50  # frames before and after that a frame is compared with

# PyTorch's default, which the original keeps.
_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


@dataclasses.dataclass(frozen=True)
class TransNetV2Config:
    """What the network is made of.

    Attributes:
      frames: frames of a piece of video; any number works.
      size: height and width of a frame; the first dense layer depends on it.
      dropout: share of the hidden units dropped in training.
      drop_path: share of the second halves of blocks dropped in training, from the second block on.
      remat: recompute blocks in the backward pass, to save memory.
      widths: channels of each block's convolutions, for each of the four dilations.
      hidden: units of the dense layer before the logits.
      similarity: units of the projection before and of the dense layer after comparing frames.
    """

    frames: int = 100
    size: tuple[int, int] = (27, 48)
    dropout: float = 0.5
    drop_path: float = 0.0
    remat: bool = False
    widths: tuple[int, ...] = (16, 32, 64)
    hidden: int = 1024
    similarity: int = 128

    def __post_init__(self) -> None:
        layers.check_rates(self)
        if min(self.size) >> len(self.widths) < 1:
            raise ValueError(
                f"TransNetV2Config.size is {self.size}, which {len(self.widths)} blocks halve to "
                "nothing; give larger frames or fewer widths"
            )


PRESETS: Mapping[str, TransNetV2Config] = {"transnetv2": TransNetV2Config()}


class DilatedConvolutions(nn.Module):
    """3x3 over space followed by 3 over time, at four dilations side by side, and normalisation."""

    width: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"], train: bool) -> Float[Array, "b t h w n"]:
        """Four times `width` channels; `train` as of `BatchNorm`."""
        found = []
        for dilation in DILATIONS:
            y = x
            for name, features, window, apart in (
                ("spatial", 2 * self.width, (1, 3, 3), 1),
                ("temporal", self.width, (3, 1, 1), dilation),
            ):
                y = layers.Conv(
                    features,
                    window,
                    padding=[(size // 2 * apart, size // 2 * apart) for size in window],
                    dilation=(apart, 1, 1),
                    use_bias=False,
                    dtype=self.dtype,
                    kernel_init=_INIT,
                    name=f"{name}_{dilation}",
                )(y)
            found.append(y)
        together = jnp.concatenate(found, axis=-1)
        return layers.BatchNorm(1e-3, dtype=self.dtype, name="norm")(together, train)


class Block(nn.Module):
    """Two layers of `DilatedConvolutions`, the second on a way around it, and a 2x2 mean."""

    width: int
    drop_path: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"], train: bool) -> Float[Array, "b t u v n"]:
        """Half the height and width, without the odd row and column."""
        around = nn.relu(DilatedConvolutions(self.width, self.dtype, name="first")(x, train))
        y = nn.relu(DilatedConvolutions(self.width, self.dtype, name="second")(around, train))
        return nn.avg_pool(
            around + layers.drop_path(self.drop_path, train)(y), (1, 2, 2), (1, 2, 2)
        )


class TransNetV2(nn.Module):
    """The network: frames [b t h w 3], uint8, to logits [b t num_classes] in float32.

    Logit 0 is that the frame is the one in the middle of a transition, logit 1 that it belongs to
    one. With `num_classes=1` there is only the first; with 0 it returns features [b t hidden].
    Convolutions compute in `dtype`, all else in float32, as the parameters are.
    """

    config: TransNetV2Config
    num_classes: int
    dtype: jnp.dtype = jnp.float32

    # What `zoo.cost` and `python -m zoo bench` make clips of.
    input_dtype = jnp.uint8

    @nn.compact
    def __call__(
        self, clips: UInt8[Array, "b t h w c"], train: bool = False
    ) -> Float[Array, "b t n"]:
        """Logits of every frame, or its features where there are no classes.

        `train` switches batch statistics, dropout and stochastic depth on. Raises ValueError for
        anything but uint8 RGB frames of the config's size, and for more than two classes.
        """
        config = self.config
        height, width = config.size
        if clips.ndim != 5 or clips.dtype != jnp.uint8 or clips.shape[2:] != (height, width, 3):
            raise ValueError(
                f"clips are {clips.dtype} of shape {clips.shape}; TransNet V2 takes RGB pixels, "
                f"uint8 [b t {height} {width} 3], scaled to that size and not normalised"
            )
        if self.num_classes not in (0, 1, 2):
            raise ValueError(
                f"num_classes is {self.num_classes}; TransNet V2 has 2 logits for a frame: give 2, "
                "1 for the first alone, or 0 for features"
            )
        b, t = clips.shape[:2]
        x = clips.astype(self.dtype) / 255
        block = nn.remat(Block, static_argnums=(2,)) if config.remat else Block
        means = []
        for number, channels in enumerate(config.widths):
            rate = config.drop_path if number else 0.0
            x = block(channels, rate, self.dtype, name=f"block{number}")(x, train)
            means.append(x.astype(jnp.float32).mean((2, 3)))

        def dense(units: int, name: str) -> nn.Dense:
            return nn.Dense(units, kernel_init=_INIT, name=name)

        units = config.similarity
        frames = dense(units, "projection")(jnp.concatenate(means, axis=-1))
        x = jnp.concatenate(
            [
                nn.relu(dense(units, "colors")(similarities(histograms(clips)))),
                nn.relu(dense(units, "similarity")(similarities(frames))),
                x.astype(jnp.float32).reshape(b, t, -1),
            ],
            axis=-1,
        )
        x = nn.relu(dense(config.hidden, "hidden")(x))
        if self.num_classes == 0:
            return x
        x = nn.Dropout(config.dropout, deterministic=not train)(x)
        heads = ("head", "head_all")[: self.num_classes]
        return jnp.concatenate([dense(1, name)(x) for name in heads], axis=-1)


def histograms(clips: UInt8[Array, "b t h w c"]) -> Float[Array, "b t n"]:
    """How many pixels of each frame have each of 8x8x8 colours."""
    b, t, h, w, _ = clips.shape
    level = clips.reshape(b * t, h * w, 3).astype(jnp.int32) // (256 // BINS)
    color = (level[..., 0] * BINS + level[..., 1]) * BINS + level[..., 2]
    frame = jnp.arange(b * t)[:, None]
    counts = jnp.zeros((b * t, BINS**3), jnp.float32).at[frame, color].add(1)
    return counts.reshape(b, t, -1)


def similarities(x: Float[Array, "b t c"]) -> Float[Array, "b t n"]:
    """The cosine between each frame and each of those up to 50 before and after it; 0 outside."""
    t = x.shape[1]
    length = jnp.linalg.norm(x, axis=-1, keepdims=True)
    x = x / jnp.maximum(length, 1e-12)
    cosines = jnp.einsum("bic,bjc->bij", x, x, precision="highest")
    padded = jnp.pad(cosines, ((0, 0), (0, 0), (REACH, REACH)))
    frame = jnp.arange(t)[:, None]
    return padded[:, frame, frame + jnp.arange(2 * REACH + 1)]
