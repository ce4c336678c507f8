"""Metrics: hand-computed values, properties that hold for any input, and refusals."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import metrics

NAMES = ("circle", "square", "star")


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Random logits without ties, labels and class names."""
    clips, classes = draw(st.integers(1, 40)), draw(st.integers(2, 12))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from((0.1, 3.0, 100.0)))
    logits = generator.normal(0, scale, (clips, classes))
    return logits, generator.integers(0, classes, clips), tuple(map(str, range(classes)))


def test_hand_computed() -> None:
    """Six clips of three classes, every figure worked out on paper."""
    # Truth 0 0 0 1 1 2, prediction 0 0 1 1 1 0.
    chosen = [0, 0, 1, 1, 1, 0]
    logits = np.zeros((6, 3))
    logits[np.arange(6), chosen] = math.log(2)  # probabilities 1/2, 1/4, 1/4
    result = metrics.evaluate(logits, np.array([0, 0, 0, 1, 1, 2]), NAMES)
    assert result["confusion"] == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert result["count"] == 6
    assert result["top1"] == pytest.approx(4 / 6)
    assert (result["top5"], result["top5_k"]) == (1.0, 3)
    assert result["loss"] == pytest.approx((4 * math.log(2) + 2 * math.log(4)) / 6)
    assert result["ece"] == pytest.approx(4 / 6 - 1 / 2)  # all confidences are 1/2
    circle, square, star = result["per_class"]
    assert circle == {
        "class": "circle",
        "precision": pytest.approx(2 / 3),
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(2 / 3),
        "support": 3,
    }
    assert (square["precision"], square["recall"]) == (pytest.approx(2 / 3), 1.0)
    assert square["f1"] == pytest.approx(4 / 5)
    assert (star["precision"], star["recall"], star["f1"]) == (None, 0.0, 0.0)
    assert result["macro_f1"] == pytest.approx((2 / 3 + 4 / 5 + 0) / 3)


def test_wider_accuracy_counts_five_guesses() -> None:
    """The true class has rank 1, 5 and 6 in turn; only the last is outside the first five."""
    logits = np.tile(np.arange(10.0)[::-1], (3, 1))
    result = metrics.evaluate(logits, np.array([0, 4, 5]), tuple("abcdefghij"))
    assert result["top5_k"] == 5
    assert (result["top1"], result["top5"]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))


def test_ties_are_not_right_by_chance() -> None:
    """A model that says the same of every class guesses the first, as argmax does."""
    result = metrics.evaluate(np.zeros((10, 10)), np.arange(10), tuple("abcdefghij"))
    assert (result["top1"], result["top5"]) == (pytest.approx(0.1), pytest.approx(0.5))


def test_absent_class_is_left_out_of_macro_f1() -> None:
    """As scikit-learn's default labels: classes in neither truth nor prediction do not count."""
    logits = np.array([[9.0, 0, 0], [0, 9, 0]])
    result = metrics.evaluate(logits, np.array([0, 1]), NAMES)
    assert result["macro_f1"] == 1.0
    star = result["per_class"][2]
    assert star == {"class": "star", "precision": None, "recall": None, "f1": None, "support": 0}


def test_calibration_bins_are_open_below_and_closed_above() -> None:
    """Guo et al. 2017: bin m of M holds ((m-1)/M, m/M]; 0 has nowhere else to go but the first."""
    confidence = np.array([0.0, 0.5, 0.5 + 1e-12, 1.0])
    table = metrics.calibration_table(confidence, np.array([0, 1, 0, 1]), bins=2)
    assert [entry["weight"] for entry in table] == [2.0, 2.0]
    assert [entry["accuracy"] for entry in table] == [0.5, 0.5]
    every_edge = np.arange(1, 16) / 15
    table = metrics.calibration_table(every_edge, np.ones(15))
    assert [entry["weight"] for entry in table] == [1.0] * 15


def test_calibration_error_by_hand() -> None:
    """Two bins: 3 clips at 0.9 of which 2 are right, 1 clip at 0.3 that is right."""
    confidence, correct = np.array([0.9, 0.9, 0.9, 0.3]), np.array([1, 1, 0, 1])
    expected = 3 / 4 * abs(2 / 3 - 0.9) + 1 / 4 * abs(1 - 0.3)
    assert metrics.expected_calibration_error(confidence, correct) == pytest.approx(expected)


def test_overconfident_model_is_badly_calibrated() -> None:
    """Certain and always wrong is the worst there is: an error of 1."""
    result = metrics.evaluate(np.array([[1000.0, 0], [1000, 0]]), np.array([1, 1]), ("a", "b"))
    assert result["ece"] == pytest.approx(1.0)
    assert result["loss"] == pytest.approx(1000.0)
    assert result["top1"] == 0.0


def test_softmax_survives_any_finite_logit() -> None:
    """No overflow, no NaN, and ruled-out classes get probability 0."""
    with np.errstate(all="raise", under="ignore"):
        extreme = metrics.softmax(np.array([[1e308, -1e308, 0.0], [-1e308] * 3]))
    assert extreme[0].tolist() == [1.0, 0.0, 0.0]
    assert extreme[1] == pytest.approx([1 / 3] * 3)
    assert metrics.softmax(np.array([0.0, -np.inf])).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_softmax_refuses_what_is_not_a_number(bad: float) -> None:
    with pytest.raises(ValueError, match=r"row 1 of the logits.*diverged"):
        metrics.softmax(np.array([[0.0, 0], [bad, 0]]))


