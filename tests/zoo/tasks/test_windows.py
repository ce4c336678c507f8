"""Windows of videos that come in pieces of any size."""

import numpy as np
import pytest

from zoo.tasks.windows import Cut, Cutter


def windows(cut: Cut, times: np.ndarray, piece: int) -> list[tuple[list[int], float, float]]:
    """(numbers of the frames, start, end) of each window; frame k holds the number k."""
    frames = np.arange(len(times)).reshape(-1, 1, 1, 1)
    cutter, found = Cutter(cut), []
    for start in range(0, len(times), piece):
        found += cutter.take(frames[start : start + piece], times[start : start + piece])
    found += cutter.end()
    return [(w.frames[:, 0, 0, 0].tolist(), w.start, w.end) for w in found]


@pytest.mark.parametrize("piece", [1, 3, 7, 100])
@pytest.mark.parametrize(
    ("cut", "count", "expected"),
    [
        (Cut(4), 8, [[0, 1, 2, 3], [4, 5, 6, 7]]),
        (Cut(4), 10, [[0, 1, 2, 3], [4, 5, 6, 7], [6, 7, 8, 9]]),
        (Cut(3, 2), 9, [[0, 2, 4], [4, 6, 8]]),
        (Cut(3, 2), 10, [[0, 2, 4], [5, 7, 9]]),
        (Cut(4), 2, [[0, 1, 1, 1]]),
        (Cut(4), 1, [[0, 0, 0, 0]]),
        (Cut(2, seconds=0.4), 8, [[1, 3], [5, 7]]),
        (Cut(2, seconds=0.4), 9, [[1, 3], [5, 7], [6, 8]]),
        (Cut(2, seconds=9.0), 9, [[2, 6]]),
        (Cut(4, every=0.2), 9, [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]]),
        (Cut(2, every=0.5), 12, [[0, 1], [5, 6], [10, 11]]),
        (Cut(2, seconds=0.4, every=0.2), 9, [[1, 3], [3, 5], [5, 7]]),
        (Cut(8, every=0.1), 3, [[0, 1, 2, 2, 2, 2, 2, 2]]),
    ],
)
def test_frames_of_windows(cut, count, expected, piece):
    times = np.arange(count) / 10 + 1e-12
    assert [numbers for numbers, _, _ in windows(cut, times, piece)] == expected


def test_times_of_windows():
    times = np.array([0.0, 0.1, 0.2, 0.3, 1.0, 1.1])
    (_, a, b), (_, c, d) = windows(Cut(3), times, 2)
    assert (a, c) == (0.0, 0.3) and b == pytest.approx(0.3) and d == pytest.approx(1.5)
    # Variable frame rate: windows in seconds go by the time stamps.
    spans = [numbers for numbers, _, _ in windows(Cut(1, seconds=0.5), times, 2)]
    assert spans == [[2], [5]]


@pytest.mark.parametrize("cut", [Cut(5, 3), Cut(2, seconds=1.0), Cut(2, every=0.3)])
def test_memory_does_not_grow(cut):
    cutter, most = Cutter(cut), 0
    for start in range(0, 3000, 10):
        list(cutter.take(np.zeros((10, 1, 1, 1)), np.arange(start, start + 10) / 10))
        most = max(most, cutter.held)
    assert most <= 30


@pytest.mark.parametrize(
    "wrong", [{"frames": 0}, {"frames": 1, "every": 0.0}, {"frames": 1, "seconds": -1.0}]
)
def test_cuts_are_checked(wrong):
    with pytest.raises(ValueError, match="Cut"):
        Cut(**wrong)
