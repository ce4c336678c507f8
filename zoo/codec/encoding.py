"""From an ordinary video to a compressed file."""

import math
import os
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

from zoo.codec import container, source
from zoo.codec.errors import CodecWarning
from zoo.codec.passes import Passes, Progress
from zoo.codec.source import Pictures
from zoo.video.encode import write_whole
from zoo.video.ffmpeg import Source

DEFAULT_QUALITY = 60
# Frames of a group: longer groups cost fewer bits, shorter ones are found sooner in a file.
DEFAULT_GROUP = 100


class Result(NamedTuple):
    """What was written.

    Attributes:
      bytes: of the file.
      estimated_bits: of the groups' data, by the frequencies of the tables.
      data_bytes: of the groups' data.
      quantiser: 0 (finest) to 255.
      frames: how many are in the file.
      seconds: that it took.
    """

    bytes: int
    estimated_bits: float
    data_bytes: int
    quantiser: int
    frames: int
    seconds: float


def quantiser_of(quality: float) -> int:
    """0 (worst) to 100 (best) as a quantiser, 204 to 4; each 12 points halve its step."""
    if not 0 <= quality <= 100:
        raise ValueError(f"quality is {quality}; give 0 (smallest file) to 100 (best)")
    return round(204 - 2 * quality)


def compress(
    video: Source,
    path: str | os.PathLike,
    *,
    quality: float = DEFAULT_QUALITY,
    bitrate: float | None = None,
    time_budget: float | None = None,
    steps: int | None = None,
    group_frames: int = DEFAULT_GROUP,
    frames: int | None = None,
    name: str | None = None,
    report: Callable[[Progress], None] | None = None,
) -> Result:
    """Compresses `video` to `path`, which is written whole or not at all.

    Args:
      video: path, or the file's bytes.
      quality: 0 (smallest file) to 100; see `quantiser_of`.
      bitrate: bits per second to stay at or below instead, as near as can be; takes several
        passes, of which none fits weights until the quantiser is found.
      time_budget: seconds for all of it. All groups are coded without fitting weights first; what
        time is left is shared by the groups. Where it is too short for that first pass (and what
        has to be compiled for it), a CodecWarning says so.
      steps: of gradient descent for each group's network; 0 fits none. None is 0, and 60 where a
        time budget leaves time for them: on the sequences measured the networks did not pay for
        their bytes, were left out, and took half of the time and more.
      group_frames: most frames of an independent group.
      frames: compress only so many.
      name: what errors call the video.
      report: told the progress.

    Raises:
      ValueError: a setting is out of range; VideoError: the video cannot be read.
      KeyboardInterrupt: Ctrl-C, after the best groups so far are written, if there is one.
    """
    if not 1 <= group_frames <= container.MAX_FRAMES_PER_GROUP:
        most = container.MAX_FRAMES_PER_GROUP
        raise ValueError(f"group_frames is {group_frames}; give 1 to {most}")
    if bitrate is not None and bitrate <= 0:
        raise ValueError(f"bitrate is {bitrate}; give bits per second above 0")
    if steps is None:
        steps = 0 if time_budget is None else 60
    if steps < 0 or (time_budget is not None and time_budget <= 0):
        raise ValueError(f"steps {steps} or time budget {time_budget} is too small; give more")
    begin = time.monotonic()
    quantiser = quantiser_of(quality)
    pictures = source.read(video, frames=frames, name=name)
    passes = Passes(pictures, group_frames, report, begin)
    end = math.inf if time_budget is None else begin + time_budget
    try:
        if bitrate is not None:
            seconds = float((pictures.ticks[-1] + pictures.last) * pictures.time_base)
            most = bitrate * seconds / 8 - len(_header(pictures, 0, 0).pack())
            quantiser = passes.search(most, quantiser, end)
            if passes.size > most:
                found = f"{8 * passes.size / seconds:.0f} are the least that were found"
                _warn(f"{bitrate:g} bits per second are too few: {found}; give it more")
            # A little coarser, so that there are bytes for the weights.
            passes.fit(min(quantiser + 1, 255), steps, end, max(most, passes.size))
        elif time_budget is not None:
            passes.plain(quantiser)
            passes.fit(quantiser, steps, end)
        else:
            passes.fitted(quantiser, steps)
        complete = True
    except KeyboardInterrupt:
        complete = False
    groups = passes.groups
    count = sum(len(group.ticks) for group in groups)
    content = _header(pictures, count, len(groups)).pack() + b"".join(g.pack() for g in groups)
    if groups:
        write_whole(path, content)
    if not complete:
        raise KeyboardInterrupt
    took = time.monotonic() - begin
    if time_budget is not None and took > 1.1 * time_budget:
        _warn(f"it took {took:.0f} s, above the time budget of {time_budget:g} s")
    data = sum(len(group.data) for group in groups)
    return Result(len(content), passes.bits, data, quantiser, count, took)


def _warn(text: str) -> None:
    warnings.warn(text, CodecWarning, stacklevel=3)


def _header(pictures: Pictures, frames: int, groups: int) -> container.Header:
    _, h, w = pictures.y.shape
    matrix = source.MATRICES.index(pictures.matrix)
    color_range = source.RANGES.index(pictures.color_range)
    base = pictures.time_base
    return container.Header(w, h, pictures.depth, matrix, color_range, base, frames, groups)
