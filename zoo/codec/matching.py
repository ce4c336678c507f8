"""Block matching: how blocks of 16x16 samples move, by sums of absolute differences."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from zoo.codec.motion import MAX_MOTION, UNITS, fetch

LARGE = 16
_COARSE = 4  # The first search is on pictures smaller by this, ...
_RANGE = 10  # ... this far in each direction.
# Estimated bits of a motion vector by its difference from its neighbours.
_BITS_BASE, _BITS_LOG = 1.0, 1.4


class Found(NamedTuple):
    """Motion of blocks [h/16 w/16 2]: alone in either reference, and together for the mean."""

    one: jax.Array
    two: jax.Array
    both_one: jax.Array
    both_two: jax.Array


def match(
    target: jax.Array,
    first: jax.Array,
    second: jax.Array,
    phases: tuple[jax.Array, jax.Array],
    price: jax.Array,
) -> Found:
    """Motion for luma [h w] from two references [h w].

    phases: of `interpolated`, of both; price: levels of absolute difference that a bit is worth.
    """
    one = _match(target, first, phases[0], price)
    two = _match(target, second, phases[1], price)
    # Each again, for what the other leaves when the mean of both predicts.
    rest = 2 * target - _blocks_fetched(phases[1], two)
    both_one = _refined(rest, phases[0], one, price * 2, (UNITS, 2, 1))
    rest = 2 * target - _blocks_fetched(phases[0], both_one)
    both_two = _refined(rest, phases[1], two, price * 2, (UNITS, 2, 1))
    return Found(one, two, both_one, both_two)


def sums(x: jax.Array, size: int) -> jax.Array:
    """Of squares of `size`: [h w] to [h/size w/size]."""
    h, w = x.shape
    return x.reshape(h // size, size, w // size, size).sum((1, 3))


def _blocks_fetched(phases: jax.Array, field: jax.Array, size: int = LARGE) -> jax.Array:
    return fetch(phases, field[None], size)[0]


def _around(field: jax.Array) -> jax.Array:
    """The mean of the four neighbours of each block."""
    padded = jnp.pad(field, ((1, 1), (1, 1), (0, 0)), mode="edge")
    total = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    return total // 4


def motion_bits(field: jax.Array, around: jax.Array) -> jax.Array:
    """Estimated bits, from the mean of the four neighbours in `around`."""
    return _bits(field, _around(around))


def _bits(field: jax.Array, expected: jax.Array) -> jax.Array:
    away = jnp.abs(field - expected).astype(jnp.float32)
    return jnp.sum(_BITS_BASE * (away > 0) + _BITS_LOG * jnp.log2(1 + away), -1)


def _cost(
    target: jax.Array, phases: jax.Array, field: jax.Array, expected: jax.Array, price: jax.Array
) -> jax.Array:
    difference = jnp.abs(target - _blocks_fetched(phases, field))
    return sums(difference, LARGE) + price * _bits(field, expected)


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
    small, source = (sums(x, _COARSE) / _COARSE**2 for x in (target, reference))
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
        cost = sums(jnp.abs(small - moved), size) * _COARSE**2
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
