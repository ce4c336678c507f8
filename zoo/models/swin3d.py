"""Video Swin: attention within windows of a clip, shifted by half a window in every second block.

`swin3d_t`, `swin3d_s` and `swin3d_b` of torchvision (torchvision/models/video/swin_transformer.py),
after Liu et al. 2021, "Video Swin Transformer". They take any number of frames and any crop: clips
are padded to whole windows, and a window is no larger than the clip.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import kernels
from zoo import layers, transformer

Size = tuple[int, int, int]
EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class Swin3DConfig:
    """What a network of this family is made of.

    Attributes:
      frames: frames of the clip that it is meant for; any number works.
      size: side of the square crop that it is meant for; any works.
      dropout: share of the values dropped after patches, attention and MLP layers in training.
      drop_path: share of the last block's residuals dropped in training, less in earlier blocks.
      remat: recompute blocks in the backward pass, to save memory.
      patch: frames, rows and columns of a token's block of pixels.
      window: frames, rows and columns of tokens that see each other.
      width: channels of the first stage; each later stage has twice as many.
      depths: blocks of each stage.
      heads: of the first stage's attention; each later stage has twice as many.
    """

    frames: int = 32
    size: int = 224
    dropout: float = 0.0
    drop_path: float = 0.1
    remat: bool = False
    patch: Size = (2, 4, 4)
    window: Size = (8, 7, 7)
    width: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: int = 3

    def __post_init__(self) -> None:
        layers.check_rates(self)
        transformer.check_heads(self)


PRESETS: Mapping[str, Swin3DConfig] = {
    "swin3d_t": Swin3DConfig(),
    "swin3d_s": Swin3DConfig(depths=(2, 2, 18, 2)),
    "swin3d_b": Swin3DConfig(depths=(2, 2, 18, 2), width=128, heads=4),
}


class WindowAttention(nn.Module):
    """Attention within windows of [b t h w c], with a learnt bias for each offset of two tokens.

    Submodules of `transformer.SelfAttention`, and bias_table [offsets, heads].
    """

    heads: int
    window: Size
    shifted: bool
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """The same shape; `train` switches dropout on."""
        b, *size, c = x.shape
        # A window is no larger than the clip, and one that spans the clip need not move.
        spans = [n <= w for n, w in zip(size, self.window, strict=True)]
        window = tuple(n if s else w for n, w, s in zip(size, self.window, spans, strict=True))
        shift = [
            w // 2 if self.shifted and not s else 0 for w, s in zip(window, spans, strict=True)
        ]
        counts = [-(-n // w) for n, w in zip(size, window, strict=True)]
        padded = [n * w for n, w in zip(counts, window, strict=True)]

        x = jnp.pad(x, [(0, 0), *((0, p - n) for p, n in zip(padded, size, strict=True)), (0, 0)])
        x = jnp.roll(x, [-s for s in shift], (1, 2, 3)) if any(shift) else x
        pairs = [n for pair in zip(counts, window, strict=True) for n in pair]
        x = x.reshape(b, *pairs, c).transpose(0, 1, 3, 5, 2, 4, 6, 7)
        tokens = math.prod(window)
        x = x.reshape(-1, tokens, c)

        offsets = math.prod(2 * w - 1 for w in self.window)
        table = self.param("bias_table", transformer.INIT, (offsets, self.heads), jnp.float32)
        # For a smaller window the original takes the first rows of the whole window's offsets: true
        # offsets along the first axis that shrinks, and for the rest what its weights saw.
        index = relative_positions(self.window)[:tokens, :tokens]
        bias = table[index].transpose(2, 0, 1)
        segments = _segments(padded, window, shift) if any(shift) else None
        x = transformer.SelfAttention(
            self.heads, fused=True, dropout=self.dropout, dtype=self.dtype, name="attention"
        )(x, train, bias, segments)

        x = x.reshape(b, *counts, *window, c).transpose(0, 1, 4, 2, 5, 3, 6, 7)
        x = x.reshape(b, *padded, c)
        x = jnp.roll(x, shift, (1, 2, 3)) if any(shift) else x
        return x[:, : size[0], : size[1], : size[2]]


class SwinBlock(nn.Module):
    """Windowed attention and an MLP, each after a normalisation and beside a shortcut."""

    heads: int
    window: Size
    shifted: bool
    dropout: float
    drop_path: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[b t h w c], the same shape; `train` switches dropout and stochastic depth on."""
        c = x.shape[-1]
        y = transformer.norm(EPSILON, self.dtype, "norm1")(x)
        y = WindowAttention(
            self.heads, self.window, self.shifted, self.dropout, self.dtype, name="windows"
        )(y, train)
        x = transformer.residual(x, y, self.drop_path, train)
        y = transformer.norm(EPSILON, self.dtype, "norm2")(x)
        mlp = transformer.MLP(
            4 * c, c, "exact", self.dropout, drop_hidden=True, dtype=self.dtype, name="mlp"
        )
        return transformer.residual(x, mlp(y, train), self.drop_path, train)


