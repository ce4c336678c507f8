"""One pass over many videos for any set of tasks.

Every file is decoded once, ahead of the device, in bounded memory; windows of several files share
a batch; a file that cannot be read is reported and passed over.
"""

import collections
import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from zoo.tasks.windows import Cut, Cutter, Window
from zoo.video.errors import VideoError
from zoo.video.filters import FORMATS
from zoo.video.stream import VideoStream, View

Output = TypeVar("Output")

# Decoded frames that may wait: so many, where their size is known, and so many bytes at most.
_AHEAD_FRAMES, _AHEAD_BYTES = 1024, 2**24


@dataclasses.dataclass(frozen=True)
class Part(Generic[Output]):
    """What a task computed of one window: the window's start and end in seconds, and the value."""

    start: float
    end: float
    value: Output


class Task(Protocol[Output]):
    """What is done with the windows of a video."""

    name: str
    view: View
    cut: Cut
    batch: int

    def compute(self, windows: Sequence[Window]) -> Sequence[Output]:
        """A value for each of at most `batch` windows, which may be of different videos."""
        ...

    def result(self, parts: Sequence[Part[Output]]) -> Any:
        """What is said of a whole video, from its windows in the order of time; at least one."""
        ...


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of one video.

    Attributes:
      video: its path.
      results: by the names of the tasks; empty where nothing came of it.
      error: why it was passed over, or, with `partial`, why its results are of a part of it.
      frames: how many were seen by the view with the most.
      duration: seconds from its first frame to the end of its last window.
    """

    video: str
    results: Mapping[str, Any]
    error: VideoError | None = None
    frames: int = 0
    duration: float = 0.0


def run(
    videos: Iterable[str | os.PathLike],
    tasks: Sequence[Task[Any]],
    *,
    partial: bool = False,
    threads: int = 2,
    ahead: int = 2,
    timeout: float = 60.0,
) -> Iterator[Outcome]:
    """Does all tasks on all videos; an outcome for each, in order, as soon as it is known.

    Args:
      videos: paths.
      tasks: of different names.
      partial: keep what was found in a broken file before it broke, or around its damage.
      threads: of the decoder of one file.
      ahead: files that are decoded at the same time, the present one and those after it.
      timeout: seconds that a file may make wait for its next frame.

    Raises:
      ValueError: two tasks have the same name, or there is none.
      Whatever a task raises; of a video's own faults, none.
    """
    names = [task.name for task in tasks]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"the tasks are {names}; give at least one, each of another name")
    views = list(dict.fromkeys(task.view for task in tasks))
    batches = [_Batch(task) for task in tasks]
    waiting: collections.deque[_Video] = collections.deque()
    with contextlib.ExitStack() as open_streams:
        for video, stream in _opened(videos, views, open_streams, threads, ahead, timeout):
            record = _Video(os.fspath(video), tasks)
            waiting.append(record)
            _read(record, stream, views, batches, partial)
            while waiting and waiting[0].done:
                yield waiting.popleft().outcome()
        for batch in batches:
            batch.flush()
        while waiting:
            yield waiting.popleft().outcome()


def _opened(
    videos: Iterable[str | os.PathLike],
    views: Sequence[View],
    open_streams: contextlib.ExitStack,
    threads: int,
    ahead: int,
    timeout: float,
) -> Iterator[tuple[str | os.PathLike, VideoStream]]:
    """Streams in order, some of them started before their turn; each is closed after it."""
    started: collections.deque[tuple[str | os.PathLike, VideoStream]] = collections.deque()
    open_streams.callback(lambda: [stream.close() for _, stream in started])
    rest = iter(videos)
    while True:
        for video in rest:
            stream = VideoStream(
                video, views, timeout=timeout, threads=threads, ahead=_ahead(views)
            )
            started.append((video, stream))
            if len(started) >= ahead:
                break
        if not started:
            return
        yield started[0]
        started.popleft()[1].close()


def _ahead(views: Sequence[View]) -> int:
    """Bytes of decoded frames that may wait.

    More small frames than a few windows would gain nothing; and the more pieces of them come and
    go in malloc's heap, the more it grows before blocks of the size of a model's find room there.
    """
    frame = 0
    for view in views:
        if not isinstance(view.size, tuple):
            return _AHEAD_BYTES
        frame += view.size[0] * view.size[1] * FORMATS[view.pixels][2]
    return min(_AHEAD_FRAMES * frame, _AHEAD_BYTES)


def _read(
    record: "_Video",
    stream: VideoStream,
    views: Sequence[View],
    batches: Sequence["_Batch"],
    partial: bool,
) -> None:
    """Takes one video from its first frame to its last."""
    cutters = [Cutter(batch.task.cut) for batch in batches]
    counts = [0] * len(views)
    try:
        for piece in stream:
            counts[piece.view] += len(piece.frames)
            for number, batch in enumerate(batches):
                if views[piece.view] == batch.task.view:
                    for window in cutters[number].take(piece.frames, piece.times):
                        batch.add(record, number, window)
    except VideoError as error:
        record.error = error
    except OSError as error:
        reason = f"it cannot be opened ({error.strerror})"
        record.error = VideoError(record.video, reason, "check the path and its permissions")
    record.frames = max(counts)
    record.failed = record.error is not None and not (partial and record.frames)
    if not record.failed:
        for number, batch in enumerate(batches):
            for window in cutters[number].end():
                batch.add(record, number, window)
    record.read = True


class _Video:
    """A video whose windows are on their way."""

    def __init__(self, video: str, tasks: Sequence[Task[Any]]) -> None:
        self.video, self.tasks = video, tasks
        self.parts: list[list[Part[Any]]] = [[] for _ in tasks]
        self.error: VideoError | None = None
        self.frames = self.pending = 0
        self.read = self.failed = False

    @property
    def done(self) -> bool:
        return self.read and (self.failed or self.pending == 0)

    def outcome(self) -> Outcome:
        if self.failed:
            return Outcome(self.video, {}, self.error, self.frames)
        results = {
            task.name: task.result(parts)
            for task, parts in zip(self.tasks, self.parts, strict=True)
        }
        end = max(part.end for parts in self.parts for part in parts)
        return Outcome(self.video, results, self.error, self.frames, end)


class _Batch:
    """Windows of a task that wait until there are enough of them for the device."""

    def __init__(self, task: Task[Any]) -> None:
        self.task = task
        self._windows: list[tuple[_Video, int, Window]] = []

    def add(self, video: _Video, number: int, window: Window) -> None:
        self._windows.append((video, number, window))
        video.pending += 1
        if len(self._windows) >= self.task.batch:
            self.flush()

    def flush(self) -> None:
        windows, self._windows = self._windows, []
        # A file that turned out to be broken is not worth the device's time.
        windows = [item for item in windows if not item[0].failed]
        if not windows:
            return
        values = self.task.compute([window for _, _, window in windows])
        for (video, number, window), value in zip(windows, values, strict=True):
            video.parts[number].append(Part(window.start, window.end, value))
            video.pending -= 1
