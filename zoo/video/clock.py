"""Time stamps: from ffmpeg's, which depend on where it began to read, to the video's own.

The video's clock starts with its stream: 0 is the stream's first time stamp. ffmpeg subtracts the
time that it seeks to, which counts from the earliest stream of the file (often the sound).
"""

import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from zoo.video import messages

# Reading starts this much earlier when a seek went past its goal, as it does in MPEG streams.
_EARLIER = 10
_PRINTED = Fraction(1, 1_000_000)
NO_TIME = -(2**63)
# Of ffmpeg's -stats_enc_pre_fmt: a frame's time stamp and unit as decoded, then as filtered, and
# the number of frames that the decoder gave before it.
STAMP_FORMAT = "{ptsi} {tbi} {pts} {tb} {ni}"


@dataclasses.dataclass(frozen=True)
class Seek:
    """Where to begin to read, and from which time stamp on frames are wanted.

    Attributes:
      at: seconds, as ffmpeg counts them; None reads from the beginning.
      first: smallest wanted time stamp, as ffmpeg then shows it; None for all.
      unit: seconds of one unit of `first`; None where `first` is in microseconds.
      certain: whether `first` follows from what the file says about its start times.
      quick: whether it said so in a run that read the header alone; then ffmpeg counts `at` from 0.
    """

    at: Fraction | None
    first: int | None
    unit: Fraction | None = None
    certain: bool = False
    quick: bool = False

    @property
    def options(self) -> list[str]:
        """Of ffmpeg's input. Frames before the goal are dropped by a filter, not by ffmpeg."""
        return [] if self.at is None else ["-noaccurate_seek", "-ss", f"{float(self.at):.6f}"]


def first_seek(start: float) -> Seek:
    """The seek to try first; right where the video's stream is the file's earliest."""
    if start == 0:
        return Seek(None, None, certain=True)
    return Seek(_microseconds(start), 0)


class Stamp(NamedTuple):
    """One frame as ffmpeg reports it.

    Attributes:
      ticks: its time stamp.
      unit: seconds of one tick.
      number: how many frames the decoder gave before it; -1 for a frame that no decoder gave.
      guessed: the file gives no presentation time; the decoder inferred it.
    """

    ticks: int
    unit: Fraction
    number: int
    guessed: bool


def stamps(text: str) -> list[Stamp]:
    """Reads the lines that STAMP_FORMAT makes."""
    result = []
    units: dict[str, Fraction] = {"0/0": Fraction(1)}
    for line in text.splitlines():
        original, unit_text, filtered, filtered_unit, number = line.split()
        if unit_text not in units:
            units[unit_text] = Fraction(unit_text)
        unit, ticks, guessed = units[unit_text], int(original), False
        if unit_text == "0/0":
            ticks, number = 0, "-1"
        elif ticks == NO_TIME:
            # What filters see is the decoder's guess (AVI has no presentation times).
            ticks, guessed = rounded(int(filtered) * Fraction(filtered_unit) / unit), True
        result.append(Stamp(ticks, unit, int(number), guessed))
    return result


def seconds(found: Sequence[Stamp], seek: Seek, said: messages.Input) -> list[float]:
    """The frames' times on the video's own clock, exact to the last bit."""
    if not found:
        return []
    unit = found[0].unit
    offset = shift(seek.at, said, unit) - rounded(said.stream_start / unit)
    return [(stamp.ticks + offset) * unit.numerator / unit.denominator for stamp in found]


def next_seek(
    start: float,
    seek: Seek,
    said: messages.Input,
    found: Sequence[Stamp],
    *,
    skipped: int = 0,
    damaged: bool = False,
) -> Seek | None:
    """None where `seek` gave the right frames, else the seek to try next.

    Args:
      start: the wanted time on the video's own clock.
      found: the frames that came.
      skipped: how many frames after `start` were not wanted before the first that came.
      damaged: whether the decoder complained, as it does when reading starts between key frames.
    """
    if seek.at is None:
        return None
    if not found:
        # Either nothing is there, or the container cannot seek. The unit is not known yet.
        ticks = rounded((said.stream_start + Fraction(start)) / _PRINTED)
        return Seek(None, ticks - shift(None, said, _PRINTED) - 1, None, certain=True)
    unit = found[0].unit
    wanted = goal(start, said, unit)
    begin = _microseconds(start) + said.stream_start - said.start
    if any(stamp.guessed for stamp in found):
        return _seek_for(None, wanted, said, unit)
    # One unit early is near enough: `start` is not known better where it falls between two.
    if not seek.certain and not 0 <= wanted - shift(seek.at, said, unit) - (seek.first or 0) <= 1:
        return _seek_for(begin, wanted, said, unit)
    # Where the first frame after `start` is the first decoded, and late, others may be missing
    # before it. Of a frame that was skipped, the time is not known.
    late = found[0].number == skipped and (skipped > 0 or found[0].ticks > (seek.first or 0))
    if not (late or damaged):
        return None
    earlier = begin - _EARLIER
    return _seek_for(earlier if 0 < earlier < seek.at else None, wanted, said, unit)


def goal(start: float, said: messages.Input, unit: Fraction) -> int:
    """The smallest wanted time stamp on the file's clock."""
    ticks = rounded(said.stream_start / unit) + rounded(Fraction(start) / unit)
    # Start times are printed in microseconds; units finer than that leave a doubt.
    return ticks if unit >= _PRINTED else ticks - math.ceil(_PRINTED / unit)


def from_beginning(start: float, said: messages.Input, unit: Fraction) -> Seek:
    """The seek that reads everything; slow in a long file, and always right."""
    if start == 0:
        return Seek(None, None, certain=True)
    return _seek_for(None, goal(start, said, unit), said, unit)


def exact_seek(start: float, said: messages.Input, unit: Fraction) -> Seek:
    """The seek to try first where the file's start times and its unit are known already."""
    if start == 0:
        return Seek(None, None, certain=True)
    begin = _microseconds(start) + said.stream_start - said.start
    return _seek_for(begin, goal(start, said, unit), said, unit)


def _seek_for(at: Fraction | None, wanted: int, said: messages.Input, unit: Fraction) -> Seek:
    return Seek(at, wanted - shift(at, said, unit), unit, certain=True)


def shift(at: Fraction | None, said: messages.Input, unit: Fraction) -> int:
    """What ffmpeg subtracts from time stamps, in units."""
    absolute = said.start + (at or 0)
    if said.corrected_start is not None:
        absolute = max(absolute, said.corrected_start)
    return rounded(absolute / unit)


def _microseconds(value: float) -> Fraction:
    """In the unit in which ffmpeg reads times; a little early, so that no frame is passed over."""
    return Fraction(max(math.floor(value * 1_000_000) - 1, 0), 1_000_000)


def rounded(value: Fraction) -> int:
    """To the nearest integer, halves away from zero, as ffmpeg rescales time stamps."""
    half = Fraction(1, 2)
    return math.floor(value + half) if value >= 0 else math.ceil(value - half)
