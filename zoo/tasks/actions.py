"""Actions in time: when each begins and ends by the scores of windows, and change points."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from zoo.tasks import changes
from zoo.tasks.classify import Classify
from zoo.tasks.engine import Part
from zoo.weights.pretrained import Pretrained


@dataclasses.dataclass(frozen=True)
class Segment:
    """From `start` to `end`, in seconds, `name` is seen; `score` is its mean probability there."""

    start: float
    end: float
    name: str
    score: float


@dataclasses.dataclass(frozen=True)
class Actions:
    """Of a video.

    Attributes:
      segments: in the order of time; they may overlap a little.
      changes: seconds at which the classes' probabilities go from one level to another.
    """

    segments: tuple[Segment, ...]
    changes: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Rule:
    """What counts as a segment.

    Attributes:
      high: a segment has a window of at least this probability.
      low: and goes on while windows have at least this one (hysteresis).
      gap: seconds below `low` that do not end it.
      shortest: seconds that it lasts at least.
      overlap: of two segments that share more than this part of their union, the better one stays
        (non-maximum suppression).
    """

    high: float = 0.5
    low: float = 0.3
    gap: float = 0.0
    shortest: float = 0.0
    overlap: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(
                f"Rule has low {self.low} and high {self.high}; give 0 <= low <= high <= 1"
            )
        if self.gap < 0 or self.shortest < 0 or not 0 <= self.overlap <= 1:
            raise ValueError(
                f"Rule has gap {self.gap}, shortest {self.shortest} and overlap {self.overlap}; "
                "give seconds of at least 0, and a part from 0 to 1"
            )


class FindActions(Classify):
    """The task: windows through a classifier, and when each class is seen.

    `FindActions(zoo.load_pretrained("x3d_s.k400"), every=1.0)` goes to `zoo.tasks.engine.run`.
    """

    name = "actions"

    def __init__(
        self,
        pretrained: Pretrained,
        *,
        rule: Rule | None = None,
        seconds: float = 2.0,
        every: float | None = None,
        batch: int = 8,
    ) -> None:
        """See `zoo.tasks.classify.Classify`."""
        super().__init__(pretrained, seconds=seconds, every=every, batch=batch)
        self.rule = rule or Rule()

    def result(self, parts: Sequence[Part[np.ndarray]]) -> Actions:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Segments and change points of a video's windows."""
        scores = np.stack([part.value for part in parts])
        spans = np.array([(part.start, part.end) for part in parts])
        # Of the roots, distances are those of Hellinger: small probabilities count too.
        places = changes.find(np.sqrt(np.maximum(scores, 0)))
        times = tuple(float((spans[k - 1].mean() + spans[k].mean()) / 2) for k in places)
        return Actions(tuple(segments(scores, spans, self.classes, self.rule)), times)


def segments(
    scores: np.ndarray, spans: np.ndarray, names: Sequence[str], rule: Rule
) -> list[Segment]:
    """Segments in the order of time.

    Args:
      scores: [n c], of each window and class.
      spans: [n 2], seconds of each window, in the order of time.
      names: of the classes.
      rule: what counts.
    """
    found = []
    for column in np.flatnonzero(scores.max(axis=0) >= rule.high).tolist():
        runs: list[tuple[int, int]] = []
        for place in np.flatnonzero(scores[:, column] >= rule.low).tolist():
            near = runs and (
                place == runs[-1][1] + 1 or spans[place, 0] - spans[runs[-1][1], 1] <= rule.gap
            )
            if near:
                runs[-1] = runs[-1][0], place
            else:
                runs.append((place, place))
        for first, last in runs:
            inside = scores[first : last + 1, column]
            start, end = float(spans[first, 0]), float(spans[last, 1])
            if inside.max() >= rule.high and end - start >= rule.shortest:
                found.append(Segment(start, end, names[column], float(inside.mean())))
    kept: list[Segment] = []
    for segment in sorted(found, key=lambda item: -item.score):
        if all(_shared(segment, other) <= rule.overlap for other in kept):
            kept.append(segment)
    return sorted(kept, key=lambda item: (item.start, item.end))


def _shared(one: Segment, other: Segment) -> float:
    """Intersection over union."""
    both = min(one.end, other.end) - max(one.start, other.start)
    whole = max(one.end, other.end) - min(one.start, other.start)
    return max(both, 0.0) / whole if whole > 0 else 1.0
