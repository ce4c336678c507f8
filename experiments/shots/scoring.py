"""How well boundaries are found: one-to-one matches within a tolerance, separately by kind."""

import dataclasses
from collections.abc import Sequence

import numpy as np

# Frames by which a boundary that is found may lie outside the true one.
TOLERANCE = 2


@dataclasses.dataclass(frozen=True)
class Score:
    """Counts over any number of sequences.

    Attributes:
      found: true boundaries of each kind that were found.
      missed: and that were not.
      false: boundaries that match no true one.
    """

    found: dict[str, int]
    missed: dict[str, int]
    false: int

    def __add__(self, other: "Score") -> "Score":
        def add(a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
            return {kind: a.get(kind, 0) + b.get(kind, 0) for kind in {**a, **b}}

        return Score(
            add(self.found, other.found), add(self.missed, other.missed), self.false + other.false
        )

    def f1(self, kind: str | None = None) -> float:
        """F1 of one kind or of both; false ones count in full for each kind."""
        kinds = [kind] if kind else list({**self.found, **self.missed})
        found = sum(self.found.get(name, 0) for name in kinds)
        missed = sum(self.missed.get(name, 0) for name in kinds)
        total = 2 * found + missed + self.false
        return 2 * found / total if total else 1.0


def score(truth: Sequence[tuple[str, int, int]], found: Sequence[tuple[int, int]]) -> Score:
    """Counts for one sequence.

    Detectors that do not tell kinds apart are judged by the same rule: a boundary that is found,
    whatever it is called, matches the true one that it overlaps within the tolerance, each at most
    once, and of several the nearest.

    Args:
      truth: kind, first and last frame of each true boundary.
      found: first and last frame of each boundary that was found.
    """
    pairs = []
    for t, (_, first, last) in enumerate(truth):
        for f, (begin, end) in enumerate(found):
            if begin <= last + TOLERANCE and end >= first - TOLERANCE:
                pairs.append((abs(first + last - begin - end), t, f))
    taken_truth: set[int] = set()
    taken_found: set[int] = set()
    for _, t, f in sorted(pairs):
        if t not in taken_truth and f not in taken_found:
            taken_truth.add(t)
            taken_found.add(f)
    hit = {"cut": 0, "gradual": 0}
    miss = {"cut": 0, "gradual": 0}
    for t, (kind, _, _) in enumerate(truth):
        (hit if t in taken_truth else miss)[kind] += 1
    return Score(hit, miss, len(found) - len(taken_found))


def truth_of(cuts: np.ndarray, gradual: np.ndarray) -> list[tuple[str, int, int]]:
    """The boundaries that flags of frames stand for."""
    result = [("cut", int(k), int(k)) for k in np.flatnonzero(cuts)]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], gradual, [0]])))
    result += [("gradual", int(a), int(b) - 1) for a, b in edges.reshape(-1, 2)]
    return sorted(result, key=lambda boundary: boundary[1])
