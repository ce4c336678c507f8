"""Which frames of a broken file are good.

A frame is good when its packet and every packet since the last key frame decode without an error:
what follows a damaged packet is predicted from it. Containers list packets with their presentation
times, so a packet whose frame never comes out of a strict decoder is a damaged one. Where that
finds nothing although the decoder complained, or where packets have no presentation times, the
order of the decoder's messages tells which frame each complaint precedes.
"""

import dataclasses
import itertools
import re
import statistics
from collections.abc import Sequence

from zoo.video.clock import NO_TIME

# Decoding stops being lenient, is done by one thread, and reports each frame.
STRICT_GLOBAL = ["-debug_ts"]
STRICT_INPUT = ["-err_detect", "explode", "-threads", "1", "-max_error_rate", "1"]
_FRAME = re.compile(rb"decoder -> pts:(-?\d+|NOPTS) .*keyframe:([01])")
_NOISE = re.compile(rb"\[info\] (?:demuxer|filter|encoder|muxer)[a-z_+]* (?:->|<-)")
_COMPLAINT = re.compile(r"\[(?:error|warning)\]")


@dataclasses.dataclass(frozen=True)
class Packet:
    """One packet of the video stream, times in units of the stream."""

    decoded_at: int
    shown_at: int
    duration: int
    key: bool


@dataclasses.dataclass(frozen=True)
class Decoded:
    """One frame that a strict decoder gave.

    Attributes:
      shown_at: its time in units of the stream, as ffmpeg shows it.
      key: whether it is a key frame.
      corrupt: whether the decoder calls it corrupt.
      complaint: whether any message preceded it.
    """

    shown_at: int
    key: bool
    corrupt: bool
    complaint: bool


def shorten(line: bytes) -> bytes | None:
    """Of the many lines of -debug_ts, keeps those of the decoder, as time and key frame flag."""
    if match := _FRAME.search(line):
        return b"frame " + match[1] + b" " + match[2]
    return None if _NOISE.search(line) else line


def decoded_frames(log: str) -> list[Decoded]:
    """Reads the decoder's reports, in order."""
    result, corrupt, complaint = [], False, False
    for line in log.splitlines():
        if line.startswith("frame "):
            _, text, key = line.split()
            time = NO_TIME if text == "NOPTS" else int(text)
            result.append(Decoded(time, key == "1", corrupt, complaint))
            corrupt = complaint = False
        elif _COMPLAINT.search(line) and not line.startswith(("[in#", "[vost#", "[out#")):
            complaint = True
            corrupt |= "corrupt decoded frame" in line
    return result


def good_frames(
    packets: Sequence[Packet], frames: Sequence[Decoded], shift: int, holes: bool
) -> tuple[list[bool], list[int]]:
    """Which frames are good, and the times of packets that are not.

    Args:
      packets: in file order.
      frames: in the decoder's order.
      shift: what to add to a frame's time to get its packet's.
      holes: whether packets may be missing from the file itself.

    Returns:
      A flag for each frame, and the (packet) times of what is lost or damaged.
    """
    times = {frame.shown_at + shift for frame in frames if not frame.corrupt}
    timed = all(packet.shown_at != NO_TIME for packet in packets)
    localised = timed and any(packet.shown_at not in times for packet in packets)
    if not (localised or holes) or not timed:
        return _by_order(frames, shift)
    good: set[int] = set()
    lost: list[int] = []
    gaps = _gaps([packet.shown_at for packet in packets]) if holes else []
    damaged, leading = False, None
    for packet in packets:
        decoded = packet.shown_at in times
        while gaps and packet.shown_at > gaps[0]:
            gaps.pop(0)
            damaged = True
        if packet.key and decoded:
            # Pictures shown before a key frame that follows it in the file may need older ones.
            leading = packet.shown_at if damaged else None
            damaged = False
        elif not decoded:
            damaged = True
        if damaged or (leading is not None and packet.shown_at < leading):
            lost.append(packet.shown_at)
        else:
            good.add(packet.shown_at)
    return [frame.shown_at + shift in good for frame in frames], lost


def _gaps(times: Sequence[int]) -> list[int]:
    """Times after which a frame is missing: the next comes later than usual."""
    ordered = sorted(times)
    steps = [later - earlier for earlier, later in itertools.pairwise(ordered)]
    usual = statistics.median(steps or [0])
    return [time for time, step in zip(ordered, steps, strict=False) if step > 1.5 * usual]


def _by_order(frames: Sequence[Decoded], shift: int) -> tuple[list[bool], list[int]]:
    flags, lost, damaged = [], [], False
    for frame in frames:
        damaged = frame.complaint or (damaged and not frame.key)
        flags.append(not damaged)
        if damaged:
            lost.append(frame.shown_at + shift)
    return flags, lost
