"""The decoder's network: from latents and a prediction to pictures.

Latents are a pyramid of quantised coefficients of luma and of chroma. `Synthesis` turns them into a
residual by a bank of small filters, the wavelet's; `Refine`, two 3x3 convolutions at half
resolution, corrects the sum of residual and prediction. The weights of the second are fitted to the
video and are part of the file, quantised. They are offsets that start at zero: a network of zeros
changes nothing.
"""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import kernels
from zoo.codec import wavelet

LEVELS = 4  # Of luma; chroma, at half the size, has one less.
SIZE_MULTIPLE = 2**LEVELS
SMALLEST = 3 * SIZE_MULTIPLE
MIDDLE = 128.0  # What pictures without prediction are predicted as.


class Planes(NamedTuple):
    """Pictures: y [n h w], uv [n 2 h/2 w/2], in levels of 8 bits, sizes padded."""

    y: jax.Array
    uv: jax.Array


class Latents(NamedTuple):
    """Coefficients in units of the quantiser's step; uv has n and the two planes on one axis."""

    y: wavelet.Pyramid
    uv: wavelet.Pyramid


@dataclasses.dataclass(frozen=True)
class Shape:
    """Height and width of pictures, without and with the padding that the pyramid needs."""

    height: int
    width: int

    @property
    def padded(self) -> tuple[int, int]:
        tall, wide = (-(-n // SIZE_MULTIPLE) * SIZE_MULTIPLE for n in (self.height, self.width))
        return max(tall, SMALLEST), max(wide, SMALLEST)


def analyse(residual: Planes) -> Latents:
    """The coefficients of which a network of zeros makes `residual`."""
    n, _, h, w = residual.uv.shape
    chroma = wavelet.analyse(residual.uv.reshape(2 * n, h, w), LEVELS - 1)
    return Latents(wavelet.analyse(residual.y, LEVELS), chroma)


class Synthesis(nn.Module):
    """Latents to a residual; has no weights of its own."""

    @nn.compact
    def __call__(self, latents: Latents, step: jax.Array) -> Planes:
        """step: what a coefficient of 1 stands for, in levels."""
        y, uv = _synthesise(latents.y), _synthesise(latents.uv)
        return Planes(y * step, uv.reshape(-1, 2, *uv.shape[1:]) * step)


def _synthesise(pyramid: wavelet.Pyramid) -> jax.Array:
    low, details = pyramid
    kernel = jnp.asarray(wavelet.synthesis_kernel())
    for bands in details:
        lows, highs = jnp.stack([low, bands[:, 1]], 1), bands[:, 0::2]
        rows = wavelet.merge(lows, highs, kernel, 3)
        low = wavelet.merge(rows[:, 0], rows[:, 1], kernel, 1)
    return low


class Refine(nn.Module):
    """A correction from pictures and their prediction."""

    channels: int = 8

    @nn.compact
    def __call__(self, pictures: Planes, prediction: Planes) -> Planes:
        x = jnp.concatenate([_fold(pictures), _fold(prediction) - _fold(pictures)], -1) / 32.0
        shape = (3, 3, x.shape[-1], self.channels)
        first = self.param("first", nn.initializers.zeros, shape) + _start(shape)
        last = self.param("last", nn.initializers.zeros, (3, 3, self.channels, 6))
        hidden = kernels.conv(x, first, padding="SAME")
        # Leaky, so that weights which start at zero have gradients.
        hidden = jnp.where(hidden > 0, hidden, 0.2 * hidden)
        return _unfold(kernels.conv(hidden, last, padding="SAME") * 32.0)


def _start(shape: tuple[int, ...]) -> jax.Array:
    """Fixed weights that look random, by integer arithmetic: the same in every version."""
    count = int(np.prod(shape))
    mixed = (np.arange(1, count + 1, dtype=np.uint64) * 2654435761) % 2**32
    spread = (mixed.astype(np.float64) / 2**31 - 1) * 0.3
    return jnp.asarray(spread.reshape(shape), jnp.float32)


def _fold(planes: Planes) -> jax.Array:
    """[n h/2 w/2 6]: the four luma samples and the chroma of each place."""
    n, h, w = planes.y.shape
    y = planes.y.reshape(n, h // 2, 2, w // 2, 2).transpose(0, 1, 3, 2, 4)
    y = y.reshape(n, h // 2, w // 2, 4)
    return jnp.concatenate([y, planes.uv.transpose(0, 2, 3, 1)], -1) - MIDDLE


def _unfold(x: jax.Array) -> Planes:
    n, h, w, _ = x.shape
    y = x[..., :4].reshape(n, h, w, 2, 2).transpose(0, 1, 3, 2, 4).reshape(n, 2 * h, 2 * w)
    return Planes(y, x[..., 4:].transpose(0, 3, 1, 2))


def prediction_without(count: int, padded: tuple[int, int]) -> Planes:
    """What frames without references are predicted as."""
    h, w = padded
    y = jnp.full((count, h, w), MIDDLE, jnp.float32)
    return Planes(y, jnp.full((count, 2, h // 2, w // 2), MIDDLE, jnp.float32))


# Quantisation steps of the weights.
WEIGHT_STEPS = {"first": 1 / 32, "last": 1 / 64}


class Weights(NamedTuple):
    """Offsets of the second network's weights."""

    first: jax.Array  # [3 3 12 channels]
    last: jax.Array  # [3 3 channels 6]


def no_weights() -> Weights:
    """Zeros: nothing is corrected."""
    channels = Refine().channels
    return Weights(
        jnp.zeros((3, 3, 12, channels)),
        jnp.zeros((3, 3, channels, 6)),
    )


def reconstruct(
    latents: Latents, prediction: Planes, weights: Weights, step: jax.Array, *, refine: bool
) -> Planes:
    """Pictures in 0..255; `refine` False leaves out the second network."""
    residual = Synthesis().apply({}, latents, step)
    pictures = jax.tree.map(jnp.add, prediction, residual)
    if refine:
        return refined(pictures, prediction, weights)
    return jax.tree.map(lambda x: jnp.clip(x, 0.0, 255.0), pictures)


def refined(pictures: Planes, prediction: Planes, weights: Weights) -> Planes:
    """Pictures after the second network, in 0..255."""
    parameters = {"params": {"first": weights.first, "last": weights.last}}
    correction = Refine().apply(parameters, pictures, prediction)
    return jax.tree.map(lambda x, c: jnp.clip(x + c, 0.0, 255.0), pictures, correction)
