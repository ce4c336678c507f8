"""One group of pictures: fitted and coded to bytes, and decoded from bytes.

A group depends on no other. Its bytes: the quantiser (1 byte), then one range-coded stream: weights
of the contexts, and for each piece motion, the network's weights where they change, and latents.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zoo.codec import bands, entropy, fields, fit, labelling, motion, network, structure
from zoo.codec.network import LEVELS, Latents, Planes, Shape, Weights
from zoo.codec.structure import FRAMES_PER_PIECE, Piece

QUANTISERS = 256
# Sixths of an octave by which the quantiser is finer or coarser at a depth.
_BY_DEPTH = (-3, 0, 4, 6, 8)
_LARGEST_WEIGHT = 1 << 12


def step_of(quantiser: int, depth: int) -> float:
    """The quantiser's step in levels of 8 bits: doubled every 24, fine enough for a bit rate."""
    return 2.0 ** (quantiser / 24 + _BY_DEPTH[min(depth, len(_BY_DEPTH) - 1)] / 6)


class Encoded(NamedTuple):
    """A group's bytes, the bits that the tables say they should be, and what it decodes to."""

    data: bytes
    bits: float
    pictures: Planes


@dataclasses.dataclass
class _Coded:
    """What was decided for one piece."""

    piece: Piece
    labels: np.ndarray | None
    latents: bands.Sizes
    weights: Weights | None


def _take(done: dict[int, Planes], numbers: list[int]) -> Planes:
    return Planes(*(jnp.stack(part) for part in zip(*(done[k] for k in numbers), strict=True)))


def _filled(numbers: tuple, count: int) -> list:
    """Repeats the last, so that few sizes have to be compiled."""
    size = 1 if count == 1 else FRAMES_PER_PIECE
    return [*numbers, *[numbers[-1]] * (size - count)]


@functools.partial(jax.jit, static_argnames="refine")
def _reconstruct(
    latents: Latents, prediction: Planes, weights: Weights, step: jax.Array, refine: bool
) -> Planes:
    return network.reconstruct(latents, prediction, weights, step, refine=refine)


def encode(
    frames: Planes,
    quantiser: int,
    effort: fit.Effort,
    report: Callable[[int], None] | None = None,
    spare: Callable[[], float] = lambda: math.inf,
) -> Encoded:
    """Fits and codes a group.

    Args:
      frames: [t ...], padded, float levels of 8 bits.
      quantiser: 0 (finest) to QUANTISERS - 1.
      report: told how many frames were finished.
      spare: asked before each fit how many seconds it may take; it is left out at 0 or less.
    """
    done: dict[int, Planes] = {}
    current: dict[int, Weights] = {}
    tried: set[int] = set()
    coded = []
    size = frames.y.shape[1], frames.y.shape[2]
    known: fields.Known = {}
    for piece in structure.pieces(len(frames.y)):
        count = len(piece.frames)
        numbers = np.array(_filled(piece.frames, count))
        target = Planes(frames.y[numbers], frames.uv[numbers])
        step = jnp.float32(step_of(quantiser, piece.depth))
        flow = None
        prediction = network.prediction_without(1, size)
        if piece.depth:
            first, second = _references(done, piece)
            flow = _labels(target, first, second, piece, known, step)
            prediction = motion.predicted(first, second, _padded(flow, count))
        latents = fit.choose(target, prediction, step, inter=piece.depth > 0)
        weights = current.get(piece.depth, network.no_weights())
        pictures = _reconstruct(latents, prediction, weights, step, piece.depth in current)
        changed = None
        if piece.depth not in tried and effort.steps and (seconds := spare()) > 0:
            tried.add(piece.depth)
            counts = jnp.asarray(np.arange(len(numbers)) < count, jnp.float32)
            fitted, gain = fit.fit_weights(
                *(target, prediction, pictures, weights, step, counts),
                steps=effort.steps,
                seconds=seconds,
            )
            # Later pieces of the depth use them too.
            if float(gain) > 0:
                current[piece.depth] = changed = fitted
                pictures = _reconstruct(latents, prediction, fitted, step, True)
        _keep(done, piece, pictures)
        coded.append(_Coded(piece, flow, _cut(latents, count), changed))
        if report is not None:
            report(len(done))
    pictures = _take(done, list(range(len(frames.y))))
    return Encoded(*_write(coded, size, quantiser), pictures)


