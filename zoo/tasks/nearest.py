"""The rows most like a query, exactly, from a first look at one byte a number.

A product with every float32 is bound by reading them: 205 MB for 100,000 rows of 512. Rows rounded
to int8 are a quarter of that, and how much their rounding can change a product is known: at most
|q| |x - x'| + |q - q'| |x'| (Cauchy and Schwarz) for a query q and a row x rounded to q' and x'. So
every row has a lower and an upper bound; a row whose upper bound is below the k-th largest lower
bound is none of the best k, and the few rows that are left are multiplied in float32. Nothing is
missed, whatever the vectors.
"""

from collections.abc import Sequence

import numpy as np

# Rows that are rounded at a time, so that what is in between stays small.
_PIECE = 4096
# Of scores of vectors of length 1: what float32 itself may be wrong by.
_ROUNDING = 2e-6


class Grown:
    """An array that grows at its end without being copied each time."""

    def __init__(self, empty: np.ndarray) -> None:
        self.count = 0
        self._room = empty

    @property
    def all(self) -> np.ndarray:
        """Its rows so far."""
        return self._room[: self.count]

    def add(self, rows: np.ndarray) -> None:
        """Adds rows at the end."""
        needed = self.count + len(rows)
        if needed > len(self._room):
            shape = max(needed, 2 * len(self._room)), *self._room.shape[1:]
            room = np.empty(shape, self._room.dtype)
            room[: self.count] = self.all
            self._room = room
        self._room[self.count : needed] = rows
        self.count = needed


class Ranking:
    """Rows by their products with one query, as many of the best as are asked for."""

    def __init__(
        self, vectors: np.ndarray, query: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> None:
        """Each row of vectors [n d] times the query [d] lies between low [n] and high [n]."""
        self._vectors, self._query, self._low, self._high = vectors, query, low, high

    def best(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers and float32 products of the best rows, the best first; equal ones in order."""
        n = len(self._low)
        if not count:
            return np.zeros(0, int), np.zeros(0, np.float32)
        least = np.partition(self._low, n - count)[n - count]
        rows = np.flatnonzero(self._high >= least)
        if self._low is self._high:
            scores = self._low[rows]
        else:
            scores = np.where(np.isneginf(self._high[rows]), -np.inf,
                              self._vectors[rows] @ self._query)  # fmt: skip
        order = np.argsort(-scores, kind="stable")[:count]
        return rows[order], scores[order]


class Codes:
    """Rows rounded to int8, each in steps of its own, and what that changed."""

    def __init__(self, dimensions: int) -> None:
        self._codes = Grown(np.zeros((0, dimensions), np.int8))
        # Of each row: its step, the length of what rounding changed and that of the rounded row.
        self._about = Grown(np.zeros((0, 3), np.float32))

    def follow(self, vectors: np.ndarray) -> None:
        """Takes the rows [n d] that came since, at the end of those that it has."""
        for start in range(self._codes.count, len(vectors), _PIECE):
            rows = vectors[start : start + _PIECE]
            codes, step = _rounded(rows)
            near = codes * step[:, None]
            missed = np.linalg.norm(rows - near, axis=1)
            self._about.add(np.stack([step, missed, np.linalg.norm(near, axis=1)], axis=1))
            self._codes.add(codes)

    def ranking(self, vectors: np.ndarray, query: np.ndarray, hidden: np.ndarray) -> Ranking:
        """The ranking of the rows that `follow` saw, those that are hidden [n] the last."""
        import numkong

        (code,), (step,) = _rounded(query[None])
        products = np.asarray(numkong.cdist(self._codes.all, code[None], "dot")).reshape(-1)
        steps, missed, lengths = self._about.all.T
        middle = products.astype(np.float32) * (steps * step)
        size = float(np.linalg.norm(query))
        slack = missed * size + lengths * float(np.linalg.norm(query - code * step))
        slack += _ROUNDING * size * (lengths + missed)
        low, high = middle - slack, middle + slack
        low[hidden] = high[hidden] = -np.inf
        return Ranking(vectors, query, low, high)


def rankings(vectors: np.ndarray, queries: np.ndarray, hidden: np.ndarray) -> Sequence[Ranking]:
    """Of each query [q d] by one product with all rows, those that are hidden [n] the last."""
    scores = queries @ vectors.T
    scores[:, hidden] = -np.inf
    return [Ranking(vectors, query, row, row) for query, row in zip(queries, scores, strict=True)]


def _rounded(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows [n d] as int8 [n d] and the step [n] of each."""
    step = (np.abs(rows).max(axis=1) / 127).astype(np.float32)
    codes = np.rint(rows / np.maximum(step, np.float32(1e-30))[:, None])
    return np.clip(codes, -127, 127).astype(np.int8), step
