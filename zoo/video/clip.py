"""What a clip is: the request for one, the frames of one, and how they are to leave ffmpeg."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from zoo.video import clock, ffmpeg, filters, messages
from zoo.video.errors import BrokenVideo, VideoTooLarge
from zoo.video.ffmpeg import Source
from zoo.video.filters import Fit, Pixels, Size
from zoo.video.pipes import Sink

# Most bytes of time stamps: millions of frames.
STAMP_BYTES = 2**28


@dataclasses.dataclass(frozen=True)
class Clip:
    """Decoded frames.

    Attributes:
      frames: uint8 [t h w c].
      timestamps: float64 [t], presentation times in seconds; 0 is the start of the video stream.
      error: what is broken; only with `partial=True`.
    """

    frames: np.ndarray
    timestamps: np.ndarray
    error: BrokenVideo | None = None


@dataclasses.dataclass(frozen=True)
class ClipRequest:
    """Which frames of which video; the fields mean what the arguments of `decode` mean."""

    source: Source
    name: str | None = None
    start: float = 0.0
    frames: int | None = None
    stride: int = 1
    fps: Fraction | None = None
    indices: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and self.start >= 0):
            raise ValueError(f"start is {self.start}; give seconds from the video's first frame")
        if self.frames is not None and self.frames < 1:
            raise ValueError(f"frames is {self.frames}; ask for at least 1, or None for all")
        if self.stride < 1:
            raise ValueError(f"stride is {self.stride}; use 1 for every frame")
        if self.fps is not None and (self.fps <= 0 or self.stride != 1):
            raise ValueError(f"fps is {self.fps} with stride {self.stride}; choose one of the two")
        if self.indices is not None:
            if self.frames is not None or self.stride != 1 or self.fps is not None:
                raise ValueError("indices say which frames; leave out frames, stride and fps")
            falls = any(b < a for a, b in itertools.pairwise(self.indices))
            if not self.indices or self.indices[0] < 0 or falls:
                raise ValueError(f"indices are {self.indices}; give increasing frame numbers >= 0")

    @property
    def display_name(self) -> str:
        """What errors call the source."""
        return ffmpeg.display_name(self.source, self.name)

    @property
    def count(self) -> int | None:
        """Most frames that ffmpeg has to give; None where the end of the file decides."""
        return self.frames if self.indices is None else len(set(self.indices))

    @property
    def skipped(self) -> int:
        """Frames after `start` that are not wanted before the first that is."""
        return 0 if self.indices is None else self.indices[0]

    def selection(self, seek: clock.Seek) -> str:
        """The filter that drops frames."""
        return filters.selection(
            seek.first,
            unit=seek.unit,
            stride=self.stride,
            fps=self.fps,
            indices=None if self.indices is None else sorted(set(self.indices)),
        )


@dataclasses.dataclass(frozen=True)
class Output:
    """How frames leave ffmpeg, and the limits of a process: the arguments of `decode`."""

    size: Size
    fit: Fit
    pixels: Pixels
    partial: bool
    timeout: float
    max_bytes: int
    threads: int

    @property
    def channels(self) -> int:
        """Of a frame."""
        return filters.FORMATS[self.pixels][2]

    def bytes_of(self, request: ClipRequest) -> int:
        """Bytes of the frames of a request, where it and the size tell; else 0."""
        if request.count is None or not isinstance(self.size, tuple):
            return 0
        return request.count * math.prod(self.size) * self.channels

    def check(self, request: ClipRequest) -> None:
        """Refuses before anything is read what is known to be too large."""
        if (needed := self.bytes_of(request)) > self.max_bytes:
            reason = f"{request.count} frames take {needed} bytes, above {self.max_bytes}"
            raise VideoTooLarge(request.display_name, reason)


def make_clip(
    request: ClipRequest,
    frames: np.ndarray,
    found: Sequence[clock.Stamp],
    seek: clock.Seek,
    said: messages.Input,
    *,
    kept: Sequence[int] | None = None,
    error: BrokenVideo | None = None,
) -> Clip:
    """Joins frames and their times; of `kept` frames only, and in the order of the indices."""
    times = np.array(clock.seconds(found, seek, said), np.float64)
    order = list(range(len(found)))
    if request.indices is not None:
        place = {index: k for k, index in enumerate(sorted(set(request.indices)))}
        order = [place[index] for index in request.indices if place[index] < len(found)]
    if kept is not None:
        order = [k for k in order if k in set(kept)]
    if order != list(range(len(found))):
        frames, times = frames[order], times[order]
    return Clip(frames, times, error)


def raw_output(frames: Sink, stamps: Sink) -> list[str]:
    """ffmpeg's options for every frame that passes the filters, and its time stamps beside it."""
    return [*stamp_options(stamps), "-f", "rawvideo", f"pipe:{frames.childs.number}"]


def stamp_options(stamps: Sink) -> list[str]:
    """ffmpeg's options to keep each frame and its time as they are, and to report its time."""
    return [
        *("-fps_mode", "passthrough", "-enc_time_base", "filter"),
        *("-stats_enc_pre_fmt", clock.STAMP_FORMAT),
        *("-stats_enc_pre", f"pipe:{stamps.childs.number}"),
    ]
