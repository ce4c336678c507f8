"""From probabilities for each frame to boundaries between shots."""

import dataclasses

import numpy as np

# Runs of gradual frames this close are one transition; shorter runs are none.
_GAP = 2
_SHORTEST = 3


@dataclasses.dataclass(frozen=True)
class Boundary:
    """Where one shot ends and another begins.

    Attributes:
      kind: "cut" or "gradual".
      first, last: numbers of the frames of the transition; of a cut, both are the number of the
        first frame of the new shot.
      score: the probability of its surest frame.
    """

    kind: str
    first: int
    last: int
    score: float


def find(probabilities: np.ndarray, cut: float, gradual: float) -> list[Boundary]:
    """Boundaries in the order of time.

    A cut is the surest frame among neighbours that reach the threshold. A gradual transition is a
    run of frames that reach theirs. A cut inside such a run, or right at its edge, belongs to it.

    Args:
      probabilities: [t 2], that a cut lies right before a frame and that it is in a transition.
      cut, gradual: the thresholds.
    """
    runs = [
        Boundary("gradual", first, last, float(probabilities[first : last + 1, 1].max()))
        for first, last in _runs(probabilities[:, 1] >= gradual, _GAP)
        if last - first + 1 >= _SHORTEST
    ]
    cuts = []
    for first, last in _runs(probabilities[:, 0] >= cut, 1):
        place = first + int(probabilities[first : last + 1, 0].argmax())
        if not any(run.first - 1 <= place <= run.last + 1 for run in runs):
            cuts.append(Boundary("cut", place, place, float(probabilities[place, 0])))
    return sorted(runs + cuts, key=lambda boundary: boundary.first)


def _runs(flags: np.ndarray, gap: int) -> list[tuple[int, int]]:
    """First and last places of runs of true values; gaps of up to `gap` false ones are filled."""
    result: list[tuple[int, int]] = []
    for place in np.flatnonzero(flags).tolist():
        if result and place - result[-1][1] <= gap + 1:
            result[-1] = result[-1][0], place
        else:
            result.append((place, place))
    return result
