"""Boundaries from probabilities, signals, windows that overlap."""

import numpy as np
import pytest

from zoo.tasks import analyze
from zoo.tasks.shots import boundaries, signals
from zoo.tasks.shots.model import Seen


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
    found = np.asarray(signals.signals(np.concatenate([a, b])))
    assert found.shape == (80, signals.COUNT) and np.isfinite(found).all()
    difference = found[1:, 0]
    assert difference.argmax() + 1 == 40
    motion = found[1:, 9 * len(signals.LAGS)]
    assert motion[39] > 1.5 * np.delete(motion, 39).max()
    share = np.linspace(0, 1, 40)[:, None, None, None]
    still_a, still_b = np.repeat(a[:1], 40, 0), np.repeat(b[:1], 40, 0)
    mixed = (still_a * (1 - share) + still_b * share).astype(np.uint8)
    ratio = np.asarray(signals.signals(mixed))[:, 9 * len(signals.LAGS) + 6 + 10]
    assert ratio[12:28].max() < 0.1  # The mean of eight frames before and eight after.


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
        columns = (np.stack([number, distance], 1), number, number, number, number)
        parts.append(analyze._Found(window.first, window.times, Seen(*columns)))
    joined, seen = analyze._joined(parts)
    assert np.array_equal(joined, times)
    assert np.array_equal(seen.luma, numbers)
    # Inside, no frame is taken from the margin of a window.
    assert seen.probabilities[32:-32, 1].min(initial=31) >= 31
