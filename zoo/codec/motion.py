"""Motion-compensated prediction from two decoded frames.

Labels, int32 [n h/8 w/8 6], say of every block of 8x8 luma samples: a kind that only `fields`
needs, a mode, and how far its prediction lies down and to the right in the first and in the second
reference, in quarters of a sample. The mode says which reference predicts: 0 the first, 1 the
second, 2 the mean of both. Samples outside a picture are those of its border. Luma is interpolated
with the 8 taps of HEVC (Sullivan et al. 2012), chroma with its 4 taps, at quarters of a chroma
sample.
"""

import jax
import jax.numpy as jnp
import numpy as np

from zoo.codec.network import Planes

BLOCK = 8
FIRST, SECOND, BOTH = 0, 1, 2
UNITS = 4  # Of motion, in a luma sample.
MAX_MOTION = 64 * UNITS

LUMA = np.array(
    [
        [0, 0, 0, 64, 0, 0, 0, 0],
        [-1, 4, -10, 58, 17, -5, 1, 0],
        [-1, 4, -11, 40, 40, -11, 4, -1],
        [0, 1, -5, 17, 58, -10, 4, -1],
    ],
    np.float32,
)
_CHROMA = np.array(
    [[0, 64, 0, 0], [-4, 54, 16, -2], [-4, 36, 36, -4], [-2, 16, 54, -4]], np.float32
)


def interpolated(planes: jax.Array, taps: np.ndarray) -> jax.Array:
    """Planes [n h w] at all quarter positions: [n 16 h w], position 4 * down + right."""
    count = taps.shape[1]
    before = count // 2 - 1
    h, w = planes.shape[1:]
    pad = ((0, 0), (before, count - 1 - before), (before, count - 1 - before))
    padded = jnp.pad(planes, pad, mode="edge")
    wide = [_filtered([padded[:, :, k : k + w] for k in range(count)], t) for t in taps]
    both = [_filtered([x[:, k : k + h] for k in range(count)], t) for t in taps for x in wide]
    return jnp.stack(both, 1)


def _filtered(shifted: list[jax.Array], taps: np.ndarray) -> jax.Array:
    """The sum of shifted planes; taps are in 1/64."""
    total = jnp.zeros_like(shifted[0])
    for plane, tap in zip(shifted, taps.tolist(), strict=True):
        if tap:
            total += tap / 64 * plane
    return total


def fetch(phases: jax.Array, field: jax.Array, block: int) -> jax.Array:
    """Samples [n h w] that a field (in quarters of these samples) of `block`s points to."""
    n, _, h, w = phases.shape
    spread = jnp.repeat(jnp.repeat(field, block, 1), block, 2)
    down, right = spread[..., 0], spread[..., 1]
    y = jnp.clip(jnp.arange(h)[:, None] + (down >> 2), 0, h - 1)
    x = jnp.clip(jnp.arange(w) + (right >> 2), 0, w - 1)
    place = (((down & 3) * 4 + (right & 3)) * h + y) * w + x
    flat = phases.reshape(n, -1)
    return jax.vmap(lambda source, at: source[at])(flat, place.reshape(n, -1)).reshape(n, h, w)


def _one(reference: Planes, field: jax.Array) -> Planes:
    y = fetch(interpolated(reference.y, LUMA), field, BLOCK)
    n, _, h, w = reference.uv.shape
    chroma = interpolated(reference.uv.reshape(2 * n, h, w), _CHROMA)
    halved = jnp.repeat((field + (field > 0)) >> 1, 2, 0)
    return Planes(y, fetch(chroma, halved, BLOCK // 2).reshape(n, 2, h, w))


def predict(first: Planes, second: Planes, labels: jax.Array) -> Planes:
    """The prediction of n frames from their first and second references."""
    one, two = _one(first, labels[..., 2:4]), _one(second, labels[..., 4:])
    weight = jnp.array([1.0, 0.0, 0.5], jnp.float32)[labels[..., 1]]
    y = jnp.repeat(jnp.repeat(weight, BLOCK, 1), BLOCK, 2)
    uv = jnp.repeat(jnp.repeat(weight, BLOCK // 2, 1), BLOCK // 2, 2)[:, None]
    return Planes(y * one.y + (1 - y) * two.y, uv * one.uv + (1 - uv) * two.uv)


@jax.jit
def predicted(first: Planes, second: Planes, labels: jax.Array) -> Planes:
    """`predict`, compiled."""
    return predict(first, second, labels)
