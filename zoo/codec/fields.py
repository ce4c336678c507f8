"""Coding of motion: a grid refined by halving, each place predicted from four places around it.

Places of a grid [h w] are coded in rounds: first every fourth of each row and column, then, halving
the distance, the places between the known ones. All places of a round are independent, except in
the first, and so are all frames of a piece.
"""

import functools

import numpy as np

from zoo.codec import entropy
from zoo.codec.motion import BOTH, FIRST, MAX_MOTION, SECOND

_START = 4  # Distance of the places that are coded first.
_SPREADS = np.array([1, 2, 4, 8, 16, 32, 64], np.int64)  # Limits of the classes of motion.


@functools.cache
def _rounds(h: int, w: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(places [m], neighbours [m 4]) of each round, as flat indices; every neighbour is known.

    The first round has only itself to look at: its neighbours are -1.
    """
    grid = np.arange(h * w).reshape(h, w)
    first = grid[::_START, ::_START].reshape(-1)
    result = [(first, np.full((len(first), 4), -1))]
    distance = _START // 2
    while distance:
        for odd in ((True, True), (True, False), (False, True)):
            ys = np.arange(distance if odd[0] else 0, h, 2 * distance)
            xs = np.arange(distance if odd[1] else 0, w, 2 * distance)
            y, x = (part.reshape(-1) for part in np.meshgrid(ys, xs, indexing="ij"))
            if len(y):
                result.append((y * w + x, _known(y, x, odd, distance, h, w)))
        distance //= 2
    return result


def _known(
    y: np.ndarray, x: np.ndarray, odd: tuple[bool, bool], distance: int, h: int, w: int
) -> np.ndarray:
    """Known places around; one that would lie outside is replaced by its opposite."""
    if odd == (True, True):
        moves = [(-1, -1), (1, 1), (-1, 1), (1, -1)]
    else:  # The round before filled the places between four: all four sides are known.
        moves = [(-1, 0), (1, 0), (0, -1), (0, 1)]
    columns = []
    for down, right in moves:
        v, u = y + down * distance, x + right * distance
        v, u = (
            np.where(v >= h, y - abs(down) * distance, v),
            np.where(u >= w, x - abs(right) * distance, u),
        )
        v, u = (
            np.where(v < 0, y + abs(down) * distance, v),
            np.where(u < 0, x + abs(right) * distance, u),
        )
        columns.append(np.clip(v, 0, h - 1) * w + np.clip(u, 0, w - 1))
    return np.stack(columns, 1)


class Models:
    """The tables of one group; motion over one frame differs from motion over eight."""

    def __init__(self) -> None:
        self._modes: dict[int, entropy.Tables] = {}
        self._motion: dict[int, entropy.Signed] = {}
        self._splits: dict[int, entropy.Tables] = {}
        self._parts: dict[int, entropy.Signed] = {}

    def modes(self, depth: int) -> entropy.Tables:
        """By how many of four neighbours have the mode FIRST, and how many SECOND."""
        return self._modes.setdefault(depth, entropy.Tables(_mode_start()))

    def motion(self, depth: int) -> entropy.Signed:
        """By how much the neighbours differ; the last class has no neighbours."""
        return self._motion.setdefault(depth, entropy.Signed(2 * len(_SPREADS) + 4, 1))

    def splits(self, depth: int) -> entropy.Tables:
        """By how much the neighbours differ."""
        return self._splits.setdefault(
            depth, entropy.Tables(entropy.falling_start(len(_SPREADS) + 1, 2, 3))
        )

    def parts(self, depth: int) -> entropy.Signed:
        """Of blocks in a split one."""
        return self._parts.setdefault(depth, entropy.Signed(1, 1))


def _mode_start() -> np.ndarray:
    counts = np.full((26, 3), 16)
    for first in range(5):
        for second in range(5 - first):
            counts[first * 5 + second] += 32 * np.array([first, second, 4 - first - second])
    return counts


Fields = tuple[np.ndarray, np.ndarray, np.ndarray]


def code(
    coder: entropy.Coder,
    models: Models,
    depth: int,
    shape: tuple[int, int, int],
    values: Fields | None,
) -> Fields:
    """Codes the motion of a piece.

    Args:
      shape: frames, and rows and columns of 16x16 blocks.
      values: fields for both references, int64 [n 2h 2w 2], and modes [n h w]; None to decode.

    Returns:
      The same; fields of a block that a mode leaves unused are those that were expected, so they
      may differ from `values`.
    """
    n, h, w = shape
    modes = _modes(coder, models.modes(depth), shape, None if values is None else values[2])
    fields = []
    for reference, unused in enumerate((SECOND, FIRST)):
        used = modes.reshape(n, h * w) != unused
        given = None if values is None else values[reference]
        fields.append(_field(coder, models, depth, shape, used, given))
    return fields[0], fields[1], modes


def _modes(
    coder: entropy.Coder,
    tables: entropy.Tables,
    shape: tuple[int, int, int],
    given: np.ndarray | None,
) -> np.ndarray:
    n, h, w = shape
    modes = np.full((n, h * w), BOTH, np.int64)
    for places, known in _rounds(h, w):
        chosen = np.full((n, len(places)), 25)
        if known[0, 0] >= 0:
            around = modes[:, known]
            chosen = (around == FIRST).sum(2) * 5 + (around == SECOND).sum(2)
        part = None if given is None else given.reshape(n, -1)[:, places].reshape(-1)
        found = coder.symbols(tables, chosen.reshape(-1), part)
        modes[:, places] = found.reshape(n, -1)
    return modes.reshape(n, h, w)


def _field(
    coder: entropy.Coder,
    models: Models,
    depth: int,
    shape: tuple[int, int, int],
    used: np.ndarray,
    given: np.ndarray | None,
) -> np.ndarray:
    n, h, w = shape
    large = None if given is None else given[:, ::2, ::2].reshape(n, h * w, 2)
    field = np.zeros((n, h * w, 2), np.int64)
    spread = np.zeros((n, h * w), np.int64)
    for places, known in _rounds(h, w):
        if known[0, 0] < 0:
            _first_round(coder, models.motion(depth), field, places, used, large)
            continue
        around = np.sort(field[:, known], 2)
        expected = (around[:, :, 1] + around[:, :, 2]) >> 1
        differ = (around[:, :, 3] - around[:, :, 0]).sum(-1)
        spread[:, places] = differ
        classes = np.searchsorted(_SPREADS, differ, side="right")
        here = used[:, places]
        for axis in range(2):
            part = None
            if large is not None:
                part = (large[:, places, axis] - expected[..., axis])[here]
            kinds = classes[here] + axis * (len(_SPREADS) + 1)
            found = models.motion(depth).code(coder, kinds, part)
            expected[..., axis][here] += found
        field[:, places] = np.clip(expected, -MAX_MOTION, MAX_MOTION)
    return _parts(coder, models, depth, shape, field, spread, used, given)


def _first_round(
    coder: entropy.Coder,
    tables: entropy.Signed,
    field: np.ndarray,
    places: np.ndarray,
    used: np.ndarray,
    large: np.ndarray | None,
) -> None:
    """One place after the other, each expected to be as the one before."""
    last = len(tables.magnitudes.counts) - 2
    before = np.zeros_like(field[:, 0])
    for place in places.tolist():
        here = used[:, place]
        now = before.copy()
        for axis in range(2):
            part = None if large is None else (large[:, place, axis] - before[:, axis])[here]
            classes = np.full(int(here.sum()), last + axis)
            now[here, axis] += tables.code(coder, classes, part)
        before = np.clip(now, -MAX_MOTION, MAX_MOTION)
        field[:, place] = before


def _parts(
    coder: entropy.Coder,
    models: Models,
    depth: int,
    shape: tuple[int, int, int],
    field: np.ndarray,
    spread: np.ndarray,
    used: np.ndarray,
    given: np.ndarray | None,
) -> np.ndarray:
    """Fields of 8x8 blocks from those of 16x16 blocks, which are their upper left ones."""
    n, h, w = shape
    whole = np.repeat(np.repeat(field.reshape(n, h, w, 2), 2, 1), 2, 2)
    here = used.reshape(n, h, w)
    split = None
    if given is not None:
        large = given[:, ::2, ::2]
        same = [np.all(given[:, y::2, x::2] == large, -1) for y in range(2) for x in range(2)]
        split = ~np.all(same, 0)[here]
    classes = np.searchsorted(_SPREADS, spread.reshape(n, h, w)[here], side="right")
    flags = coder.symbols(
        models.splits(depth), classes, None if split is None else split.astype(np.int64)
    )
    chosen = np.zeros((n, h, w), bool)
    chosen[here] = flags > 0
    for y, x in ((0, 1), (1, 0), (1, 1)):
        block = whole[:, y::2, x::2]
        part = None
        if given is not None:
            part = (given[:, y::2, x::2] - block)[chosen].reshape(-1)
        found = models.parts(depth).code(coder, np.zeros(2 * int(chosen.sum()), np.int64), part)
        block[chosen] += found.reshape(-1, 2)
    return np.clip(whole, -MAX_MOTION, MAX_MOTION)
