"""The choice of motion: which label every block has, by what it leaves to code and what it costs.

The energy of a map of labels is the sum over blocks of what their residual costs (squared error and
bits, by transform coefficient) and of bits for the labels: some for every edge between blocks of
different labels, more for a label that no block around has. Squares of 64, 32, 16 or 8 samples are
offered one label after the other, and take each that lowers the energy: labels found by block
matching, motion taken on over time, labels of other squares, and labels a little beside their own.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from zoo.codec import matching
from zoo.codec.matching import LARGE, sums
from zoo.codec.motion import BLOCK, BOTH, FIRST, LUMA, MAX_MOTION, SECOND, fetch, interpolated

_SCALES = (8, 4, 2, 1)  # Sides of squares, in blocks.
_EDGE = 1.1  # Bits for each edge between unlike labels ...
_NEW = 6.0  # ... and for a label that no neighbour has, beside those of its motion.
# Bits of a transform coefficient that is not 0: a constant and for each octave.
_LEVEL, _OCTAVE = 4.5, 2.0
_PARTS = 8  # Rows and columns of the transform.


class _Offer(NamedTuple):
    """One offer to all squares of one scale.

    Attributes:
      source: 0 the map itself, else a map of `_stack`.
      scale: index of _SCALES.
      down, right: which block, from the square's first, the label is taken from.
      first, second: what is added to the motion.
      mode: -1 as it is.
    """

    source: int
    scale: int
    down: int = 0
    right: int = 0
    first: tuple[int, int] = (0, 0)
    second: tuple[int, int] = (0, 0)
    mode: int = -1


_ONE, _TWO, _MEAN, _OVER_TIME, _OTHER_TIME, _STILL = range(1, 7)
_EIGHT = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x]


def _around(scale: int, distance: int = 1) -> list[_Offer]:
    size = _SCALES[scale]
    far, middle = size * distance, size // 2
    moves = [(middle - far, middle), (middle + far, middle)]
    moves += [(middle, middle - far), (middle, middle + far)]
    return [_Offer(0, scale, down, right) for down, right in moves]


def _beside(scale: int, step: int) -> list[_Offer]:
    offers = []
    for y, x in _EIGHT:
        offers.append(_Offer(0, scale, first=(y * step, x * step)))
    for y, x in _EIGHT:
        offers.append(_Offer(0, scale, second=(y * step, x * step)))
    return offers


def _plan() -> np.ndarray:
    offers = []
    for scale, places in ((0, (2, 4)), (1, (0, 2)), (2, (0,))):
        offers += [_Offer(_STILL, scale), _Offer(_OTHER_TIME, scale)]
        for source in (_MEAN, _ONE, _TWO):
            offers += [_Offer(source, scale, y, x) for y, x in itertools.product(places, places)]
    for scale in (1, 2, 3):
        offers += _around(scale)
    for scale, step in ((2, 2), (2, 1), (3, 4), (3, 2), (3, 1)):
        offers += _beside(scale, step)
    for scale in (3, 2):
        offers += [_Offer(0, scale, mode=mode) for mode in (FIRST, SECOND, BOTH)]
    for scale in (3, 2, 1, 0, 1, 2, 3):
        offers += [_Offer(_OVER_TIME, scale), _Offer(_OTHER_TIME, scale), *_around(scale)]
    rows = [
        (o.source, o.scale, o.down, o.right, *o.first, *o.second, o.mode, _SCALES[o.scale])
        for o in offers
    ]
    return np.array(rows, np.int32)


@jax.jit
def search(
    target: jax.Array,
    first: jax.Array,
    second: jax.Array,
    temporal: jax.Array,
    distances: jax.Array,
    step: jax.Array,
    price: jax.Array,
) -> jax.Array:
    """Labels of one frame: int32 [h/8 w/8 6].

    Args:
      target, first, second: luma [h w].
      temporal: labels over time, int32 [2 h/8 w/8 6].
      distances: to the references, int32 [2].
      step: the quantiser's; price: squared steps that a bit may cost.
    """
    phases = interpolated(first[None], LUMA), interpolated(second[None], LUMA)
    found = matching.match(target, first, second, phases, jnp.sqrt(price) * step)
    h, w = target.shape[0] // BLOCK, target.shape[1] // BLOCK
    tall, wide = (-(-n // _SCALES[0]) * _SCALES[0] for n in (h, w))

    def whole(labels: jax.Array) -> jax.Array:
        return jnp.pad(labels, ((0, tall - h), (0, wide - w), (0, 0)), mode="edge")

    stack = jnp.stack([whole(x) for x in _stack(found, temporal, distances)])
    times = stack[_OVER_TIME - 1 : _OTHER_TIME]

    def costs(labels: jax.Array) -> jax.Array:
        """Of the residual, in bits."""
        labels = labels[None, :h, :w]
        one = fetch(phases[0], labels[..., 2:4], BLOCK)[0]
        two = fetch(phases[1], labels[..., 4:], BLOCK)[0]
        weight = jnp.array([1.0, 0.0, 0.5], jnp.float32)[labels[0, ..., 1]]
        weight = jnp.repeat(jnp.repeat(weight, BLOCK, 0), BLOCK, 1)
        residual = (target - weight * one - (1 - weight) * two) / step
        return jnp.pad(_residual_costs(residual, price), ((0, tall - h), (0, wide - w)))

    def consider(state: tuple, offer: jax.Array) -> tuple:
        labels, cost = state
        candidate = _offered(labels, stack, times, offer, distances)
        other = costs(candidate)
        for colour in range(2):
            taken = _taken(labels, cost, candidate, other, offer, colour)
            labels = jnp.where(taken[..., None], candidate, labels)
            cost = jnp.where(taken, other, cost)
        return (labels, cost), None

    start = stack[_OVER_TIME - 1]
    plan = jnp.asarray(_plan())
    (labels, _), _ = lax.scan(consider, (start, costs(start)), plan)
    return labels[:h, :w]


def _residual_costs(residual: jax.Array, price: jax.Array) -> jax.Array:
    """Of blocks, from a residual [h w] in steps, in bits."""
    h, w = residual.shape
    matrix = jnp.asarray(_cosines())
    split = residual.reshape(h // _PARTS, _PARTS, w // _PARTS, _PARTS)
    size = jnp.abs(jnp.einsum("iy,aybx,jx->abij", matrix, split, matrix, precision="highest"))
    bits = _LEVEL + _OCTAVE * jnp.log2(jnp.maximum(size, 0.5) + 0.5)
    return jnp.minimum(jnp.square(size) / price, bits + 0.08 / price).sum((2, 3))


@functools.cache
def _cosines() -> np.ndarray:
    """The orthonormal cosine transform [_PARTS _PARTS]."""
    rows, places = np.arange(_PARTS)[:, None], np.arange(_PARTS) + 0.5
    matrix = np.cos(np.pi / _PARTS * rows * places) * np.sqrt(2 / _PARTS)
    matrix[0] /= np.sqrt(2)
    return matrix.astype(np.float32)


def _stack(found: matching.Found, temporal: jax.Array, distances: jax.Array) -> list[jax.Array]:
    """Maps of labels to offer, [h/8 w/8 6] each."""
    maps = []
    for mode, one, two in (
        (FIRST, found.one, found.one),
        (SECOND, found.two, found.two),
        (BOTH, found.both_one, found.both_two),
    ):
        head = jnp.broadcast_to(jnp.array([0, mode], jnp.int32), (*one.shape[:2], 2))
        labels = jnp.concatenate([head, one, two], -1)
        wide = jnp.repeat(jnp.repeat(labels, LARGE // BLOCK, 0), LARGE // BLOCK, 1)
        maps.append(_followed(wide, distances))
    still = jnp.zeros_like(temporal[0]).at[..., 1].set(temporal[0, ..., 1])
    return [*maps, temporal[0], temporal[1], still]


def _followed(labels: jax.Array, distances: jax.Array) -> jax.Array:
    """As fields.followed."""

    def scaled(motion: jax.Array, top: jax.Array, bottom: jax.Array) -> jax.Array:
        value = (2 * motion * top * jnp.sign(bottom) + jnp.abs(bottom)) // (2 * jnp.abs(bottom))
        return jnp.clip(value, -MAX_MOTION, MAX_MOTION)

    one, two = labels[..., 2:4], labels[..., 4:]
    mode = labels[..., 1:2]
    second = jnp.where(mode == FIRST, scaled(one, distances[1], distances[0]), two)
    first = jnp.where(mode == SECOND, scaled(two, distances[0], distances[1]), one)
    return jnp.concatenate([labels[..., :2], first, second], -1)


def _offered(
    labels: jax.Array, stack: jax.Array, times: jax.Array, offer: jax.Array, distances: jax.Array
) -> jax.Array:
    """The map of labels that the squares are offered."""
    h, w, _ = labels.shape
    size = offer[9]
    y = jnp.clip(jnp.arange(h) // size * size + offer[2], 0, h - 1)
    x = jnp.clip(jnp.arange(w) // size * size + offer[3], 0, w - 1)
    source = jnp.where(offer[0] == 0, labels, stack[jnp.maximum(offer[0] - 1, 0)])
    taken = source[y[:, None], x]
    mode = jnp.where(offer[8] < 0, taken[..., 1], offer[8])
    first, second = offer[4:6], offer[6:8]
    alone = jnp.where((mode == SECOND)[..., None], first, 0) + jnp.where(
        (mode == BOTH)[..., None], second, 0
    )
    one = taken[..., 2:4] + jnp.where((mode == SECOND)[..., None], 0, first)
    two = taken[..., 4:] + alone
    moved = jnp.clip(jnp.concatenate([one, two], -1), -MAX_MOTION, MAX_MOTION)
    zero = jnp.zeros_like(mode)
    plain = jnp.concatenate([zero[..., None], mode[..., None], moved], -1)
    plain = _followed(plain, distances)
    changed = (offer[8] >= 0) | jnp.any(offer[4:8] != 0)
    kind = jnp.where(changed, 0, taken[..., :1])
    return jnp.where(kind == 0, plain, jnp.where(kind == 1, times[0], times[1]))


def _same(a: jax.Array, b: jax.Array) -> jax.Array:
    kinds = (a[..., 0] > 0) | (b[..., 0] > 0)
    return jnp.where(kinds, a[..., 0] == b[..., 0], jnp.all(a[..., 1:] == b[..., 1:], -1))


def _taken(
    labels: jax.Array,
    cost: jax.Array,
    candidate: jax.Array,
    other: jax.Array,
    offer: jax.Array,
    colour: int,
) -> jax.Array:
    """Where squares of one colour of a chequerboard take what is offered: bool [h w]."""
    h, w = cost.shape
    size = offer[9]
    y, x = jnp.arange(h), jnp.arange(w)
    unlike_now, unlike_then = jnp.zeros((h, w)), jnp.zeros((h, w))
    alike_then = jnp.zeros((h, w))
    started = jnp.ones((h, w))  # No block before it, or outside of its square, is alike.
    alike_now = jnp.zeros((h, w))  # Blocks outside of its square that are.
    for axis, back in itertools.product(range(2), (True, False)):
        place, count = (y[:, None], h) if axis == 0 else (x[None], w)
        there = jnp.broadcast_to(place > 0 if back else place < count - 1, (h, w))
        outside = there & ((place % size == 0) if back else ((place + 1) % size == 0))
        beside = jnp.roll(labels, 1 if back else -1, axis)
        now, then = _same(labels, beside), _same(candidate, beside)
        # An edge inside of a square is counted once.
        counted = outside | (there & (not back))
        unlike_now += counted & ~now
        unlike_then += outside & ~then
        alike_then += outside & then
        alike_now += outside & now
        if back:
            started *= 1.0 - (there & now)
        else:
            started *= 1.0 - (outside & now)
    known_now, known_then = labels[..., 0] > 0, candidate[..., 0] > 0
    started *= ~known_now
    motion_now, motion_then = _motion_bits(labels, labels), _motion_bits(candidate, labels)

    def squares(side: int) -> jax.Array:
        def total(x: jax.Array) -> jax.Array:
            return sums(x, side)

        corner = jnp.zeros((h, w)).at[::side, ::side].set(1.0)
        uniform = total(started) <= 1
        free = uniform & (total(alike_now) > 0)
        new_now = jnp.where(free, 0.0, total(started * (_NEW + motion_now)))
        supported = (total(alike_then) > 0) | (total(corner * known_then) > 0)
        new_then = jnp.where(supported, 0.0, total(corner * (_NEW + motion_then)))
        now = total(cost) + _EDGE * total(unlike_now) + new_now
        then = total(other) + _EDGE * total(unlike_then) + new_then
        rows, columns = jnp.arange(h // side)[:, None], jnp.arange(w // side)
        better = (then < now) & ((rows + columns) % 2 == colour)
        return jnp.repeat(jnp.repeat(better, side, 0), side, 1)

    return lax.switch(offer[1], [functools.partial(squares, side) for side in _SCALES])


def _motion_bits(labels: jax.Array, around: jax.Array) -> jax.Array:
    """Of labels of their own, by the motion of the blocks around."""
    mode = labels[..., 1]
    one = matching.motion_bits(labels[..., 2:4], around[..., 2:4])
    two = matching.motion_bits(labels[..., 4:], around[..., 4:])
    return jnp.where(mode == SECOND, 0.0, one) + jnp.where(mode == FIRST, 0.0, two)
