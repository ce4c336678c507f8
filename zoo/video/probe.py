"""What a video file says about itself, read without decoding it."""

import dataclasses
import itertools
import os
import pathlib
import re
from fractions import Fraction

from zoo.video import ffmpeg, messages
from zoo.video.clock import NO_TIME
from zoo.video.damage import Packet
from zoo.video.errors import BrokenVideo, VideoTooLarge
from zoo.video.ffmpeg import Source

# One line for each packet: two million packets are 18 hours at 30 frames per second.
_PACKET_LINES = 2**27
_KEY = 0x1
_DISCARD = 0x4  # Packets that an edit list hides: decoded, not shown.
_STANDARD_RATES = tuple(
    rate
    for base in (24, 25, 30, 50, 60, 120, 15, 12, 10, 48, 100, 240)
    for rate in (Fraction(base), Fraction(base * 1000, 1001))
)
# Names that space, primaries and transfer can share, which ffmpeg then prints once.
_COLOR_SPACES = {"bt709", "smpte170m", "smpte240m", "film", "fcc", "unknown", "reserved"}


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """Facts of the first video stream; cover pictures do not count as one.

    Attributes:
      duration: seconds from the first frame's start to the last frame's end.
      frames: number of frames.
      frame_rate: frames per second; of a variable rate, the mean.
      variable_frame_rate: whether frames are not evenly spaced.
      width, height: pixels as displayed, that is after `rotation`.
      rotation: clockwise degrees, 0, 90, 180 or 270, by which stored frames are turned.
      pixel_format: ffmpeg's name, such as yuv420p10le.
      bit_depth: bits of one colour component.
      color_space, color_range, color_primaries, color_transfer: ffmpeg's names, or "unknown".
      codec: ffmpeg's name of the codec, such as h264.
      container: ffmpeg's names of the container, such as "matroska,webm".
      time_base: seconds that one unit of the stream's time stamps lasts.
      start_time: the first frame's presentation time on the container's clock, in seconds.
    """

    duration: Fraction
    frames: int
    frame_rate: Fraction
    variable_frame_rate: bool
    width: int
    height: int
    rotation: int
    pixel_format: str
    bit_depth: int
    color_space: str
    color_range: str
    color_primaries: str
    color_transfer: str
    codec: str
    container: str
    time_base: Fraction
    start_time: Fraction


def probe(source: Source, *, name: str | None = None, timeout: float = 30.0) -> VideoInfo:
    """Reads the header and the packet list of `source` (a path, or a file's bytes).

    Raises:
      FileNotFoundError, PermissionError: the path cannot be opened.
      NotAVideo: empty, a folder, no accepted container, or no video stream.
      BrokenVideo: the container is truncated or corrupt.
      VideoTooLarge: frames of more than ffmpeg.MAX_PIXELS pixels, or an endless packet list.
      VideoTimeout: it took more than `timeout` seconds.
    """
    name = ffmpeg.display_name(source, name)
    packets, time_base, said = read_packets(source, name, timeout)
    if problem := said.problem or ending_problem(source, said):
        raise BrokenVideo(name, problem, good_frames=len(packets))
    if not packets:
        raise BrokenVideo(name, "its video stream is empty")
    if any(packet.shown_at == NO_TIME for packet in packets):
        # Without presentation times, frames are shown in even steps of the decoding times.
        times = sorted(packet.decoded_at for packet in packets)
    else:
        times = sorted(packet.shown_at for packet in packets)
    last = max(packets, key=lambda packet: (packet.shown_at, packet.decoded_at)).duration
    last = last or (times[-1] - times[-2] if len(times) > 1 else 0)
    rate, variable = frame_rate(times, last, time_base)
    pixel_format, color, width, height = _format(said.stream, name)
    if said.separate_alpha and pixel_format.startswith("yuv4"):
        pixel_format = pixel_format.replace("yuv", "yuva", 1)
    if said.rotation % 180 == 90:
        width, height = height, width
    return VideoInfo(
        duration=(times[-1] - times[0] + last) * time_base,
        frames=len(packets),
        frame_rate=rate,
        variable_frame_rate=variable,
        width=width,
        height=height,
        rotation=said.rotation,
        pixel_format=pixel_format,
        bit_depth=bit_depth(pixel_format),
        color_space=color[1],
        color_range=color[0],
        color_primaries=color[2],
        color_transfer=color[3],
        codec=said.codec,
        container=said.container,
        time_base=time_base,
        start_time=times[0] * time_base,
    )


def read_packets(
    source: Source, name: str, timeout: float
) -> tuple[list[Packet], Fraction, messages.Input]:
    """The packets of the video stream that are shown, their unit of time, and what ffmpeg said.

    Raises: as `probe`, but damage is only reported in what ffmpeg said.
    """
    with ffmpeg.Job() as job:
        descriptor = job.open(source, name)
        packets = job.sink(_PACKET_LINES)
        arguments = [
            *("-loglevel", "level+verbose", "-copyts", *ffmpeg.input_options(descriptor)),
            *("-map", "0:V:0", "-c", "copy", "-f", "framecrc", f"pipe:{packets.childs.number}"),
        ]
        try:
            job.run(arguments, name=name, timeout=timeout)
        except ffmpeg.OutputTooLarge:
            raise VideoTooLarge(name, "its packet list has no end", "cut the file") from None
    if job.returncode or messages.too_many_pixels(job.log):
        raise messages.failure(job.log, name)
    time_base, result = Fraction(1), []
    for line in packets.data.decode().splitlines():
        if line.startswith("#tb 0: "):
            time_base = Fraction(line.removeprefix("#tb 0: "))
        elif not line.startswith("#"):
            # stream, dts, pts, duration, size, checksum[, F=flags][, side data]
            _, dts, pts, duration, size, _, *rest = (field.strip() for field in line.split(","))
            flags = next((int(field[2:], 16) for field in rest if field.startswith("F=")), _KEY)
            # An empty packet (Theora) repeats a frame; ffmpeg gives none for it.
            if not flags & _DISCARD and size != "0":
                result.append(Packet(int(dts), int(pts), int(duration), bool(flags & _KEY)))
    return result, time_base, messages.parse(job.log).inputs[0]


