"""Boundaries from probabilities, signals, windows that overlap."""

import jax
import numpy as np
import pytest
from scipy import ndimage

from zoo.tasks import analyze
from zoo.tasks.shots import boundaries, signals
from zoo.tasks.shots.model import Seen, ShotModel


def probabilities(frames: int, cuts=(), gradual=()):
    rows = np.zeros((frames, 2))
    for place, value in cuts:
        rows[place, 0] = value
    for first, last in gradual:
        rows[first : last + 1, 1] = 0.9
    return rows


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (probabilities(30), []),
        (probabilities(30, [(7, 0.9)]), [("cut", 7, 7)]),
        (probabilities(30, [(7, 0.6), (8, 0.9), (9, 0.7)]), [("cut", 8, 8)]),
        (probabilities(30, [(0, 0.9), (20, 0.6)]), [("cut", 0, 0), ("cut", 20, 20)]),
        (probabilities(30, [], [(5, 9)]), [("gradual", 5, 9)]),
        (probabilities(30, [], [(5, 9), (12, 14)]), [("gradual", 5, 14)]),
        (probabilities(30, [], [(5, 6)]), []),
        (probabilities(30, [(4, 0.9), (7, 0.9), (12, 0.9)], [(5, 9)]),
         [("gradual", 5, 9), ("cut", 12, 12)]),
    ],
)  # fmt: skip
def test_boundaries(rows, expected):
    found = boundaries.find(rows, 0.5, 0.5)
    assert [(b.kind, b.first, b.last) for b in found] == expected


def moving(frames: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    wide = rng.integers(0, 256, (9, 48, 3)).repeat(3, 0).repeat(3, 1).astype(np.uint8)
    return np.stack([wide[:, k % 90 : k % 90 + 48] for k in range(frames)])


def test_signals_see_a_cut_and_a_dissolve():
    a, b = moving(40, 0), moving(40, 1)
    share = np.linspace(0, 1, 40)[:, None, None, None]
    mixed = (np.repeat(a[:1], 40, 0) * (1 - share) + b[:1] * share).astype(np.uint8)
    run = jax.jit(signals.signals)
    found, dissolve = np.asarray(run(np.concatenate([a, b]))), np.asarray(run(mixed.repeat(2, 0)))
    assert found.shape == (80, signals.COUNT) and np.isfinite(found).all()
    difference = found[1:, 0]
    assert difference.argmax() + 1 == 40
    motion = found[1:, 9 * len(signals.LAGS)]
    assert motion[39] > 1.5 * np.delete(motion, 39).max()
    ratio = dissolve[:, 9 * len(signals.LAGS) + 6 + 10]
    assert ratio[24:56].max() < 0.1  # The mean of eight frames before and eight after.


def test_the_camera():
    """Pans, tilts and zooms of known speed, one after the other in one window."""
    rng = np.random.default_rng(0)
    ground = ndimage.gaussian_filter(rng.normal(0, 1, (300, 500, 3)), (5, 5, 0))
    ground = np.clip(128 + 40 * ground / ground.std(), 0, 255)
    speeds = [
        (0.0, 0.0, 0.0),
        (0.5, 0.0, 0.0),
        (-1.0, 0.25, 0.0),
        (0.0, 0.0, 0.01),
        (0.0, 0.0, -0.01),
    ]
    frames = []
    for right, down, growth in speeds:
        for k in range(50):
            scale = 3 / (1 + growth) ** k
            rows = 150 + 3 * down * k + (np.arange(27) - 13) * scale
            columns = 250 + 3 * right * k + (np.arange(48) - 23.5) * scale
            places = np.broadcast_arrays(rows[:, None], columns)
            frames.append([ndimage.map_coordinates(ground[..., c], places, order=1)
                           for c in range(3)])  # fmt: skip
    window = np.zeros((256, 27, 48, 3), np.uint8)
    window[:250] = np.moveaxis(np.array(frames), 1, -1).round()
    (seen,) = ShotModel()([window])
    for number, (right, down, growth) in enumerate(speeds):
        camera = seen.camera[50 * number + 1 : 50 * number + 50]
        expected = np.array([right / 48, down / 27, growth])
        assert np.abs(camera.mean(0) - expected).max() < 0.0015
        flow = seen.flow[50 * number + 1 : 50 * number + 50].mean()
        assert flow < 0.001 if number == 0 else flow > 0.0012


def test_the_summary_takes_one_of_each_kind():
    colours = np.array([[0] * 36, [200] * 36, [4] * 36, [203] * 36, [100] * 36], np.uint8)
    assert analyze.summary(colours, np.array([50, 60, 10, 5, 1])) == [0, 1]
    assert analyze.summary(colours, np.array([50, 60, 10, 5, 100])) == [0, 1, 4]
    assert analyze.summary(colours[:1], np.array([3])) == [0]


@pytest.mark.parametrize("total", [5, 256, 257, 300, 448, 449, 1000])
def test_overlapping_windows_join_to_every_frame_once(total):
    from zoo.tasks.windows import Cutter

    cutter, found = Cutter(analyze.Analyze.cut), []
    times = np.arange(total) / 25
    numbers = np.arange(total)
    frames = np.stack([numbers % 256, numbers // 256], -1).reshape(-1, 1, 1, 2)
    for start in range(0, total, 100):
        found += cutter.take(frames[start : start + 100], times[start : start + 100])
    found += cutter.end()
    parts = []
    for window in found:
        flat = window.frames[: len(window.times), 0, 0]
        number = flat[:, 0] + 256 * flat[:, 1]
        distance = np.minimum(np.arange(len(number)), np.arange(len(number))[::-1])
        columns = (np.stack([number, distance], 1), number, number, number, number, number, number)
        parts.append(analyze._Found(window.first, window.times, Seen(*columns)))
    joined, seen = analyze._joined(parts)
    assert np.array_equal(joined, times)
    assert np.array_equal(seen.luma, numbers)
    # Inside, no frame is taken from the margin of a window.
    assert seen.probabilities[32:-32, 1].min(initial=31) >= 31
