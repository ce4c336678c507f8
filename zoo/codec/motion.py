"""Motion-compensated prediction from two decoded frames, and the search for the motion.

A field is int32 [n h/8 w/8 2]: for every block of 8x8 luma samples how far its prediction lies down
and to the right in the reference, in quarters of a sample. Modes, int32 [n h/16 w/16], say which
reference predicts 16x16 samples: 0 the first, 1 the second, 2 the mean of both. Samples outside
a picture are those of its border. Luma is interpolated with the 8 taps of HEVC (Sullivan
et al. 2012), chroma with its 4 taps, at quarters of a chroma sample.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from zoo.codec.network import Planes

BLOCK = 8
LARGE = 16
FIRST, SECOND, BOTH = 0, 1, 2
UNITS = 4  # Of a field, in a luma sample.
MAX_MOTION = 64 * UNITS

_LUMA = np.array(
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
_COARSE = 4  # The first search is on pictures smaller by this, ...
_RANGE = 10  # ... this far in each direction.
# Estimated bits of a motion vector by its difference from its neighbours.
_BITS_BASE, _BITS_LOG = 1.0, 1.4


class Motion(NamedTuple):
    """How n frames are predicted: fields for the first and for the second reference, and modes."""

    first: jax.Array
    second: jax.Array
    modes: jax.Array


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


def _fetch(phases: jax.Array, field: jax.Array, block: int) -> jax.Array:
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
    y = _fetch(interpolated(reference.y, _LUMA), field, BLOCK)
    n, _, h, w = reference.uv.shape
    chroma = interpolated(reference.uv.reshape(2 * n, h, w), _CHROMA)
    halved = jnp.repeat((field + (field > 0)) >> 1, 2, 0)
    return Planes(y, _fetch(chroma, halved, BLOCK // 2).reshape(n, 2, h, w))


def predict(first: Planes, second: Planes, motion: Motion) -> Planes:
    """The prediction of n frames from their first and second references."""
    one, two = _one(first, motion.first), _one(second, motion.second)
    weight = jnp.array([1.0, 0.0, 0.5], jnp.float32)[motion.modes]
    y = jnp.repeat(jnp.repeat(weight, LARGE, 1), LARGE, 2)
    uv = jnp.repeat(jnp.repeat(weight, LARGE // 2, 1), LARGE // 2, 2)[:, None]
    return Planes(y * one.y + (1 - y) * two.y, uv * one.uv + (1 - uv) * two.uv)


@jax.jit
def search(target: jax.Array, first: jax.Array, second: jax.Array, price: jax.Array) -> Motion:
    """Motion for luma [n h w] from two references by block matching.

    price: levels of absolute difference that one bit is worth.
    """
    frames = target, first, second
    return lax.map(lambda frame: _search_one(frame[0], frame[1], frame[2], price), frames)


def _search_one(target: jax.Array, first: jax.Array, second: jax.Array, price: jax.Array) -> Motion:
    phases = [interpolated(x[None], _LUMA) for x in (first, second)]
    one = _match(target, first, phases[0], price)
    two = _match(target, second, phases[1], price)
    # Each again, for what the other leaves when the mean of both predicts.
    rest = 2 * target - _blocks_fetched(phases[1], two)
    both_one = _refined(rest, phases[0], one, price * 2, (UNITS, 2, 1))
    rest = 2 * target - _blocks_fetched(phases[0], both_one)
    both_two = _refined(rest, phases[1], two, price * 2, (UNITS, 2, 1))
    mean = (_blocks_fetched(phases[0], both_one) + _blocks_fetched(phases[1], both_two)) / 2
    costs = jnp.stack(
        [
            _sums(jnp.abs(target - _blocks_fetched(phases[0], one)), LARGE) + price * _bits(one),
            _sums(jnp.abs(target - _blocks_fetched(phases[1], two)), LARGE) + price * _bits(two),
            _sums(jnp.abs(target - mean), LARGE) + price * (_bits(both_one) + _bits(both_two)),
        ]
    )
    modes = jnp.argmin(costs, 0).astype(jnp.int32)
    both = (modes == BOTH)[..., None]
    fields = []
    for alone, together, phase, other, theirs in (
        (one, both_one, phases[0], phases[1], both_two),
        (two, both_two, phases[1], phases[0], both_one),
    ):
        large = jnp.where(both, together, alone)
        rest = 2 * target - _blocks_fetched(other, theirs)
        wanted = jnp.where(_spread(both[..., 0], LARGE), rest, target)
        fields.append(_split(wanted, phase, large, price * jnp.where(both[..., 0], 2.0, 1.0)))
    return Motion(fields[0], fields[1], modes)


def _spread(blocks: jax.Array, size: int) -> jax.Array:
    return jnp.repeat(jnp.repeat(blocks, size, 0), size, 1)


def _sums(x: jax.Array, size: int) -> jax.Array:
    h, w = x.shape
    return x.reshape(h // size, size, w // size, size).sum((1, 3))


def _blocks_fetched(phases: jax.Array, field: jax.Array, size: int = LARGE) -> jax.Array:
    return _fetch(phases, field[None], size)[0]


def _around(field: jax.Array) -> jax.Array:
    """The mean of the four neighbours of each block."""
    padded = jnp.pad(field, ((1, 1), (1, 1), (0, 0)), mode="edge")
    total = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    return total // 4


def _bits(field: jax.Array, expected: jax.Array | None = None) -> jax.Array:
    expected = _around(field) if expected is None else expected
    away = jnp.abs(field - expected).astype(jnp.float32)
    return jnp.sum(_BITS_BASE * (away > 0) + _BITS_LOG * jnp.log2(1 + away), -1)


def _cost(
    target: jax.Array, phases: jax.Array, field: jax.Array, expected: jax.Array, price: jax.Array
) -> jax.Array:
    difference = jnp.abs(target - _blocks_fetched(phases, field))
    return _sums(difference, LARGE) + price * _bits(field, expected)


def _best(
    target: jax.Array,
    phases: jax.Array,
    field: jax.Array,
    candidates: jax.Array,
    price: jax.Array,
) -> jax.Array:
    """The best of `field` and of candidates [k h w 2], block by block."""
    expected = _around(field)

    def consider(state: tuple, candidate: jax.Array) -> tuple:
        field, cost = state
        candidate = jnp.clip(candidate, -MAX_MOTION, MAX_MOTION)
        other = _cost(target, phases, candidate, expected, price)
        better = other < cost
        return (jnp.where(better[..., None], candidate, field), jnp.minimum(cost, other)), None

    start = field, _cost(target, phases, field, expected, price)
    return lax.scan(consider, start, candidates)[0][0]


_EIGHT = np.array([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x], np.int32)


def _refined(
    target: jax.Array, phases: jax.Array, field: jax.Array, price: jax.Array, steps: tuple[int, ...]
) -> jax.Array:
    for step in steps:
        candidates = field + step * jnp.asarray(_EIGHT)[:, None, None]
        field = _best(target, phases, field, candidates, price)
    return field


def _neighbours(field: jax.Array) -> jax.Array:
    padded = jnp.pad(field, ((1, 1), (1, 1), (0, 0)), mode="edge")
    return jnp.stack([padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]])


def _match(
    target: jax.Array, reference: jax.Array, phases: jax.Array, price: jax.Array
) -> jax.Array:
    """A field of LARGE blocks."""
    h, w = target.shape
    field = _coarse(target, reference, price)
    zero = jnp.zeros((1, h // LARGE, w // LARGE, 2), jnp.int32)
    field = _best(target, phases, field, jnp.concatenate([zero, _neighbours(field)]), price)
    field = _refined(target, phases, field, price, (2 * UNITS, UNITS))
    field = _best(target, phases, field, _neighbours(field), price)
    field = _refined(target, phases, field, price, (UNITS, 2, 1))
    field = _best(target, phases, field, _neighbours(field), price)
    return _refined(target, phases, field, price, (1,))


def _coarse(target: jax.Array, reference: jax.Array, price: jax.Array) -> jax.Array:
    """Full search on smaller pictures."""
    small, source = (_sums(x, _COARSE) / _COARSE**2 for x in (target, reference))
    h, w = small.shape
    source = jnp.pad(source, _RANGE, mode="edge")
    size = LARGE // _COARSE
    axis = np.arange(-_RANGE, _RANGE + 1)
    moves = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    moves = moves[np.argsort(np.abs(moves).sum(1), kind="stable")]
    # A share of the neighbours' differences keeps the first guess from following noise.
    field = jnp.zeros((h // size, w // size, 2), jnp.int32)
    best = jnp.full((h // size, w // size), jnp.inf)

    def consider(state: tuple, move: jax.Array) -> tuple:
        field, best = state
        moved = lax.dynamic_slice(source, (_RANGE + move[0], _RANGE + move[1]), (h, w))
        cost = _sums(jnp.abs(small - moved), size) * _COARSE**2
        padded = jnp.pad(cost, 1, mode="edge")
        cost = cost + 0.125 * (
            padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
        )
        away = jnp.abs(move).sum().astype(jnp.float32)
        cost = cost + price * jnp.log2(1 + UNITS * _COARSE * away)
        better = cost < best
        chosen = jnp.where(better[..., None], move * _COARSE * UNITS, field)
        return (chosen, jnp.minimum(best, cost)), None

    return lax.scan(consider, (field, best), jnp.asarray(moves, jnp.int32))[0][0]


def _split(target: jax.Array, phases: jax.Array, large: jax.Array, price: jax.Array) -> jax.Array:
    """A field of BLOCKs, of which those of one LARGE block differ only where it pays."""
    whole = _spread(large, 2)
    small_price = _spread(price, 2)

    def cost(field: jax.Array) -> jax.Array:
        difference = jnp.abs(target - _blocks_fetched(phases, field, BLOCK))
        return _sums(difference, BLOCK) + small_price * _bits(field, whole)

    def consider(state: tuple, candidate: jax.Array) -> tuple:
        field, best = state
        candidate = jnp.clip(candidate, -MAX_MOTION, MAX_MOTION)
        other = cost(candidate)
        better = other < best
        return (jnp.where(better[..., None], candidate, field), jnp.minimum(best, other)), None

    start = cost(whole)
    around = jnp.stack([_spread(x, 2) for x in _neighbours(large)])
    state, _ = lax.scan(consider, (whole, start), around)
    for step in (2 * UNITS, UNITS, 2, 1):
        candidates = state[0] + step * jnp.asarray(_EIGHT)[:, None, None]
        state, _ = lax.scan(consider, state, candidates)
    gain = _sums(start, 2) - _sums(state[1], 2)
    kept = _spread(gain > 4.0 * price, 2)[..., None]
    return jnp.where(kept, state[0], whole)


@jax.jit
def predicted(first: Planes, second: Planes, motion: Motion) -> Planes:
    """`predict`, compiled."""
    return predict(first, second, motion)