def ending_problem(source: Source, said: messages.Input) -> str | None:
    """Why a file of a container without an index is known to be cut short; None where it is not.

    ffmpeg reads such files to wherever they end without a word.
    """
    if said.container == "gif":
        head, tail, _ = _ends(source)
        return None if tail.rstrip(b"\0").endswith(b";") else "its end is missing: it was cut short"
    if said.container == "avi":
        head, _, length = _ends(source)
        declared = int.from_bytes(head[4:8], "little") + 8
        if declared > length:
            return f"it has {length} of {declared} bytes: it was cut short"
    return None


def _ends(source: Source) -> tuple[bytes, bytes, int]:
    """The first and the last bytes, and the number of all."""
    if isinstance(source, bytes):
        return source[:16], source[-16:], len(source)
    with pathlib.Path(source).open("rb") as file:
        head = file.read(16)
        length = file.seek(0, os.SEEK_END)
        file.seek(max(length - 16, 0))
        return head, file.read(16), length


def frame_rate(times: list[int], last: int, time_base: Fraction) -> tuple[Fraction, bool]:
    """Rational frame rate of increasing time stamps, and whether it varies.

    A container that counts milliseconds holds rounded times of 30000/1001 or 30 frames per second,
    and so does a file that was copied from such a container: the rate is constant when every time
    is within one unit, or one millisecond, of an evenly spaced grid. Among the rates that fit, a
    standard one is preferred, then the simplest fraction.

    Args:
      times: presentation times in units of `time_base`.
      last: duration of the last frame in the same units.
    """
    steps = len(times) - 1
    if steps == 0:
        return (1 / (last * time_base) if last else Fraction(0)), False
    span = times[-1] - times[0]
    if span == 0:
        return Fraction(0), True
    mean = steps / (span * time_base)
    step = times[1] - times[0]
    if all(later - earlier == step for earlier, later in itertools.pairwise(times)):
        return mean, False
    # Units as long as half a frame cannot tell a rounded time from a missing frame.
    slack = max(Fraction(1), Fraction(1, 1000) / time_base)
    if 2 * slack * steps > span:
        return mean, True
    low, high = _fitting(times, slack)
    if low > high:
        return mean, True
    low, high = low / time_base, high / time_base
    standard = [rate for rate in _STANDARD_RATES if low <= rate <= high]
    return (standard[0] if standard else _simplest_between(low, high)), False


def _fitting(times: list[int], slack: Fraction) -> tuple[Fraction, Fraction]:
    """The lowest and the highest rate, in frames a unit, whose grid from the first time on is
    within `slack` of every time; where there is none the first is above the second."""
    # In integers: a long video has many frames.
    unit, near = slack.denominator, slack.numerator
    low, high = (0, 1), (1, 0)
    for k, time in enumerate(times[1:], start=1):
        away = (time - times[0]) * unit
        if k * unit * low[1] > low[0] * (away + near):
            low = (k * unit, away + near)
        if away > near and k * unit * high[1] < high[0] * (away - near):
            high = (k * unit, away - near)
    return Fraction(*low), Fraction(*high)


def _simplest_between(low: Fraction, high: Fraction) -> Fraction:
    """The fraction of smallest denominator in [low, high], by continued fractions."""
    floor = low.numerator // low.denominator
    if floor == low:
        return Fraction(floor)
    if floor + 1 <= high:
        return Fraction(floor + 1)
    return floor + 1 / _simplest_between(1 / (high - floor), 1 / (low - floor))


def bit_depth(pixel_format: str) -> int:
    """Bits of one component, from ffmpeg's name of the format."""
    if match := re.search(r"(\d+)(?:le|be)$", pixel_format):
        number = int(match[1])
        # rgb48 and rgba64 count the bits of a pixel, yuv420p10 and p010 those of a component.
        known = {36: 12, 48: 16, 64: 16, 96: 32, 128: 32, 565: 6, 555: 5, 444: 4}
        # y210 and p416 put the chroma subsampling before the bits.
        return known.get(number, number % 100 if number > 100 else number)
    return 1 if pixel_format.startswith("mono") else 8


def _format(stream: str, name: str) -> tuple[str, tuple[str, str, str, str], int, int]:
    """Pixel format, (range, space, primaries, transfer), width and height of a stream line."""
    match = re.search(
        r", ([a-z][a-z0-9]+)(?:\(([^)]*)\))?, (\d+)x(\d+)(?: \(\d+x\d+\))?(?=[ ,]|$)", stream
    )
    if not match:
        raise BrokenVideo(name, "its video stream has no size or pixel format")
    color_range, names = "unknown", ["unknown"] * 3
    for word in (match[2] or "").split(", "):
        if word in ("tv", "pc"):
            color_range = word
        elif "/" in word:
            names = [*word.split("/"), *names][:3]
        elif word in _COLOR_SPACES:
            names = [word] * 3
    return match[1], (color_range, names[0], names[1], names[2]), int(match[3]), int(match[4])
