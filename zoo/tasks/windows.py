"""From the frames of a video, as they come, to the windows that a model sees; bounded memory."""

import dataclasses
from collections import deque
from collections.abc import Iterator

import numpy as np

from zoo.video import sample

# Seconds by which a sum of times may miss the time that is meant.
_SLACK = 1e-6


@dataclasses.dataclass(frozen=True)
class Window:
    """Frames for one call of a model.

    Attributes:
      frames: uint8 [t h w c].
      start, end: seconds of the video that it stands for; `end` is when its last frame ends.
      times: float64 [n], of all frames from the first to the last that it stands for.
      first: the number of the first of them, the video's first being 0.
    """

    frames: np.ndarray
    start: float
    end: float
    times: np.ndarray
    first: int


@dataclasses.dataclass(frozen=True)
class Cut:
    """How a video is cut into windows.

    Dense windows are `frames` frames, `stride` apart. Uniform ones (`seconds` is set) last that
    long and give the middle frame of each of `frames` equal parts. The last window ends with the
    video, however much it overlaps the one before; where the whole video is shorter than a
    window, dense windows repeat its last frame.

    Attributes:
      frames: of a window.
      stride: distance of dense frames.
      seconds: length of uniform windows.
      overlap: frames that a dense window shares with the one before.
      every: seconds from one window's start to the next one's; None where the next begins with
        the first frame after the last. With `every`, the end of a video adds no window, unless
        there is none.
    """

    frames: int
    stride: int = 1
    seconds: float | None = None
    every: float | None = None
    overlap: int = 0

    def __post_init__(self) -> None:
        for field in ("seconds", "every"):
            value = getattr(self, field)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"Cut.{field} is {value}; give seconds greater than 0")
        if not 0 <= self.overlap < (self.frames - 1) * self.stride + 1:
            raise ValueError(f"Cut.overlap is {self.overlap}; it must be shorter than a window")
        if self.frames < 1 or self.stride < 1:
            raise ValueError(
                f"Cut has {self.frames} frames, {self.stride} apart; give at least 1 of both"
            )


class Cutter:
    """Cuts one video."""

    def __init__(self, cut: Cut) -> None:
        self._cut = cut
        self._span = None if cut.seconds else (cut.frames - 1) * cut.stride + 1
        self._kept: deque[tuple[float, np.ndarray]] = deque()
        self._dropped = 0
        self._first = 0  # Of the next window, as a place in `_kept`.
        self._number = 0  # Of the next window.
        self._after = 0.0  # Time before which no frame is of the next window.
        self._unseen = False  # Whether a frame came since the last window.

    def take(self, frames: np.ndarray, times: np.ndarray) -> Iterator[Window]:
        """Windows that are complete after these frames [n h w c] of these times [n]."""
        for frame, time in zip(frames, times.tolist(), strict=True):
            # A window in seconds is complete when a frame comes that is no more of it.
            while self._span is None and self._ends(time):
                yield self._window(len(self._kept) - self._first)
            self._kept.append((time, frame))
            self._unseen = True
            self._skip()
            if self._span is not None and len(self._kept) - self._first == self._span:
                yield self._window(self._span)
            self._drop()

    def end(self) -> Iterator[Window]:
        """The window at the end of the video, where one is missing."""
        if self._kept and self._unseen and (self._cut.every is None or self._number == 0):
            if self._span is not None:
                self._first = max(len(self._kept) - self._span, 0)
            else:
                begin = self._kept[-1][0] - self._seconds + _SLACK
                self._first = next(k for k, (time, _) in enumerate(self._kept) if time > begin)
            yield self._window(len(self._kept) - self._first)

    @property
    def held(self) -> int:
        """Frames in memory."""
        return len(self._kept)

    @property
    def _seconds(self) -> float:
        assert self._cut.seconds is not None
        return self._cut.seconds

    def _ends(self, time: float) -> bool:
        waiting = self._first < len(self._kept)
        return waiting and time >= self._kept[self._first][0] + self._seconds - _SLACK

    def _window(self, count: int) -> Window:
        members = [self._kept[self._first + k] for k in range(count)]
        if self._span is None:
            chosen = sample.uniform_segments(count, self._cut.frames)
        else:
            wanted = np.arange(self._cut.frames) * self._cut.stride
            chosen = np.minimum(wanted, count - 1)
        number = self._dropped + self._first
        start, last = members[0][0], members[-1][0]
        end = last + (last - start) / (count - 1) if count > 1 else last
        self._number += 1
        self._unseen = False
        if self._cut.every is None:
            self._first += count - self._cut.overlap
        else:
            self._after = start + self._cut.every - _SLACK
            self._skip()
        times = np.array([time for time, _ in members])
        return Window(np.stack([members[k][1] for k in chosen]), start, end, times, number)

    def _skip(self) -> None:
        """Passes over what lies before the next window."""
        while self._first < len(self._kept) and self._kept[self._first][0] < self._after:
            self._first += 1

    def _drop(self) -> None:
        """Forgets what neither the next window nor one at the end can need."""
        while self._first > 0:
            time = self._kept[0][0]
            if self._span is not None:
                needed = len(self._kept) <= self._span
            else:
                needed = time > self._kept[-1][0] - self._seconds
            if needed:
                return
            self._kept.popleft()
            self._dropped += 1
            self._first -= 1
