"""Coding of motion: blocks take over the motion of blocks around them, or bring their own.

A label says how one block of 8x8 is predicted: int64 [..., 6] with kind, mode, and how far down and
right the prediction lies in the first and in the second reference. Kind 0 is motion as it stands;
kinds 1 and 2 are the motion that the second and the first reference frame had at this place, taken
on over time.

A grid of labels [h w] is coded in rounds: first, one after the other, every eighth of each row and
column, then, halving the distance, the places between the known ones. Each place has four known
ones around it. It says which of their labels it takes over, or which kind over time, or that a new
label follows. All places of a round are independent, and so are all frames of a piece.
"""

import functools

import numpy as np

from zoo.codec import entropy
from zoo.codec.motion import BOTH, FIRST, MAX_MOTION, SECOND

LABEL = 6
START = 8  # Distance of the places that are coded first.
NEW = 6  # After four labels from around and two kinds over time.
_FINE = 16  # Speeds are in these parts of a quarter of a sample for each frame.
_SPREADS = np.array([1, 2, 4, 8, 16, 32, 64], np.int64)  # Limits of the classes of motion.
# Sums of squares of how many of four labels are alike: 1 1 1 1, 2 1 1, 2 2, 3 1, 4.
_PATTERNS = np.array([5, 7, 9, 11])
_COUNTS = {
    0: (12, 6, 5, 4, 10, 4, 20),
    1: (24, 6, 5, 1, 8, 3, 12),
    2: (24, 18, 1, 1, 6, 2, 6),
    3: (48, 12, 1, 1, 4, 2, 6),
    4: (400, 1, 1, 1, 4, 2, 6),
}


# Of frames that are coded: distances to their references [2], and labels [places LABEL].
Known = dict[int, tuple[np.ndarray, np.ndarray]]