def _references(done: dict[int, Planes], piece: Piece) -> tuple[Planes, Planes]:
    pairs = _filled(piece.references, len(piece.frames))
    return _take(done, [a for a, _ in pairs]), _take(done, [b for _, b in pairs])


def _keep(done: dict[int, Planes], piece: Piece, pictures: Planes) -> None:
    for place, number in enumerate(piece.frames):
        done[number] = Planes(pictures.y[place], pictures.uv[place])


def _labels(
    target: Planes,
    first: Planes,
    second: Planes,
    piece: Piece,
    known: fields.Known,
    step: jax.Array,
) -> np.ndarray:
    """Labels of a piece's frames, int64 [n h/8 w/8 6], which become known."""
    h, w = target.y.shape[1] // motion.BLOCK, target.y.shape[2] // motion.BLOCK
    temporal = fields.over_time(piece.frames, piece.references, known, h * w)
    temporal = temporal.reshape(-1, 2, h, w, fields.LABEL).astype(np.int32)
    distances = fields.distances(piece.frames, piece.references)
    found = []
    for number in range(len(piece.frames)):
        luma = target.y[number], first.y[number], second.y[number]
        there = jnp.asarray(temporal[number]), jnp.asarray(distances[number], jnp.int32)
        found.append(labelling.search(*luma, *there, step, jnp.float32(fit.PRICE)))
    labels = np.asarray(jnp.stack(found), np.int64)
    fields.learn(known, piece.frames, piece.references, labels)
    return labels


def _cut(latents: Latents, count: int) -> bands.Sizes:
    parts = []
    for plane, (low, details) in enumerate(latents):
        n = count * (1 + plane)
        integers = tuple(np.asarray(d, np.int64)[:n] for d in details)
        parts.append((np.asarray(low, np.int64)[:n], integers))
    return parts[0], parts[1]


def _shapes(h: int, w: int) -> bands.Sizes:
    """Empty latents of one frame."""
    parts = []
    for plane in range(2):
        levels = LEVELS - plane
        low = np.zeros((1 + plane, h >> LEVELS, w >> LEVELS), np.int64)
        details = tuple(
            np.zeros((1 + plane, 3, (h >> LEVELS) << k, (w >> LEVELS) << k), np.int64)
            for k in range(levels)
        )
        parts.append((low, details))
    return parts[0], parts[1]


def _write(coded: list[_Coded], size: tuple[int, int], quantiser: int) -> tuple[bytes, float]:
    """The shorter of two: with the usual weights of the contexts, and with fitted ones."""
    seen: dict[tuple[int, int], list] = {}

    def observe(kind: int, number: int, features: np.ndarray, sizes: np.ndarray) -> None:
        seen.setdefault((kind, number), []).append((features, sizes))

    usual = bands.default_weights()
    best = _write_with(coded, size, usual, observe)
    weights = usual.copy()
    for (kind, number), parts in seen.items():
        features = np.concatenate([features for features, _ in parts], 1)
        sizes = np.concatenate([sizes for _, sizes in parts])
        weights[kind, number] = bands.contexts.fitted(features, sizes)
    other = _write_with(coded, size, weights, None)
    data, bits = min(best, other, key=lambda result: len(result[0]))
    return bytes([quantiser]) + data, bits + 8


def _write_with(
    coded: list[_Coded],
    size: tuple[int, int],
    weights: np.ndarray,
    observe: bands.Observe | None,
) -> tuple[bytes, float]:
    coder = entropy.Encoder()
    tables = _Tables(coder, weights)
    for part in coded:
        tables.piece(part.piece, size, part, observe)
    return coder.finish(), coder.bits


