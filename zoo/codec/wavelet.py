"""The wavelet from which the synthesis network starts: CDF 9/7, both filters of unit norm.

Planes are [n h w]. A pyramid is (low, details): low [n h w] at 1/2**levels of the size, details a
tuple of [n 3 h w] from coarse to fine, with bands (high along w, high along h, high along both).
Signals are extended by mirroring at their first and last sample, which needs three at every level.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from kernels.materialize import materialized

# Lifting steps of Daubechies and Sweldens, "Factoring wavelet transforms into lifting steps" (1998)
_STEPS = (-1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971)
REACH = 2  # Samples on each side that a synthesis filter takes from a band.
TAPS = 2 * REACH + 1

Pyramid = tuple[jax.Array, tuple[jax.Array, ...]]


def _lift(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Low and high band along the last axis, before they are scaled."""
    low, high = x[..., 0::2], x[..., 1::2]
    for step, factor in enumerate(_STEPS):
        if step % 2 == 0:
            high = high + factor * (low + np.concatenate([low[..., 1:], low[..., -1:]], -1))
        else:
            low = low + factor * (high + np.concatenate([high[..., :1], high[..., :-1]], -1))
    return low, high


@functools.cache
def analysis_matrix(size: int) -> np.ndarray:
    """[size size]: the upper half gives the low band of a signal, the lower half the high one."""
    low, high = _lift(np.eye(size))
    scale_low, scale_high = _scales()
    return np.concatenate([low.T * scale_low, high.T * scale_high]).astype(np.float32)


@functools.cache
def _scales() -> tuple[float, float]:
    """Factors that give the synthesis filters unit norm."""
    low, high = _lift(np.eye(32))
    columns = np.linalg.inv(np.concatenate([low.T, high.T]))
    return float(np.linalg.norm(columns[:, 8])), float(np.linalg.norm(columns[:, 24]))


@functools.cache
def synthesis_kernel() -> np.ndarray:
    """[TAPS 2 2]: tap, band (low, high), and phase (even, odd sample)."""
    columns = np.linalg.inv(analysis_matrix(32).astype(np.float64))
    kernel = np.zeros((TAPS, 2, 2), np.float32)
    for tap in range(TAPS):
        for band in range(2):
            source = 16 * band + 8 + tap - REACH
            kernel[tap, band] = columns[16:18, source]
    return kernel


def analyse(planes: jax.Array, levels: int) -> Pyramid:
    """The pyramid of planes [n h w]; sizes are multiples of 2**levels."""
    details = []
    low = planes
    for _ in range(levels):
        _, h, w = low.shape
        rows, columns = jnp.asarray(analysis_matrix(h)), jnp.asarray(analysis_matrix(w))
        both = jnp.einsum("yh,nhw,xw->nyx", rows, low, columns, precision="highest")
        low, right = both[:, : h // 2, : w // 2], both[:, : h // 2, w // 2 :]
        details.append(
            jnp.stack([right, both[:, h // 2 :, : w // 2], both[:, h // 2 :, w // 2 :]], 1)
        )
    return low, tuple(reversed(details))


def merge(low: jax.Array, high: jax.Array, kernel: jax.Array, axis: int) -> jax.Array:
    """One axis of the synthesis: two bands become one signal of twice the length.

    kernel: as `synthesis_kernel`.
    """
    size = low.shape[axis]

    def take(x: jax.Array, *indices: int) -> jax.Array:
        return jnp.take(x, np.array(indices), axis=axis)

    # Kept in memory: fused into all its uses, each level's sums would be written out many times.
    low = materialized(jnp.concatenate([take(low, 2, 1), low, take(low, size - 1, size - 2)], axis))
    high = materialized(
        jnp.concatenate([take(high, 1, 0), high, take(high, size - 2, size - 3)], axis)
    )
    phases = []
    for phase in range(2):
        total = 0.0
        for tap in range(TAPS):
            part = [slice(None)] * low.ndim
            part[axis] = slice(tap, tap + size)
            total += kernel[tap, 0, phase] * low[tuple(part)]
            total += kernel[tap, 1, phase] * high[tuple(part)]
        phases.append(total)
    shape = list(phases[0].shape)
    shape[axis] *= 2
    return materialized(jnp.stack(phases, axis + 1).reshape(shape))
