"""Recognition from a handful of examples a name: nearest mean or linear probe, and "none of these".

Both are closed formulas on embeddings, so that a new action is taught in a moment. The linear probe
is ridge regression onto the names (least squares, Rifkin and Klautau 2004), its strength chosen by
the leave-one-out predictions, which ridge regression gives without fitting again.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

Method = Literal["mean", "probe"]
UNKNOWN = ""
_STRENGTHS = tuple(10.0**power for power in range(-4, 3))


@dataclasses.dataclass(frozen=True)
class Names:
    """What was learned from examples.

    Attributes:
      names: those that can be recognised, sorted.
      threshold: score below which a video is none of them.
      accepted, rejected: of the examples, each left out in turn: the share that passed the
        threshold under its own name left in, and that was refused with its name left out.
      weights: float32 [names d].
      middle: float32 [d], subtracted from embeddings first.
      offsets: float32 [names], added to the scores.
    """

    names: tuple[str, ...]
    threshold: float
    accepted: float
    rejected: float
    weights: np.ndarray
    middle: np.ndarray
    offsets: np.ndarray

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """Of each name [q names], for embeddings [q d] of length 1."""
        return _scores(embeddings, self.weights, self.middle, self.offsets)

    def best(self, embeddings: np.ndarray) -> list[tuple[str, float]]:
        """The best name and its score for each embedding; the name "" where none is good enough."""
        scores = self.scores(embeddings)
        best = scores.argmax(axis=1)
        return [
            (self.names[k] if row[k] >= self.threshold else UNKNOWN, float(row[k]))
            for k, row in zip(best, scores, strict=True)
        ]


def teach(embeddings: np.ndarray, labels: Sequence[str], method: Method = "mean") -> Names:
    """Learns names from examples, and the threshold from leaving names out.

    The threshold is the one of all that tells best, on average over both kinds, examples whose
    name is taught (the example itself left out) from examples whose name is not (all of the name
    left out). With fewer than three names, nothing is refused.

    Args:
      embeddings: [n d] of length 1.
      labels: the name of each.
      method: "mean", cosine to the nearest mean of a name, or "probe", a linear classifier.

    Raises:
      ValueError: fewer than two names, or an example that is no number.
    """
    names = tuple(sorted(set(labels)))
    if len(names) < 2:
        raise ValueError(
            f"examples of {', '.join(map(repr, names)) or 'nothing'} are not enough; teach at "
            "least two names"
        )
    if not np.isfinite(embeddings).all():
        raise ValueError("an embedding is not finite; leave that video out")
    targets = np.array([names.index(label) for label in labels])
    x = embeddings.astype(np.float64)
    strength = _strength(x, targets, len(names)) if method == "probe" else 0.0
    threshold, accepted, rejected = -np.inf, 1.0, 0.0
    if len(names) > 2:
        known, unknown = (
            _known(x, targets, method, strength),
            _unknown(x, targets, method, strength),
        )
        if len(known):
            threshold, accepted, rejected = _threshold(known, unknown)
    weights, middle, offsets = _fit(x, targets, len(names), method, strength)
    return Names(
        names, threshold, accepted, rejected,
        weights.astype(np.float32), middle.astype(np.float32), offsets.astype(np.float32),
    )  # fmt: skip


def _scores(
    x: np.ndarray, weights: np.ndarray, middle: np.ndarray, offsets: np.ndarray
) -> np.ndarray:
    centred = x - middle
    if not offsets.any():  # Nearest mean: cosines.
        centred = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    return centred @ weights.T + offsets


def _fit(
    x: np.ndarray, targets: np.ndarray, names: int, method: Method, strength: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, middle and offsets."""
    middle = x.mean(axis=0)
    centred = x - middle
    hot = np.eye(names)[targets]
    if method == "probe":
        offsets = hot.mean(axis=0)
        # The dual form: there are fewer examples than dimensions.
        kernel = centred @ centred.T + strength * np.eye(len(x))
        return np.linalg.solve(kernel, hot - offsets).T @ centred, middle, offsets
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    means = (hot.T @ centred) / np.maximum(hot.sum(axis=0), 1)[:, None]
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    return means, middle, np.zeros(names)


def _strength(x: np.ndarray, targets: np.ndarray, names: int) -> float:
    """The ridge that predicts left-out examples best."""
    centred = x - x.mean(axis=0)
    scale = (centred**2).sum() / len(x) or 1.0
    hot = np.eye(names)[targets]
    errors = [(left_out(x, hot, factor * scale) ** 2).mean() for factor in _STRENGTHS]
    return _STRENGTHS[int(np.argmin(errors))] * scale


def left_out(x: np.ndarray, y: np.ndarray, strength: float) -> np.ndarray:
    """What ridge regression with a free offset misses of each row of y that it is fitted without.

    x is [n d], y [n k]; the result [n k] equals fitting n times, one row left out each time.
    """
    centred = x - x.mean(axis=0)
    rest = strength * np.linalg.inv(centred @ centred.T + strength * np.eye(len(x)))
    return (rest @ (y - y.mean(axis=0))) / (np.diag(rest) - 1 / len(x))[:, None]


def _known(x: np.ndarray, targets: np.ndarray, method: Method, strength: float) -> np.ndarray:
    """Best scores of examples that are left out, where others have their name."""
    result = []
    for k, target in enumerate(targets):
        rest = np.arange(len(x)) != k
        if (targets[rest] == target).any():
            fitted = _fit(x[rest], targets[rest], targets.max() + 1, method, strength)
            result.append(_scores(x[k : k + 1], *fitted).max())
    return np.array(result)


def _unknown(x: np.ndarray, targets: np.ndarray, method: Method, strength: float) -> np.ndarray:
    """Best scores of examples whose whole name is left out."""
    result = []
    for name in np.unique(targets):
        rest = targets != name
        places = np.unique(targets[rest], return_inverse=True)[1]
        fitted = _fit(x[rest], places, places.max() + 1, method, strength)
        result += _scores(x[~rest], *fitted).max(axis=1).tolist()
    return np.array(result)


def _threshold(known: np.ndarray, unknown: np.ndarray) -> tuple[float, float, float]:
    """The threshold with the best mean of both shares, and the shares."""
    values = np.unique(np.concatenate([known, unknown]))
    middles = np.concatenate([[values[0] - 1e-6], (values[1:] + values[:-1]) / 2])
    accepted = np.array([(known >= t).mean() for t in middles])
    rejected = np.array([(unknown < t).mean() for t in middles])
    best = int(np.argmax(accepted + rejected))
    return float(middles[best]), float(accepted[best]), float(rejected[best])