@given(problems())
def test_perfect_predictor(problem: tuple) -> None:
    """Logits that name the true class get every figure right."""
    _, labels, names = problem
    result = metrics.evaluate(np.eye(len(names))[labels] * 1e4, labels, names)
    assert result["top1"] == result["top5"] == result["macro_f1"] == 1.0
    assert result["loss"] == pytest.approx(0) and result["ece"] == pytest.approx(0)


@given(problems())
def test_figures_agree_with_each_other(problem: tuple) -> None:
    """Bounds, sums and the identities between accuracy, confusion, recall and precision."""
    logits, labels, names = problem
    result = metrics.evaluate(logits, labels, names)
    confusion = np.array(result["confusion"])
    assert confusion.sum() == len(labels)
    assert result["top1"] == pytest.approx(np.trace(confusion) / len(labels))
    assert 0 <= result["top1"] <= result["top5"] <= 1
    assert 0 <= result["macro_f1"] <= 1 and result["loss"] >= 0
    # The error of the bins' means is never below that of the whole and never above 1.
    confidence = metrics.softmax(logits).max(axis=1).mean()
    assert abs(confidence - result["top1"]) - 1e-9 <= result["ece"] <= 1
    supports = [entry["support"] for entry in result["per_class"]]
    assert supports == np.bincount(labels, minlength=len(names)).tolist()
    recalls = [(e["recall"] or 0) * e["support"] for e in result["per_class"]]
    assert sum(recalls) == pytest.approx(np.trace(confusion))
    for entry in result["per_class"]:
        if entry["precision"] and entry["recall"]:
            harmonic = 2 / (1 / entry["precision"] + 1 / entry["recall"])
            assert entry["f1"] == pytest.approx(harmonic)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


@given(problems(), st.randoms(use_true_random=False))
def test_order_does_not_matter(problem: tuple, shuffler: object) -> None:
    """The order of the clips changes nothing; renaming the classes moves only their rows."""
    logits, labels, names = problem
    clips, classes = list(range(len(labels))), list(range(len(names)))
    shuffler.shuffle(clips)  # pyright: ignore[reportAttributeAccessIssue]
    shuffler.shuffle(classes)  # pyright: ignore[reportAttributeAccessIssue]
    plain = metrics.evaluate(logits, labels, names)
    moved = metrics.evaluate(
        logits[clips][:, classes],
        np.argsort(classes)[labels[clips]],
        tuple(names[i] for i in classes),
    )
    for name in ("loss", "top1", "top5", "macro_f1", "ece"):
        assert moved[name] == pytest.approx(plain[name]), name
    assert moved["confusion"] == np.array(plain["confusion"])[np.ix_(classes, classes)].tolist()


@given(problems(), st.integers(1, 7))
def test_padding_does_not_count(problem: tuple, padding: int) -> None:
    """Clips of weight 0 change nothing, whatever their logits and labels hold."""
    logits, labels, names = problem
    padded = metrics.evaluate(
        np.concatenate([logits, np.full((padding, len(names)), np.nan)]),
        np.concatenate([labels, np.full(padding, -1)]),
        names,
        weights=np.repeat([1.0, 0.0], [len(labels), padding]),
    )
    assert padded == metrics.evaluate(logits, labels, names)


@given(problems())
def test_weight_two_is_the_clip_twice(problem: tuple) -> None:
    logits, labels, names = problem
    twice = metrics.evaluate(np.repeat(logits, 2, axis=0), np.repeat(labels, 2), names)
    heavy = metrics.evaluate(logits, labels, names, weights=np.full(len(labels), 2.0))
    assert heavy["confusion"] == twice["confusion"]
    for name in ("loss", "top1", "top5", "macro_f1", "ece"):
        assert heavy[name] == pytest.approx(twice[name]), name


@pytest.mark.parametrize(
    ("logits", "labels", "weights", "message"),
    [
        (np.zeros((2, 4)), [0, 1], None, r"shape \(2, 4\).*3 classes"),
        (np.zeros((2, 3)), [0], None, r"labels of shape \(1,\)"),
        (np.zeros((2, 3)), [0, 1], [1.0], r"weights of shape \(1,\)"),
        (np.zeros((2, 3)), [0, 3], None, r"label 3 is not in \[0, 3\)"),
        (np.zeros((2, 3)), [0, -1], None, "label -1"),
        (np.zeros((2, 3)), [0.0, 1.0], None, "labels are float64"),
        (np.zeros((2, 3)), [0, 1], [1.0, -1.0], "not negative"),
        (np.zeros((2, 3)), [0, 1], [0.0, 0.0], "split empty"),
        (np.zeros((0, 3)), np.zeros(0, int), None, "split empty"),
    ],
)
def test_refusals_say_what_is_wrong(logits, labels, weights, message) -> None:
    weights = None if weights is None else np.array(weights)
    with pytest.raises(ValueError, match=message):
        metrics.evaluate(logits, np.array(labels), NAMES, weights)
