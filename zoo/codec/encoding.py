"""From an ordinary video to a compressed file."""

import os
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from zoo.codec import container, source
from zoo.codec.source import Pictures
from zoo.video.encode import write_whole
from zoo.video.ffmpeg import Source

DEFAULT_QUALITY = 60
# Frames of a group: longer groups cost fewer bits, shorter ones are found sooner in a file.
DEFAULT_GROUP = 100
_PASSES = 6  # At most, to find the quantiser of a bit rate.


class Progress(NamedTuple):
    """How far a compression is.

    Attributes:
      frames, of: done in this pass, and all.
      bytes: of the groups that are whole.
      psnr: of their luma, the mean over frames in dB; None before the first is whole.
      seconds: since the beginning.
    """

    frames: int
    of: int
    bytes: int
    psnr: float | None
    seconds: float


class Result(NamedTuple):
    """What was written.

    Attributes:
      bytes: of the file.
      estimated_bits: of the groups' data, by the frequencies of the tables.
      data_bytes: of the groups' data.
      quantiser: 0 (finest) to 63.
      frames: how many are in the file.
      complete: False where Ctrl-C ended it early.
    """

    bytes: int
    estimated_bits: float
    data_bytes: int
    quantiser: int
    frames: int
    complete: bool


def quantiser_of(quality: float) -> int:
    """0 (worst) to 100 (best) as a quantiser, 51 to 1; each 12 points halve its step."""
    if not 0 <= quality <= 100:
        raise ValueError(f"quality is {quality}; give 0 (smallest file) to 100 (best)")
    return round(51 - quality / 2)


def compress(
    video: Source,
    path: str | os.PathLike,
    *,
    quality: float = DEFAULT_QUALITY,
    bitrate: float | None = None,
    time_budget: float | None = None,
    steps: int = 60,
    group_frames: int = DEFAULT_GROUP,
    frames: int | None = None,
    name: str | None = None,
    report: Callable[[Progress], None] | None = None,
) -> Result:
    """Compresses `video` to `path`, which is written whole or not at all.

    Args:
      video: path, or the file's bytes.
      quality: 0 (smallest file) to 100; see `quantiser_of`.
      bitrate: bits per second to stay at or below instead; takes several passes.
      time_budget: seconds after which no more weights are fitted, which is what takes time at will:
        what must be done takes as long as it takes.
      steps: of gradient descent for each network; 0 fits none.
      group_frames: most frames of an independent group.
      frames: compress only so many.
      name: what errors call the video.
      report: told the progress.

    Raises:
      ValueError: a setting is out of range; VideoError: the video cannot be read.
      KeyboardInterrupt: Ctrl-C, after the groups that were done are written, if there is one.
    """
    if not 1 <= group_frames <= container.MAX_FRAMES_PER_GROUP:
        most = container.MAX_FRAMES_PER_GROUP
        raise ValueError(f"group_frames is {group_frames}; give 1 to {most}")
    if bitrate is not None and bitrate <= 0:
        raise ValueError(f"bitrate is {bitrate}; give bits per second above 0")
    if steps < 0 or (time_budget is not None and time_budget <= 0):
        raise ValueError(f"steps {steps} or time budget {time_budget} is too small; give more")
    begin = time.monotonic()
    pictures = source.read(video, frames=frames, name=name)
    quantiser = quantiser_of(quality)

    def hurry() -> bool:
        return time_budget is not None and time.monotonic() - begin > time_budget

    def one(quantiser: int, steps: int) -> tuple[list[container.Group], float, bool]:
        return _groups(pictures, quantiser, steps, group_frames, report, begin, hurry)

    if bitrate is not None:
        quantiser = _search(pictures, bitrate, lambda q: one(q, 0))
    groups, bits, complete = one(quantiser, steps)
    count = sum(len(group.ticks) for group in groups)
    content = _header(pictures, count, len(groups)).pack() + b"".join(g.pack() for g in groups)
    if groups:
        write_whole(path, content)
    if not complete:
        raise KeyboardInterrupt
    data = sum(len(group.data) for group in groups)
    return Result(len(content), bits, data, quantiser, count, complete)


def _header(pictures: Pictures, frames: int, groups: int) -> container.Header:
    _, h, w = pictures.y.shape
    matrix = source.MATRICES.index(pictures.matrix)
    color_range = source.RANGES.index(pictures.color_range)
    base = pictures.time_base
    return container.Header(w, h, pictures.depth, matrix, color_range, base, frames, groups)


def _groups(
    pictures: Pictures,
    quantiser: int,
    steps: int,
    group_frames: int,
    report: Callable[[Progress], None] | None,
    begin: float,
    hurry: Callable[[], bool],
) -> tuple[list[container.Group], float, bool]:
    """Groups, their estimated bits, and whether all are there: Ctrl-C leaves out the rest."""
    from zoo.codec import group as coding
    from zoo.codec import padding
    from zoo.codec.fit import Effort

    total = len(pictures.y)
    groups: list[container.Group] = []
    bits = quality = 0.0
    try:
        for first in range(0, total, group_frames):
            end = min(first + group_frames, total)

            def tell(done: int, first: int = first, quality: float = quality) -> None:
                if report is not None:
                    size = sum(len(group.data) for group in groups)
                    psnr = quality / first if first else None
                    report(Progress(first + done, total, size, psnr, time.monotonic() - begin))

            planes = padding.padded(pictures, first, end)
            data, estimated, decoded = coding.encode(planes, quantiser, Effort(steps), tell, hurry)
            h, w = pictures.y.shape[1:]
            error = np.square(np.asarray(decoded.y - planes.y)[:, :h, :w]).mean((1, 2))
            quality += float(np.sum(10 * np.log10(255**2 / np.maximum(error, 1e-6))))
            ticks = pictures.ticks[first:end]
            last = pictures.last if end == total else pictures.ticks[end] - ticks[-1]
            groups.append(container.Group(len(groups), first, ticks, last, data))
            bits += estimated
    except KeyboardInterrupt:
        return groups, bits, False
    return groups, bits, True


def _search(
    pictures: Pictures,
    bitrate: float,
    one: Callable[[int], tuple[list[container.Group], float, bool]],
) -> int:
    """The finest quantiser whose file is within the rate, by bisection."""
    seconds = float((pictures.ticks[-1] + pictures.last) * pictures.time_base)
    low, high = 0, 63
    for _ in range(_PASSES):
        middle = (low + high) // 2
        groups, _, complete = one(middle)
        if not complete:
            raise KeyboardInterrupt
        size = len(_header(pictures, 0, 0).pack()) + sum(len(g.pack()) for g in groups)
        if size * 8 <= bitrate * seconds:
            high = middle
        else:
            low = min(middle + 1, high)
    return int(np.clip(high, 0, 63))
