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
_OVERLAP = 0.33  # How much the next block's label counts at an edge.

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


def _halves(labels: jax.Array, axis: int) -> jax.Array:
    """For each half of a block along an axis, 1 or 2, the labels of the next block on that side."""
    count = labels.shape[axis]
    halves = np.arange(2 * count)
    beside = np.clip(halves // 2 + 2 * (halves % 2) - 1, 0, count - 1)
    return jnp.repeat(jnp.take(labels, beside, axis), 2, 3 - axis)


def _window(block: int) -> np.ndarray:
    """Weights of a block's own prediction, and of those of the next blocks above or below and to
    the left or right: [3 block block].
    """
    places = (np.arange(block) + 0.5) / block
    near = _OVERLAP * np.square(2 * np.abs(places - 0.5))
    down, right = np.broadcast_arrays(near[:, None], near)
    return np.stack([1 - down - right, down, right]).astype(np.float32)


def _plane(
    first: jax.Array, second: jax.Array, labels: jax.Array, block: int, finer: int
) -> jax.Array:
    """Planes [m h w] from all phases of both references; motion is in quarters / finer."""

    def alone(labels: jax.Array, side: int) -> jax.Array:
        moves = labels[..., 2:]
        if finer == 2:
            moves = (moves + (moves > 0)) >> 1
        one, two = fetch(first, moves[..., :2], side), fetch(second, moves[..., 2:], side)
        weight = jnp.array([1.0, 0.0, 0.5], jnp.float32)[labels[..., 1]]
        weight = jnp.repeat(jnp.repeat(weight, side, 1), side, 2)
        return weight * one + (1 - weight) * two

    h, w = labels.shape[1:3]
    own, down, right = (jnp.tile(jnp.asarray(x), (h, w)) for x in _window(block))
    total = own * alone(labels, block)
    total += down * alone(_halves(labels, 1), block // 2)
    return total + right * alone(_halves(labels, 2), block // 2)


def predict(first: Planes, second: Planes, labels: jax.Array) -> Planes:
    """The prediction of n frames from their first and second references."""
    n, _, h, w = first.uv.shape
    y = _plane(interpolated(first.y, LUMA), interpolated(second.y, LUMA), labels, BLOCK, 1)
    one, two = (interpolated(x.uv.reshape(2 * n, h, w), _CHROMA) for x in (first, second))
    uv = _plane(one, two, jnp.repeat(labels, 2, 0), BLOCK // 2, 2)
    return Planes(y, uv.reshape(n, 2, h, w))


@jax.jit
def predicted(first: Planes, second: Planes, labels: jax.Array) -> Planes:
    """`predict`, compiled."""
    return predict(first, second, labels)