@functools.cache
def _rounds(h: int, w: int) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """(places [m], neighbours [m 4], distance) of each round, as flat indices; all are known.

    The very first place has none: its neighbours are -1.
    """
    result = []
    for y in range(0, h, START):
        for x in range(0, w, START):
            left, up = max(x - START, 0), max(y - START, 0)
            right = min(x + START, (w - 1) // START * START)
            around = [(y, left), (up, x), (up, left), (up, right)]
            if y == 0:
                around = [(0, left)] * 4
            if x == 0:
                around[0] = (up, x)
            known = [-1] * 4 if x == y == 0 else [v * w + u for v, u in around]
            result.append((np.array([y * w + x]), np.array([known]), START))
    distance = START // 2
    while distance:
        for odd in ((True, True), (True, False), (False, True)):
            ys = np.arange(distance if odd[0] else 0, h, 2 * distance)
            xs = np.arange(distance if odd[1] else 0, w, 2 * distance)
            y, x = (part.reshape(-1) for part in np.meshgrid(ys, xs, indexing="ij"))
            if len(y):
                result.append((y * w + x, _known(y, x, odd, distance, h, w), distance))
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


def scaled(motion: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """motion * top / bottom, rounded, within the range of motion; bottom is not 0."""
    sign = np.sign(bottom)
    value = (2 * motion * top * sign + np.abs(bottom)) // (2 * np.abs(bottom))
    return np.clip(value, -MAX_MOTION, MAX_MOTION)


def over_time(
    frames: tuple[int, ...],
    references: tuple[tuple[int, int], ...],
    known: Known,
    places: int,
) -> np.ndarray:
    """Labels of kinds 1 and 2: int64 [n 2 places LABEL].

    A frame that is not known has no motion, and counts as standing still.
    """
    result = np.zeros((len(frames), 2, places, LABEL), np.int64)
    for number, (frame, pair) in enumerate(zip(frames, references, strict=True)):
        between = (pair[0] - frame) * (pair[1] - frame) < 0
        for kind, source in enumerate((pair[1], pair[0])):
            result[number, kind, :, 0] = kind + 1
            result[number, kind, :, 1] = BOTH if between else FIRST
            if source not in known:
                continue
            away, labels = known[source]
            speeds = scaled(labels[:, 2:], np.array(_FINE), np.repeat(away, 2))
            mode = labels[:, 1:2]
            mean = np.where(
                mode == FIRST,
                speeds[:, :2],
                np.where(mode == SECOND, speeds[:, 2:], (speeds[:, :2] + speeds[:, 2:]) >> 1),
            )
            for place, reference in enumerate(pair):
                moved = scaled(mean, np.array(reference - frame), np.array(_FINE))
                result[number, kind, :, 2 + 2 * place : 4 + 2 * place] = moved
    return result


def distances(frames: tuple[int, ...], references: tuple[tuple[int, int], ...]) -> np.ndarray:
    """To both references of each frame: int64 [n 2]."""
    return np.array(references, np.int64) - np.array(frames, np.int64)[:, None]


def learn(
    known: Known,
    frames: tuple[int, ...],
    references: tuple[tuple[int, int], ...],
    labels: np.ndarray,
) -> None:
    """Adds the labels [n h w LABEL] of a piece."""
    away = distances(frames, references)
    for number, frame in enumerate(frames):
        known[frame] = away[number], labels[number].reshape(-1, LABEL)


class Models:
    """The tables of one group; motion over one frame differs from motion over eight."""

    def __init__(self) -> None:
        self._choices: dict[int, entropy.Tables] = {}
        self._modes: dict[int, entropy.Tables] = {}
        self._motion: dict[int, entropy.Signed] = {}

    def choices(self, depth: int) -> entropy.Tables:
        """By `_class_of`."""
        if depth not in self._choices:
            start = np.repeat(np.array([_COUNTS[k] for k in range(5)]) * 8, 36, 0)
            self._choices[depth] = entropy.Tables(start)
        return self._choices[depth]

    def modes(self, depth: int) -> entropy.Tables:
        """By how many of four neighbours have the mode FIRST, and how many SECOND."""
        return self._modes.setdefault(depth, entropy.Tables(_mode_start()))

    def motion(self, depth: int) -> entropy.Signed:
        """By axis, and how much the neighbours differ."""
        return self._motion.setdefault(depth, entropy.Signed(2 * (len(_SPREADS) + 1), 1))


def _mode_start() -> np.ndarray:
    counts = np.full((26, 3), 16)
    for first in range(5):
        for second in range(5 - first):
            counts[first * 5 + second] += 32 * np.array([first, second, 4 - first - second])
    return counts


def _keys(labels: np.ndarray) -> np.ndarray:
    """One integer for each label; labels of a kind over time are alike."""
    packed = labels[..., 1]
    for part in range(2, LABEL):
        packed = packed * (2 * MAX_MOTION + 1) + labels[..., part] + MAX_MOTION
    return np.where(labels[..., 0] > 0, -labels[..., 0], packed)


def _candidates(near: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels to take over [m 6 LABEL] and the class by the four around, [m].

    near: [m 4 LABEL]; own: those over time, [m 2 LABEL]. Labels that are alike count once, those
    that occur more often come first.
    """
    keys = _keys(near)
    counts = (keys[:, :, None] == keys[:, None, :]).sum(-1)
    order = np.argsort(-counts, 1, kind="stable")
    keys = np.take_along_axis(keys, order, 1)
    again = np.zeros(keys.shape, bool)
    for place in range(1, 4):
        again[:, place] = (keys[:, :place] == keys[:, place : place + 1]).any(1)
    order = np.take_along_axis(order, np.argsort(again, 1, kind="stable"), 1)
    near = np.take_along_axis(near, order[..., None], 1)
    pattern = np.searchsorted(_PATTERNS, counts.sum(1))
    return np.concatenate([near, own], 1), pattern * 3 + near[:, 0, 0]


def code(
    coder: entropy.Coder,
    models: Models,
    depth: int,
    shape: tuple[int, int, int],
    temporal: np.ndarray,
    distances: np.ndarray,
    values: np.ndarray | None,
) -> np.ndarray:
    """Codes the labels of a piece.

    Args:
      shape: frames, and rows and columns of blocks.
      temporal: of `over_time`, [n 2 h*w LABEL].
      distances: to the two references, int64 [n 2].
      values: labels, int64 [n h w LABEL]; None to decode.

    Returns:
      The same, int64.
    """
    n, h, w = shape
    labels = np.zeros((n, h * w, LABEL), np.int64)
    fresh = np.zeros((n, h * w), np.int64)
    given = None if values is None else values.reshape(n, h * w, LABEL)
    for places, known, distance in _rounds(h, w):
        m = n * len(places)
        own = temporal[:, :, places].transpose(0, 2, 1, 3).reshape(m, 2, LABEL)
        near, busy = own[:, [0, 0, 0, 1]], np.zeros(m, np.int64)
        if known[0, 0] >= 0:
            near = labels[:, known].reshape(m, 4, LABEL)
            busy = np.minimum(fresh[:, known].sum(2), 2).reshape(m)
            for kind in (1, 2):
                near = np.where(near[..., :1] == kind, own[:, kind - 1 : kind], near)
        candidates, classes = _candidates(near, own)
        level = int(distance).bit_length() - 1
        classes = (classes * 4 + level) * 3 + busy
        part = None if given is None else given[:, places].reshape(m, LABEL)
        symbols = None if part is None else _symbols(candidates, part)
        symbols = coder.symbols(models.choices(depth), classes, symbols)
        found = candidates[np.arange(m), np.minimum(symbols, NEW - 1)]
        new = np.flatnonzero(symbols == NEW)
        if len(new):
            found[new] = _new(
                coder,
                models,
                depth,
                near[new],
                np.repeat(distances, len(places), 0)[new],
                None if part is None else part[new],
            )
        labels[:, places] = found.reshape(n, -1, LABEL)
        fresh[:, places] = (symbols > 0).reshape(n, -1)
    return labels.reshape(n, h, w, LABEL)


def _symbols(candidates: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The first candidate that is the same, or NEW."""
    same = _keys(candidates) == _keys(wanted)[:, None]
    like = (candidates[..., 1:] == wanted[:, None, 1:]).all(-1)
    return np.where(same.any(1), same.argmax(1), np.where(like.any(1), like.argmax(1), NEW)).astype(
        np.int64
    )


def _new(
    coder: entropy.Coder,
    models: Models,
    depth: int,
    near: np.ndarray,
    distances: np.ndarray,
    given: np.ndarray | None,
) -> np.ndarray:
    """Labels [m LABEL] of their own; motion that a mode leaves unused follows from the other."""
    around = near[..., 1]
    classes = (around == FIRST).sum(1) * 5 + (around == SECOND).sum(1)
    modes = coder.symbols(models.modes(depth), classes, None if given is None else given[:, 1])
    labels = np.zeros((len(near), LABEL), np.int64)
    labels[:, 1] = modes
    for reference, unused in enumerate((SECOND, FIRST)):
        here = np.flatnonzero(modes != unused)
        for axis in range(2):
            column = 2 + 2 * reference + axis
            ordered = np.sort(near[here, :, column], 1)
            expected = (ordered[:, 1] + ordered[:, 2]) >> 1
            spread = ordered[:, 3] - ordered[:, 0]
            kinds = np.searchsorted(_SPREADS, spread, side="right") + axis * (len(_SPREADS) + 1)
            part = None if given is None else given[here, column] - expected
            found = models.motion(depth).code(coder, kinds, part)
            labels[here, column] = np.clip(expected + found, -MAX_MOTION, MAX_MOTION)
    followed(labels, distances)
    return labels


def followed(labels: np.ndarray, distances: np.ndarray) -> None:
    """Sets motion that modes leave unused, as if motion were steady. labels [m LABEL]."""
    one, two = distances[:, :1], distances[:, 1:]
    first, second = labels[:, 1:2] == FIRST, labels[:, 1:2] == SECOND
    labels[:, 4:] = np.where(first, scaled(labels[:, 2:4], two, one), labels[:, 4:])
    labels[:, 2:4] = np.where(second, scaled(labels[:, 4:], one, two), labels[:, 2:4])
