"""Frame rates from time stamps, and time codes of editing (SMPTE ST 12-1), drop-frame too."""

import dataclasses
from fractions import Fraction

import numpy as np

_BASES = (24, 25, 30, 48, 50, 60, 100, 120, 10, 12, 15, 240)
_STANDARD = tuple(rate for base in _BASES for rate in (Fraction(base), Fraction(base * 1000, 1001)))
# Containers count in units of a millisecond or less; a frame may be stamped one unit off.
_UNIT = 0.00101


@dataclasses.dataclass(frozen=True)
class Rate:
    """Frames per second: a standard rate where the time stamps fit one, else their mean."""

    exact: Fraction
    variable: bool

    @property
    def nominal(self) -> int:
        """Frames that time codes count in a second."""
        return max(round(self.exact), 1)

    @property
    def drop(self) -> int:
        """Numbers that drop-frame time codes leave out in nine of ten minutes."""
        base = self.nominal
        return base // 15 if self.exact == Fraction(base * 1000, 1001) and base % 30 == 0 else 0


def frame_rate(times: np.ndarray) -> Rate:
    """The rate of frames at these times [t], in seconds and increasing."""
    if len(times) < 2 or times[-1] <= times[0]:
        return Rate(Fraction(25), False)
    steps = len(times) - 1
    span = float(times[-1] - times[0])
    for rate in _STANDARD:
        expected = times[0] + np.arange(len(times)) / float(rate)
        if np.abs(times - expected).max() <= _UNIT:
            return Rate(rate, False)
    mean = Fraction(steps / span).limit_denominator(10_000)
    expected = times[0] + np.arange(len(times)) * (span / steps)
    return Rate(mean, bool(np.abs(times - expected).max() > _UNIT))


def timecode(seconds: float, rate: Rate) -> str:
    """HH:MM:SS:FF of the frame that is shown at a time; HH:MM:SS;FF where numbers are dropped.

    Hours go on beyond 24.
    """
    return of_frame(round(seconds * rate.exact), rate)


def of_frame(frame: int, rate: Rate) -> str:
    """The time code of a frame's number, the first being 0."""
    if drop := rate.drop:
        minute = 60 * rate.nominal - drop
        tens, rest = divmod(frame, 10 * minute + drop)
        # The first of ten minutes has all its numbers.
        frame += 9 * drop * tens + (drop * ((rest - drop) // minute) if rest >= drop else 0)
    seconds, frames = divmod(frame, rate.nominal)
    hours, minutes, seconds = seconds // 3600, seconds // 60 % 60, seconds % 60
    sign = ";" if drop else ":"
    width = len(str(rate.nominal - 1)) if rate.nominal > 100 else 2
    return f"{hours:02}:{minutes:02}:{seconds:02}{sign}{frames:0{width}}"


def clock(seconds: float) -> str:
    """HH:MM:SS.mmm."""
    total = round(1000 * seconds)
    return (
        f"{total // 3_600_000:02}:{total // 60_000 % 60:02}:"
        f"{total // 1000 % 60:02}.{total % 1000:03}"
    )
