"""Composed sequences say where their boundaries are; the rule that methods are judged by."""

import json

import numpy as np
import pytest

from experiments.shots import compose, scoring, train
from zoo.tasks.shots import model
from zoo.weights import load


def plain(value: int, frames: int) -> np.ndarray:
    return np.full((frames, 27, 48, 3), value, np.uint8)


@pytest.mark.parametrize("seed", range(6))
def test_labels_are_where_frames_change(seed):
    """Shots of one colour each: frames in transition, and no others, are of neither colour."""
    values = [20, 90, 160, 230, 60, 130, 200]
    rng = np.random.default_rng(seed)
    composed = compose.splice(rng, iter([plain(v, 60) for v in values]), 300)
    frames = composed.frames.reshape(len(composed.frames), -1)
    pure = np.array([len(set(row.tolist())) == 1 and row[0] in values for row in frames])
    assert pure[composed.gradual == 0].all()
    changes = np.flatnonzero(np.diff(frames.mean(1)) != 0) + 1
    quiet = [k for k in changes if not (composed.gradual[k] or composed.gradual[k - 1])]
    assert quiet == np.flatnonzero(composed.cuts).tolist()
    assert not (composed.cuts * composed.gradual).any()


def test_sequences_are_repeatable_and_differ():
    clips = [np.random.default_rng(0).integers(0, 256, (30, 54, 96, 3)).astype(np.uint8)]
    one, same, other = (compose.compose(np.random.default_rng(k), clips, 96) for k in (1, 1, 2))
    assert one.frames.shape == (96, 27, 48, 3) and one.frames.dtype == np.uint8
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not np.array_equal(one.frames, other.frames)


def test_score():
    truth = [("cut", 10, 10), ("gradual", 30, 40), ("cut", 60, 60)]
    perfect = scoring.score(truth, [(10, 10), (32, 36), (60, 60)])
    assert perfect.f1() == perfect.f1("cut") == perfect.f1("gradual") == 1
    assert scoring.score(truth, [(12, 12)]).found == {"cut": 1, "gradual": 0}
    assert scoring.score(truth, [(13, 13)]).false == 1
    # Each true boundary counts once, and each found one too.
    twice = scoring.score(truth, [(10, 10), (11, 11), (25, 65)])
    assert twice.false == 1 and sum(twice.found.values()) == 2
    both = perfect + twice
    assert both.f1() == pytest.approx(2 * 5 / (2 * 5 + 1 + 1))


def test_truth_of_flags():
    cuts, gradual = np.zeros(20), np.zeros(20)
    cuts[3] = 1
    gradual[8:12] = 1
    assert scoring.truth_of(cuts, gradual) == [("cut", 3, 3), ("gradual", 8, 11)]


@pytest.mark.slow
def test_training_finds_boundaries():
    config = train.Config(train=12, val=4, frames=128, epochs=40, batch=4)
    data = train.dataset(config, [], config.train, 0)
    variables = train.fit(config, data)
    _, total = train.choose(train.probabilities(config, variables, data), data)
    assert total.f1() > 0.8


def test_shipped_weights_are_of_the_configuration():
    """The file, its digest in the code, its configuration and its card belong together."""
    _, record = load.read(model.WEIGHTS, model.SHA256)
    assert record["config"] == json.loads(json.dumps(train.CONFIGS["shots"].__dict__))
    card = model.WEIGHTS.with_suffix(".md").read_text("utf-8")
    assert model.SHA256 in card
    for value in (*record["results"].values(), *record["thresholds"].values()):
        assert f"{value:g}" in card
