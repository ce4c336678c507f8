"""How good a classifier is: accuracy, F1, confusion and calibration from logits.

Only numpy, and everything in float64: the functions run once per evaluation on numbers that
have left the device. `evaluate` returns plain Python values, so its result goes into a JSON
file as it is.

Every function takes `weights` [n], one non-negative number per clip (default: all 1). A clip of
weight 0, such as the padding that fills the last batch, does not count anywhere.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

CALIBRATION_BINS = 15
"""Equal-width bins of the calibration error, as in Guo et al. 2017."""

TOP_K = 5
"""Guesses that count for the wider accuracy, where there are as many classes."""


def log_softmax(logits: Array) -> Array:
    """Logarithm of the softmax over the last axis, safe for logits of any finite size.

    Args:
        logits: [..., k]; -inf marks a class that is ruled out.

    Returns:
        float64 [..., k].

    Raises:
        ValueError: a row holds NaN or +inf, or nothing but -inf.
    """
    logits = np.asarray(logits, np.float64)
    highest = logits.max(axis=-1, keepdims=True)
    if not np.isfinite(highest).all():  # max() passes NaN on
        row = int(np.flatnonzero(~np.isfinite(highest).reshape(-1))[0])
        raise ValueError(
            f"row {row} of the logits has the maximum {highest.reshape(-1)[row]}: the model has "
            "diverged, so lower the learning rate or clip the gradient"
        )
    with np.errstate(over="ignore"):  # a difference beyond float64 is -inf: probability 0
        shifted = logits - highest
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def softmax(logits: Array) -> Array:
    """Probabilities over the last axis, float64 [..., k]; the rules of `log_softmax`."""
    return np.exp(log_softmax(logits))


def top_k_correct(logits: Array, labels: Array, k: int) -> Array:
    """Whether the true class is among the k highest logits.

    Ties go to the class that comes first, as in argmax, so that a model that gives every class
    the same logit is not counted as right.

    Args:
        logits: [n, classes].
        labels: int [n].
        k: number of guesses, at least 1.

    Returns:
        bool [n].
    """
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    earlier = np.arange(logits.shape[1])[None, :] < labels[:, None]
    rank = ((logits > own) | ((logits == own) & earlier)).sum(axis=1)
    return rank < k


def confusion_matrix(
    labels: Array, predictions: Array, classes: int, weights: Array | None = None
) -> Array:
    """Weight of the clips of each (true class, predicted class), float64 [classes, classes].

    Rows are the truth and columns the prediction.
    """
    cells = np.asarray(labels) * classes + np.asarray(predictions)
    flat = np.bincount(cells, weights=weights, minlength=classes * classes)
    return flat.astype(np.float64).reshape(classes, classes)


def precision_recall_f1(confusion: Array) -> tuple[Array, Array, Array]:
    """Per-class precision, recall and F1 of a confusion matrix, each float64 [k].

    precision = TP / (TP + FP), recall = TP / (TP + FN), F1 = 2 TP / (2 TP + FP + FN). A quotient
    without a denominator is NaN: the precision of a class that was never predicted, the recall
    of one that never occurs, the F1 of one that does neither.
    """
    hits = np.diag(confusion)
    predicted, actual = confusion.sum(axis=0), confusion.sum(axis=1)
    return _divide(hits, predicted), _divide(hits, actual), _divide(2 * hits, predicted + actual)


def macro_f1(confusion: Array) -> float:
    """Unweighted mean of the F1 of the classes that occur or were predicted.

    This is scikit-learn's `f1_score(average="macro")` with its default labels: a class that is
    in neither the truth nor the predictions says nothing and is left out.
    """
    scores = precision_recall_f1(confusion)[2]
    return float(scores[~np.isnan(scores)].mean())


def calibration_table(
    confidence: Array, correct: Array, weights: Array | None = None, bins: int = CALIBRATION_BINS
) -> list[dict[str, float | None]]:
    """Confidence against accuracy in equal-width bins: the data of a reliability diagram.

    Bin m of M holds the confidences in ((m-1)/M, m/M]; a confidence of 0 goes to the first.

    Args:
        confidence: [n], probability of the predicted class.
        correct: bool [n].
        weights: [n] or None.
        bins: number of bins, M.

    Returns:
        One entry per bin: low, high (its edges), weight (of the clips in it), confidence and
        accuracy (their weighted means; None for an empty bin).
    """
    confidence = np.asarray(confidence, np.float64)
    weights = np.ones(len(confidence)) if weights is None else np.asarray(weights, np.float64)
    edges = np.arange(bins + 1) / bins
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    weight = np.bincount(place, weights, bins)
    means = [
        _divide(np.bincount(place, weights * value, bins), weight)
        for value in (confidence, np.asarray(correct, np.float64))
    ]
    return [
        {
            "low": float(edges[m]),
            "high": float(edges[m + 1]),
            "weight": float(weight[m]),
            "confidence": _number(means[0][m]),
            "accuracy": _number(means[1][m]),
        }
        for m in range(bins)
    ]


def expected_calibration_error(
    confidence: Array, correct: Array, weights: Array | None = None, bins: int = CALIBRATION_BINS
) -> float:
    """ECE: mean over the bins of |accuracy - confidence|, weighted by the clips in each.

    In [0, 1]; 0 is a model whose confidence is its accuracy. Guo, Pleiss, Sun, Weinberger, "On
    Calibration of Modern Neural Networks", ICML 2017, equation 3. Arguments as in
    `calibration_table`.
    """
    return _calibration_error(calibration_table(confidence, correct, weights, bins))


def evaluate(
    logits: Array, labels: Array, classes: Sequence[str], weights: Array | None = None
) -> dict[str, Any]:
    """Every figure that a run reports about one split.

    Args:
        logits: [n, k]. Probabilities averaged over several views of a clip go in as their
            logarithms.
        labels: int [n], each in [0, k).
        classes: the k class names.
        weights: [n] non-negative, None for all 1; a clip of weight 0 does not count and its
            logits and label are not looked at.

    Returns:
        Plain values:
        count: number of clips of positive weight.
        loss: mean cross-entropy in nats.
        top1, top5: accuracy of the first guess and of the first five.
        top5_k: the guesses that top5 allows: 5, or k where there are fewer classes (top5 is then
            always 1).
        macro_f1: see `macro_f1`.
        ece: see `expected_calibration_error`.
        per_class: per class {class, precision, recall, f1, support}; None for a quotient
            without a denominator (see `precision_recall_f1`).
        confusion: k rows (truth) of k numbers (prediction); integers where the weights are.
        calibration: see `calibration_table`.

    Raises:
        ValueError: shapes that do not fit, a label out of range, a weight that is negative or
            not finite, no clip of positive weight, or logits that are not finite.
    """
    logits, labels, weights = _checked(logits, labels, len(classes), weights)
    k = len(classes)
    log_probabilities = log_softmax(logits)
    predictions = logits.argmax(axis=1)
    correct = predictions == labels
    confusion = confusion_matrix(labels, predictions, k, weights)
    precision, recall, f1 = precision_recall_f1(confusion)
    support = confusion.sum(axis=1)
    calibration = calibration_table(np.exp(log_probabilities.max(axis=1)), correct, weights)
    top = min(TOP_K, k)

    def mean(values: Array) -> float:
        return float(np.average(values, weights=weights))

    return {
        "count": len(labels),
        "loss": mean(-np.take_along_axis(log_probabilities, labels[:, None], axis=1)[:, 0]),
        "top1": mean(correct),
        "top5": mean(top_k_correct(logits, labels, top)),
        "top5_k": top,
        "macro_f1": macro_f1(confusion),
        "ece": _calibration_error(calibration),
        "per_class": [
            {
                "class": name,
                "precision": _number(precision[i]),
                "recall": _number(recall[i]),
                "f1": _number(f1[i]),
                "support": _whole(support[i]),
            }
            for i, name in enumerate(classes)
        ],
        "confusion": [[_whole(cell) for cell in row] for row in confusion],
        "calibration": calibration,
    }


def _checked(
    logits: Array, labels: Array, classes: int, weights: Array | None
) -> tuple[Array, Array, Array]:
    """The arguments of `evaluate` as arrays, without the clips of weight 0."""
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)
    if logits.ndim != 2 or logits.shape[1] != classes:
        raise ValueError(f"logits have shape {logits.shape}: [clips, {classes} classes] is needed")
    if labels.shape != logits.shape[:1] or weights.shape != labels.shape:
        raise ValueError(
            f"{len(logits)} rows of logits, labels of shape {labels.shape} and weights of shape "
            f"{weights.shape} do not belong together: give one label and one weight per row"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels are {labels.dtype}: give class numbers as integers")
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError(
            "weights must be finite and not negative: 1 counts a clip, 0 leaves it out"
        )
    used = weights > 0
    if not used.any():
        raise ValueError("there is no clip of positive weight to evaluate: is the split empty?")
    logits, labels, weights = logits[used], labels[used].astype(np.int64), weights[used]
    if labels.min() < 0 or labels.max() >= classes:
        wrong = labels[(labels < 0) | (labels >= classes)][0]
        raise ValueError(f"label {wrong} is not in [0, {classes}): there are {classes} classes")
    return logits, labels, weights


def _divide(numerator: Array, denominator: Array) -> Array:
    """The quotient, NaN where the denominator is 0."""
    whole = np.full(np.shape(denominator), np.nan)
    return np.divide(numerator, denominator, out=whole, where=denominator > 0)


def _calibration_error(table: list[dict[str, float | None]]) -> float:
    """The weighted mean of |accuracy - confidence| over the bins of a `calibration_table`."""
    total, gap = 0.0, 0.0
    for entry in table:
        weight, confidence, accuracy = entry["weight"], entry["confidence"], entry["accuracy"]
        if weight and confidence is not None and accuracy is not None:
            total += weight
            gap += weight * abs(accuracy - confidence)
    return gap / total


def _number(value: float) -> float | None:
    """A plain float, None for NaN: JSON has no NaN."""
    return None if np.isnan(value) else float(value)


def _whole(value: float) -> int | float:
    """An int where the value is one: counts read better without a decimal point."""
    return int(value) if float(value).is_integer() else float(value)