class Merge(nn.Module):
    """Every 2x2 tokens of a frame become one of twice the channels."""

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[b t h w c] to [b t ceil(h/2) ceil(w/2) 2c]."""
        b, t, h, w, c = x.shape
        x = jnp.pad(x, ((0, 0), (0, 0), (0, h % 2), (0, w % 2), (0, 0)))
        x = x.reshape(b, t, -(-h // 2), 2, -(-w // 2), 2, c)
        x = x.transpose(0, 1, 2, 4, 5, 3, 6)  # column by column, as the original joins them
        x = x.reshape(*x.shape[:4], 4 * c)
        x = transformer.norm(EPSILON, self.dtype, "norm")(x)
        return transformer.dense(2 * c, self.dtype, "reduction", use_bias=False)(x)


class Swin3D(nn.Module):
    """The network: clips [b t h w c], normalised float32, to logits [b num_classes] in float32.

    With `num_classes=0` it returns the clip's features [b 8 * width]. Computes in `dtype`; the
    parameters and the logits are float32.
    """

    config: Swin3DConfig
    num_classes: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, clips: Float[Array, "b t h w c"], train: bool = False
    ) -> Float[Array, "b n"]:
        """Logits, or features where there are no classes.

        `train` switches dropout and stochastic depth on. Raises ValueError for anything but float
        clips of five axes.
        """
        config = self.config
        layers.check_clips(clips)
        missing = [-n % p for n, p in zip(clips.shape[1:4], config.patch, strict=True)]
        x = jnp.pad(clips, [(0, 0), *((0, n) for n in missing), (0, 0)])
        like_torch = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        x = transformer.Patches(config.width, config.patch, self.dtype, like_torch, name="patches")(
            x
        )
        x = transformer.norm(EPSILON, self.dtype, "patches_norm")(x)
        x = nn.Dropout(config.dropout, deterministic=not train)(x)

        block = nn.remat(SwinBlock, static_argnums=(2,)) if config.remat else SwinBlock
        rates = layers.drop_path_rates(config.drop_path, config.depths)
        for stage, stage_rates in enumerate(rates, start=1):
            heads = config.heads * 2 ** (stage - 1)
            if stage > 1:
                x = Merge(self.dtype, name=f"merge{stage}")(x)
            for number, rate in enumerate(stage_rates):
                x = block(
                    heads,
                    config.window,
                    number % 2 == 1,
                    config.dropout,
                    rate,
                    self.dtype,
                    name=f"stage{stage}_{number}",
                )(x, train)
        x = transformer.norm(EPSILON, self.dtype, "norm")(x)
        x = kernels.spatial_sum(x) / math.prod(x.shape[1:4])
        return transformer.classify(x, self.num_classes, 0.0, train)


@functools.cache
def relative_positions(window: Size) -> np.ndarray:
    """Which row of the bias table belongs to each two tokens of a window, [n, n] int64."""
    places = np.indices(window).reshape(3, -1)
    offsets = places[:, :, None] - places[:, None]
    index = np.zeros(offsets.shape[1:], np.int64)
    for offset, size in zip(offsets, window, strict=True):
        index = index * (2 * size - 1) + offset + size - 1
    return index


def _segments(padded: list[int], window: tuple[int, ...], shift: list[int]) -> Array:
    """[windows, tokens]: which part of the clip each token comes from after the shift.

    A shifted clip is rolled, so that the last windows along an axis hold tokens of both ends, which
    must not see each other.
    """
    ids = np.zeros((1, 1, 1), np.int32)
    counts = [p // w for p, w in zip(padded, window, strict=True)]
    for axis, (size, step) in enumerate(zip(padded, shift, strict=True)):
        wrapped = (np.arange(size) >= size - step).astype(np.int32) if step else np.zeros(size, int)
        shape = [-1 if a == axis else 1 for a in range(3)]
        ids = ids * 2 + wrapped.reshape(shape)
    pairs = itertools.chain.from_iterable(zip(counts, window, strict=True))
    ids = ids.reshape(*pairs).transpose(0, 2, 4, 1, 3, 5)
    return jnp.asarray(ids.reshape(math.prod(counts), -1), jnp.int32)
