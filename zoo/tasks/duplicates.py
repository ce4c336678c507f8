"""Copies: parts of two videos that show the same, and how their times go together."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from zoo.tasks.index import Index


@dataclasses.dataclass(frozen=True)
class Copy:
    """A part of one video that is in another one too.

    Attributes:
      first, second: names of the videos.
      start, end: seconds of the part in the first.
      offset: seconds to add for the time in the second.
      score: mean likeness of the windows of the part.
    """

    first: str
    second: str
    start: float
    end: float
    offset: float
    score: float


def find(index: Index, threshold: float = 0.95, shortest: float = 0.0) -> Iterator[Copy]:
    """Every pair of videos of an index of which a part is a copy; the longest part of each pair.

    Windows of one video are compared with those of all later ones. A copy is a run of windows that
    are all alike by `threshold`, at one and the same offset in time.

    Args:
      index: with more than one window a video, if parts are to be found.
      threshold: likeness of copied windows.
      shortest: seconds that a part has to last.
    """
    names = list(index.entries)
    for place, first in enumerate(names):
        here = index.vectors(first)
        for second in names[place + 1 :]:
            likeness = here @ index.vectors(second).T
            best = _longest(likeness >= threshold)
            if best is None:
                continue
            row, column, length = best
            a, b = index.entries[first].times, index.entries[second].times
            start, end = a[row][0], a[row + length - 1][1]
            if end - start >= shortest:
                score = likeness[range(row, row + length), range(column, column + length)].mean()
                yield Copy(first, second, start, end, b[column][0] - start, float(score))


def _longest(alike: np.ndarray) -> tuple[int, int, int] | None:
    """First row, first column and length of the longest run of true values along a diagonal."""
    lengths = np.zeros(alike.shape, np.int64)
    for row in range(alike.shape[0]):
        lengths[row] = alike[row]
        if row:
            lengths[row, 1:] += alike[row, 1:] * lengths[row - 1, :-1]
    length = int(lengths.max(initial=0))
    if length == 0:
        return None
    row, column = np.argwhere(lengths == length)[0]
    return int(row) - length + 1, int(column) - length + 1, length