class _Tables:
    """Everything that learns while a group is coded, and the order in which it is coded."""

    def __init__(self, coder: entropy.Coder, weights: np.ndarray | None) -> None:
        self._coder = coder
        self._fields = fields.Models()
        self._known: fields.Known = {}
        self._sizes: dict[int, bands.Sizes] = {}
        self._network = [entropy.Signed(1, 1) for _ in range(2)]
        self._models = bands.Models(_context_weights(coder, weights))

    def piece(
        self,
        piece: Piece,
        size: tuple[int, int],
        given: _Coded | None,
        observe: bands.Observe | None,
    ) -> _Coded:
        """Codes one piece; `given` is None to decode it."""
        h, w = size
        flow = None
        if piece.depth:
            shape = len(piece.frames), h // motion.BLOCK, w // motion.BLOCK
            frames = piece.frames, piece.references
            flow = fields.code(
                self._coder,
                self._fields,
                piece.depth,
                shape,
                fields.over_time(*frames, self._known, shape[1] * shape[2]),
                fields.distances(*frames),
                None if given is None else given.labels,
            )
            fields.learn(self._known, *frames, flow)
        weights = self._weights(given)
        latents = bands.code(
            self._coder,
            self._models,
            piece,
            _shapes(h, w),
            self._sizes,
            None if given is None else given.latents,
            observe,
        )
        return _Coded(piece, flow, latents, weights)

    def _weights(self, given: _Coded | None) -> Weights | None:
        there = None if given is None else np.array([int(given.weights is not None)])
        if not self._coder.raw(2, 1, there)[0]:
            return None
        found = {}
        for name, tables in zip(("first", "last"), self._network, strict=True):
            empty = getattr(network.no_weights(), name)
            step = network.WEIGHT_STEPS[name]
            values = None
            if given is not None and given.weights is not None:
                scaled = np.asarray(getattr(given.weights, name), np.float64) / step
                values = np.rint(scaled).astype(np.int64).reshape(-1)
            values = tables.code(self._coder, np.zeros(empty.size, np.int64), values)
            values = np.clip(values, -_LARGEST_WEIGHT, _LARGEST_WEIGHT)
            found[name] = jnp.asarray(values.reshape(empty.shape) * step, jnp.float32)
        return Weights(**found)


def _context_weights(coder: entropy.Coder, weights: np.ndarray | None) -> np.ndarray:
    """Codes the weights of the contexts as differences from the usual ones."""
    usual = bands.default_weights()
    same = None if weights is None else np.array([int(np.array_equal(weights, usual))])
    if coder.raw(2, 1, same)[0]:
        return usual
    difference = None if weights is None else (weights - usual).reshape(-1)
    found = entropy.Signed(1, 1).code(coder, np.zeros(usual.size, np.int64), difference)
    return np.clip(usual + found.reshape(usual.shape), 0, (1 << bands.contexts.WEIGHT_BITS) - 1)


def decode(data: bytes, count: int, shape: Shape) -> Planes:
    """Pictures [t ...] of a group of `count` frames, padded, in levels of 8 bits.

    Raises ValueError where the bytes cannot be a group's.
    """
    if not data or data[0] >= QUANTISERS:
        raise ValueError("it has no quantiser that this decoder knows")
    quantiser = data[0]
    coder = entropy.Decoder(data[1:])
    tables = _Tables(coder, None)
    done: dict[int, Planes] = {}
    current: dict[int, Weights] = {}
    for piece in structure.pieces(count):
        part = tables.piece(piece, shape.padded, None, None)
        step = jnp.float32(step_of(quantiser, piece.depth))
        prediction = network.prediction_without(1, shape.padded)
        if part.labels is not None:
            first, second = _references(done, piece)
            labels = _padded(part.labels, len(piece.frames))
            prediction = motion.predicted(first, second, labels)
        if part.weights is not None:
            current[piece.depth] = part.weights
        pictures = _reconstruct(
            _floats(part.latents, len(piece.frames)),
            prediction,
            current.get(piece.depth, network.no_weights()),
            step,
            piece.depth in current,
        )
        _keep(done, piece, pictures)
    return _take(done, list(range(count)))


def _padded(x: np.ndarray, count: int) -> jax.Array:
    size = 1 if count == 1 else FRAMES_PER_PIECE
    filled = np.concatenate([x, np.repeat(x[-1:], size - count, 0)])
    return jnp.asarray(filled, jnp.int32)


def _floats(latents: bands.Sizes, count: int) -> Latents:
    size = 1 if count == 1 else FRAMES_PER_PIECE

    def fill(x: np.ndarray, copies: int) -> jax.Array:
        whole = np.zeros((size * copies, *x.shape[1:]), np.float32)
        whole[: len(x)] = np.clip(x, -(2**22), 2**22)
        return jnp.asarray(whole)

    (y, y_details), (uv, uv_details) = latents
    return Latents(
        (fill(y, 1), tuple(fill(d, 1) for d in y_details)),
        (fill(uv, 2), tuple(fill(d, 2) for d in uv_details)),
    )
