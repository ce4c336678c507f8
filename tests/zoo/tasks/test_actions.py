"""Segments from scores, change points, spatial and temporal information."""

import itertools
import json

import numpy as np
import pytest
from scipy import ndimage

from zoo import video
from zoo.tasks import actions, changes, complexity, engine
from zoo.tasks.engine import Part

SPANS = np.stack([np.arange(10), np.arange(10) + 1], 1).astype(float)


def found(columns, **rule):
    scores = np.array(columns).T
    names = [f"c{k}" for k in range(scores.shape[1])]
    result = actions.segments(scores, SPANS[: len(scores)], names, actions.Rule(**rule))
    return [(s.start, s.end, s.name, round(s.score, 3)) for s in result]


def test_hysteresis_gaps_and_length():
    row = [0.1, 0.4, 0.6, 0.4, 0.2, 0.4, 0.1, 0.9, 0.1, 0.35]
    assert found([row]) == [(1, 4, "c0", 0.467), (7, 8, "c0", 0.9)]
    assert found([row], gap=1) == [(1, 10, "c0", round(sum(row[1:]) / 9, 3))]
    assert found([row], shortest=2) == [(1, 4, "c0", 0.467)]
    assert found([row], high=0.95) == []


def test_of_segments_that_overlap_the_better_one_stays():
    one, other = [0.9] * 6 + [0] * 4, [0.0] + [0.6] * 5 + [0] * 4
    assert found([one, other]) == [(0, 6, "c0", 0.9)]
    later = [0.0] * 5 + [0.6] * 5
    assert [s[2] for s in found([one, later])] == ["c0", "c1"]
    with pytest.raises(ValueError, match=r"low 0\.6 and high 0\.5"):
        actions.Rule(low=0.6)


def cost(x, starts):
    edges = [0, *starts, len(x)]
    return sum(((x[a:b] - x[a:b].mean(0)) ** 2).sum() for a, b in itertools.pairwise(edges))


@pytest.mark.parametrize("seed", range(4))
def test_change_points_are_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (11, 2)) + 4 * rng.integers(0, 2, (11, 1))
    places = changes.find(x, penalty=6.0, shortest=2)
    every = [
        starts
        for count in range(4)
        for starts in itertools.combinations(range(2, 10), count)
        if all(b - a >= 2 for a, b in itertools.pairwise((0, *starts, 11)))
    ]
    best = min(every, key=lambda starts: cost(x, starts) + 6.0 * len(starts))
    assert cost(x, places) + 6.0 * len(places) <= cost(x, best) + 6.0 * len(best) + 1e-9


def test_change_points_by_the_noise():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, (300, 16))
    assert changes.find(noise) == []
    assert changes.find(np.zeros((50, 4))) == [] and changes.find(noise[:3]) == []
    levels = np.repeat(3 * rng.normal(0, 1, (3, 16)), 100, axis=0)
    assert changes.find(levels + noise) == [100, 200]
    with pytest.raises(ValueError, match="not finite"):
        changes.find(np.full((5, 2), np.nan))


def test_complexity_is_that_of_the_recommendation(tmp_path):
    """Against Sobel filters of scipy on the frames that the decoder gives, over window borders."""
    rng = np.random.default_rng(0)
    frames = ndimage.gaussian_filter(rng.uniform(0, 255, (35, 36, 48)), (2, 1, 1))
    path = tmp_path / "a.mkv"
    video.encode(np.repeat(frames[..., None], 3, -1).astype(np.uint8), path, fps=25)
    (outcome,) = engine.run([path], [complexity.MeasureComplexity()])
    luma = video.decode(path, pixels="gray").frames[..., 0].astype(float)
    slopes = [np.hypot(ndimage.sobel(frame, 0), ndimage.sobel(frame, 1)) for frame in luma]
    steep = np.stack(slopes)[:, 1:-1, 1:-1].std((1, 2))
    change = np.diff(luma, axis=0).std((1, 2))
    changes = np.concatenate([[0.0], change])  # Of 35 frames, each is a part of its own.
    expected = complexity.Complexity(
        steep.max(), change.max(), steep.mean(), change.mean(),
        tuple(np.arange(35) / 25), tuple(steep), tuple(changes),
    )  # fmt: skip
    for name, value in vars(outcome.results["complexity"]).items():
        assert value == pytest.approx(getattr(expected, name), rel=1e-4)
    task = complexity.MeasureComplexity()
    values = rng.random((2, 1000))
    kept = task.result([Part(0, 40, complexity._Frames(0, np.arange(1000) / 25, *values))])
    assert len(kept.times) == 200 and kept.times[1] == 5 / 25
    assert max(kept.si_over_time) == kept.si and max(kept.ti_over_time) == kept.ti
    assert complexity.Complexity.from_json(json.loads(json.dumps(vars(kept)))) == kept
