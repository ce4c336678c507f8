"""A whole video of any length in bounded memory: decoded ahead in a thread, once, for many readers.

Each reader asks for frames of its own size and rate; ffmpeg decodes once and scales for each.
"""

import collections
import dataclasses
import math
import threading
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from zoo.video import clock, ffmpeg, filters, messages
from zoo.video.clip import stamp_options
from zoo.video.errors import BrokenVideo
from zoo.video.ffmpeg import Pipe, Source
from zoo.video.filters import Fit, Pixels, Size
from zoo.video.probe import ending_problem

# Frames are handed on in pieces of about this many bytes.
_PIECE_BYTES = 2**20
_LINE_BYTES = 200


@dataclasses.dataclass(frozen=True)
class View:
    """How one reader wants to see a video; the fields mean what the arguments of `decode` mean."""

    size: Size
    fit: Fit = "stretch"
    pixels: Pixels = "rgb"
    fps: Fraction | None = None

    def __post_init__(self) -> None:
        if self.fps is not None and self.fps <= 0:
            raise ValueError(f"View.fps is {self.fps}; give frames per second, or None for all")

    @property
    def filter(self) -> str:
        """ffmpeg's filters."""
        return (
            f"{filters.selection(None, fps=self.fps)}{filters.scaling(self.size, self.fit)},"
            f"{filters.FORMATS[self.pixels][0]}{filters.padding(self.size, self.fit)}"
        )


class Piece(NamedTuple):
    """Some frames in a row.

    Attributes:
      view: the number of the view that they are for.
      frames: uint8 [n h w c], at least one.
      times: float64 [n], seconds from the start of the video stream, as `Clip.timestamps`.
      first: the number of the first of them, the video's first being 0 and dropped ones counted.
      arrived: when the decoder gave the last of them, by `time.monotonic`.
    """

    view: int
    frames: np.ndarray
    times: np.ndarray
    first: int
    arrived: float


class VideoStream:
    """The frames of a video from its first to its last, for several views; a context manager.

    Decoding starts at once, in a thread and a process of its own, and stays at most `ahead` bytes
    of frames ahead of who iterates. Iterating raises what `decode` raises, a BrokenVideo after
    all frames that could be decoded: of a damaged file, which of the frames are good is not known.

    From a Pipe every frame is handed on as soon as it is whole. Whoever writes to it has to wait
    while `ahead` bytes of frames wait here; with `drop`, the oldest of them are dropped instead.

    Attributes:
      dropped: how many frames were.
    """

    def __init__(
        self,
        source: Source | Pipe,
        views: Sequence[View],
        *,
        name: str | None = None,
        timeout: float = 60.0,
        threads: int = 1,
        ahead: int = 2**24,
        drop: bool = False,
    ) -> None:
        """Starts to decode.

        Args:
          source: path, or the file's bytes, or a pipe.
          views: at least one.
          name: what errors call the source.
          timeout: seconds that may pass without a frame while somebody waits for one.
          threads: decoder threads.
          ahead: bytes of decoded frames that may wait, one frame at least.
          drop: see above.
        """
        if not views:
            raise ValueError("a video stream needs at least one view; give a View")
        self.name = ffmpeg.display_name(source, name)
        self._source, self._views = source, tuple(views)
        self._timeout, self._threads = timeout, threads
        self._queue = _Queue(ahead, drop)
        self._thread = threading.Thread(target=self._run, name=f"decode {self.name}", daemon=True)
        self._thread.start()

    def __enter__(self) -> "VideoStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends decoding; its process is gone afterwards."""
        self._queue.stop()
        self._thread.join()

    @property
    def dropped(self) -> int:
        return self._queue.dropped

    def waiting(self) -> int:
        """Bytes of frames that are decoded and not yet read."""
        return self._queue.held

    def __iter__(self) -> Iterator[Piece]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def _run(self) -> None:
        try:
            self._decode()
        except ffmpeg.Stopped:
            pass
        except BaseException as error:  # Raised again by whoever iterates, who waits for the end.
            self._queue.end(error)
        else:
            self._queue.end(None)

    def _decode(self) -> None:
        labels = [f"v{number}" for number in range(len(self._views))]
        chains = [f"[0:V:0]split={len(labels)}{''.join(f'[in_{label}]' for label in labels)}"]
        for label, view in zip(labels, self._views, strict=True):
            chains.append(f"[in_{label}]{view.filter}[{label}]")
        graph = ";".join(chains)
        with ffmpeg.Job() as job:
            piped = isinstance(self._source, Pipe)
            if isinstance(self._source, Pipe):
                descriptor = job.adopt(self._source, self.name)
            else:
                descriptor = job.open(self._source, self.name)
            least = 1 if piped else _PIECE_BYTES
            readers = [
                _Reader(number, view, job, self._queue, least)
                for number, view in enumerate(self._views)
            ]
            outputs: list[str] = []
            for label, reader in zip(labels, readers, strict=True):
                outputs += ["-map", f"[{label}]", *stamp_options(reader.stamps)]
                # The end of a frame has not to wait for the next one.
                outputs += ["-flush_packets", "1"] if piped else []
                outputs += ["-f", "rawvideo", f"pipe:{reader.sink.childs.number}"]
            script = job.feed([memoryview(graph.encode())])
            arguments = [
                *("-loglevel", "level+verbose", "-threads", str(self._threads)),
                *ffmpeg.input_options(descriptor),
                *("-/filter_complex", f"pipe:{script.childs.number}", *outputs),
            ]
            job.run(
                arguments,
                name=self.name,
                timeout=self._timeout,
                endless=True,
                stopped=self._queue.stopped,
            )
            for reader in readers:
                reader.give(everything=True)
        if job.returncode:
            raise messages.failure(job.log, self.name)
        self._judge(messages.parse(job.log), sum(reader.count for reader in readers))

    def _judge(self, said: messages.Messages, frames: int) -> None:
        """Raises what is wrong with the file."""
        problem = said.inputs[0].problem
        if problem is None and said.decoder_errors:
            problem = messages.damaged(said.decoder_errors[0][1])
        if not isinstance(self._source, Pipe):
            problem = problem or ending_problem(self._source, said.inputs[0])
        if problem is None and frames == 0:
            problem = "no frame could be decoded"
        if problem is not None:
            raise BrokenVideo(self.name, problem)


class _Reader:
    """Puts the bytes and the time stamps of one view together."""

    def __init__(
        self, number: int, view: View, job: ffmpeg.Job, queue: "_Queue", least: int
    ) -> None:
        self._number, self._view, self._job, self._queue = number, view, job, queue
        self._least = least
        self._bytes, self._lines = bytearray(), bytearray()
        self._shape = (0, 0, 0)
        self._said = messages.Input()
        self.count = 0
        self.sink = job.sink(0, self._take_bytes)
        self.stamps = job.sink(0, self._take_lines)

    def _take_bytes(self, piece: bytes) -> None:
        self._bytes += piece
        self.give()

    def _take_lines(self, piece: bytes) -> None:
        self._lines += piece
        if self._least == 1:
            self.give()

    def give(self, *, everything: bool = False) -> None:
        """Hands on what is complete; less than is worth it only where `everything` is to go."""
        if not self._bytes or not self._know():
            return
        frame = math.prod(self._shape)
        count = min(len(self._bytes) // frame, self._lines.count(b"\n"))
        if not count or not (everything or count * frame >= self._least):
            return
        end = 0
        for _ in range(count):
            end = self._lines.index(b"\n", end) + 1
        found = clock.stamps(self._lines[:end].decode())
        with memoryview(self._bytes) as view:
            frames = np.frombuffer(bytes(view[: count * frame]), np.uint8)
        del self._bytes[: count * frame], self._lines[:end]
        whole = clock.Seek(None, None, certain=True)
        times = np.array(clock.seconds(found, whole, self._said), np.float64)
        shaped = frames.reshape(count, *self._shape)
        piece = Piece(self._number, shaped, times, self.count, time.monotonic())
        self.count += count
        self._queue.put(piece)

    def _know(self) -> bool:
        """Learns frames' size and the clock's start from what ffmpeg said before them."""
        if self._shape[0] == 0:
            said = messages.parse(self._job.said_so_far())
            if self._number in said.outputs:
                self._said = said.inputs[0]
                self._shape = *said.outputs[self._number], filters.FORMATS[self._view.pixels][2]
        return self._shape[0] > 0


class _Queue:
    """What was decoded and not yet read.

    While it holds too many bytes, whoever puts waits, or the oldest frames are dropped.
    """

    def __init__(self, limit: int, drop: bool) -> None:
        self._limit, self._drop = limit, drop
        self.dropped = 0
        self._items: collections.deque[Piece | BaseException | None] = collections.deque()
        self.held = 0
        self._stopped = False
        self._change = threading.Condition()

    def put(self, piece: Piece) -> None:
        with self._change:
            while self._drop and self._items and self.held + piece.frames.nbytes > self._limit:
                oldest = self._items.popleft()
                assert isinstance(oldest, Piece)  # Nothing is put after the end.
                self.held -= oldest.frames.nbytes
                self.dropped += len(oldest.frames)
            while self.held > self._limit and not (self._stopped or self._drop):
                self._change.wait()
            if self._stopped:
                raise ffmpeg.Stopped
            self._items.append(piece)
            self.held += piece.frames.nbytes
            self._change.notify_all()

    def end(self, error: BaseException | None) -> None:
        with self._change:
            self._items.append(error)
            self._change.notify_all()

    def get(self) -> Piece | BaseException | None:
        with self._change:
            while not self._items:
                self._change.wait()
            item = self._items[0]
            if isinstance(item, Piece):  # The end stays, for who asks again.
                self._items.popleft()
                self.held -= item.frames.nbytes
            self._change.notify_all()
            return item

    def stop(self) -> None:
        with self._change:
            self._stopped = True
            self._items.append(None)
            self._change.notify_all()

    def stopped(self) -> bool:
        return self._stopped
