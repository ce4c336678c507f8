"""What ffmpeg's messages say, at -loglevel level+verbose.

File names never appear in them, since inputs are descriptors. A hostile file could imitate a line
by its metadata, and so lie about itself or, in a shared process, about its neighbours; it gains no
more than wrong facts, because sizes are checked against the bytes that came.
"""

import dataclasses
import re
from fractions import Fraction

from zoo.video.errors import BrokenVideo, NotAVideo, VideoError, VideoTooLarge

_INPUT = re.compile(r"\[info\] Input #(\d+), (\S+), from '")
_DURATION = re.compile(r"\[info\]   Duration: (N/A|[\d:.]+)(?:, start: (-?\d+\.\d+))?")
_STREAM = re.compile(r"\[info\]   Stream #(\d+):(\d+)(?:\[0x[0-9a-f]+\])?(?:\([^)]*\))?: (.*)")
_ROTATION = re.compile(r"\[info\]       Display Matrix: rotation of (-?\d+\.\d+) degrees")
_ALPHA = re.compile(r"\[info\]       alpha_mode +: 1$", re.IGNORECASE)
_OUTPUT = re.compile(r"\[info\] Output #(\d+), ")
_MAPPING = re.compile(r"\[info\]   Stream #(\d+):(\d+)(?: \([^)]*\))? -> ")
_SIZE = re.compile(r", (\d+)x(\d+)(?: \(\d+x\d+\))?(?= \[SAR|, |$| \()")
_START = re.compile(r", start (-?\d+\.\d+)")
_CORRECTED = re.compile(r"\[verbose\] Correcting start time of Input #(\d+) by (-?\d+) us")
_OF_INPUT = re.compile(r"\[(?:in|vist|dec)#(\d+)(?::\d+)?[/ ]")
_COUNTS = re.compile(
    r"Input stream #(\d+):(\d+) \(video\): (\d+) packets read \(\d+ bytes\); "
    r"(\d+) frames decoded; (\d+) decode errors"
)
# Of the demuxer, or of ffmpeg's own threads: the number of the input is in the context.
_DAMAGE = re.compile(
    r".*(?:\[error\] (.*)|\[warning\] (.*(?:corrupt decoded frame|[Pp]acket corrupt|"
    r"corrupt input packet).*))"
)
# Of a decoder: its name is in the context, not the number of the input.
_DECODER_ERROR = re.compile(r"\[(\w+) @ 0x[0-9a-f]+\] \[error\] (.*)")
# What decoders of undamaged streams say after a seek.
_HARMLESS = re.compile(
    r"co located POCs unavailable|mmco: unref short failure|reference picture missing|"
    r"Missing reference picture|number of reference frames|Could not find ref with POC|"
    r"First slice in a frame missing|RASL|no frame!|Last message repeated"
)
_CUT_SHORT = re.compile(r"partial file|ended prematurely")


@dataclasses.dataclass
class Input:
    """What ffmpeg said about one input file.

    Attributes:
      container: names of its demuxer.
      duration: seconds that the container claims; None where it does not say.
      start: the earliest time stamp of any of its streams, in seconds.
      stream: the description of the video stream in use, after "Video: ".
      stream_start: that stream's earliest time stamp, in seconds.
      rotation: clockwise degrees.
      separate_alpha: whether alpha is a stream of its own inside the codec's (VP8 and VP9).
      corrected_start: where ffmpeg puts the start instead, looking only at streams in use.
      packets, decoded, errors: counts of the video stream; None when the run was cut short.
      damage: messages that mean lost or wrong frames.
      cut_short: whether one of them says that the file ends too early.
      has_holes: whether one of them says that the file lacks packets elsewhere.
    """

    container: str = ""
    duration: Fraction | None = None
    start: Fraction = Fraction(0)
    stream: str = ""
    stream_start: Fraction = Fraction(0)
    rotation: int = 0
    separate_alpha: bool = False
    corrected_start: Fraction | None = None
    packets: int | None = None
    decoded: int | None = None
    errors: int | None = None
    damage: list[str] = dataclasses.field(default_factory=list)
    cut_short: bool = False
    has_holes: bool = False

    @property
    def problem(self) -> str | None:
        """What is broken, in words; None where nothing is known to be."""
        if not self.damage:
            return None
        if self.cut_short:
            return f"it was cut short (ffmpeg: {next(filter(_CUT_SHORT.search, self.damage))})"
        return damaged(self.damage[0])

    @property
    def codec(self) -> str:
        """ffmpeg's name of it."""
        return self.stream.split(None, 1)[0].rstrip(",") if self.stream else ""


@dataclasses.dataclass
class Messages:
    """What ffmpeg said.

    Attributes:
      inputs: by number of input.
      outputs: (height, width) by number of output.
      decoder_errors: (name of the decoder, message) of any input.
    """

    inputs: dict[int, Input] = dataclasses.field(default_factory=dict)
    decoder_errors: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    outputs: dict[int, tuple[int, int]] = dataclasses.field(default_factory=dict)

    def suspects(self) -> set[int]:
        """Numbers of the inputs that have damage, or may have it."""
        damaged = {number for number, said in self.inputs.items() if said.damage}
        explained = {self.inputs[number].codec for number in damaged}
        unexplained = {name for name, _ in self.decoder_errors} - explained
        codecs = {said.codec for said in self.inputs.values()}
        if unexplained - codecs:
            return set(self.inputs)
        return damaged | {n for n, said in self.inputs.items() if said.codec in unexplained}


def damaged(message: str) -> str:
    """The reason of an error about what a decoder complained of."""
    return f"its data is damaged (ffmpeg: {message.rstrip('.')})"


def parse(log: str) -> Messages:
    """Reads a whole log."""
    result = Messages()
    streams: dict[tuple[int, int], tuple[str, int]] = {}
    mapped: dict[int, int] = {}
    current = output = None
    stream_key = (0, 0)
    for line in log.splitlines():
        if match := _INPUT.match(line):
            current, output = result.inputs.setdefault(int(match[1]), Input()), None
            current.container = match[2]
        elif match := _OUTPUT.match(line):
            current, output = None, int(match[1])
        elif match := _MAPPING.match(line):
            mapped.setdefault(int(match[1]), int(match[2]))
        elif match := _STREAM.match(line):
            if output is not None and (size := _SIZE.search(match[3])):
                result.outputs[output] = int(size[2]), int(size[1])
            elif output is None and match[3].startswith("Video: "):
                stream_key = int(match[1]), int(match[2])
                streams[stream_key] = match[3].removeprefix("Video: "), 0
        elif current is not None and (match := _DURATION.match(line)):
            current.start = Fraction(match[2] or 0)
            if match[1] != "N/A":
                h, m, s = match[1].split(":")
                current.duration = int(h) * 3600 + int(m) * 60 + Fraction(s)
        elif current is not None and (match := _ROTATION.match(line)):
            degrees = -round(float(match[1])) % 360
            streams[stream_key] = streams[stream_key][0], degrees
        elif current is not None and _ALPHA.match(line):
            current.separate_alpha = True
        elif match := _CORRECTED.match(line):
            corrected = result.inputs[int(match[1])]
            corrected.corrected_start = corrected.start + Fraction(int(match[2]), 1_000_000)
        elif match := _COUNTS.search(line):
            counted = result.inputs.setdefault(int(match[1]), Input())
            if mapped.get(int(match[1]), int(match[2])) == int(match[2]):
                counted.packets, counted.decoded, counted.errors = map(int, match.groups()[2:])
        elif of := _OF_INPUT.match(line):
            cut_short = bool(_CUT_SHORT.search(line))
            # What a demuxer says while the file is opened may concern streams not in use.
            if (match := _DAMAGE.match(line)) and (mapped or cut_short):
                damaged = result.inputs.setdefault(int(of[1]), Input())
                damaged.damage.append(match[1] or match[2])
                damaged.cut_short |= cut_short
                damaged.has_holes |= line.startswith("[in#") and not cut_short
        elif (match := _DECODER_ERROR.match(line)) and mapped and not _HARMLESS.search(line):
            result.decoder_errors.append((match[1], match[2]))
    for number, described in result.inputs.items():
        key = number, mapped.get(number, -1)
        if key in streams:
            described.stream, described.rotation = streams[key]
            start = _START.search(described.stream)
            described.stream_start = Fraction(start[1]) if start else Fraction(0)
    return result


def failure(log: str, name: str) -> VideoError:
    """The typed error for a run that ended with a non-zero exit status."""
    if too_many_pixels(log):
        return VideoTooLarge(name, "its frames have too many pixels", "scale the file down")
    if "matches no streams" in log:
        return NotAVideo(name, "it has no video stream")
    if "Format not on whitelist" in log:
        return NotAVideo(name, "its container is not one that is accepted for video")
    if "moov atom not found" in log:
        return BrokenVideo(name, "its index (moov atom) is missing: it was cut short")
    if "Error opening input" in log:
        return NotAVideo(name, "ffmpeg does not recognise its content")
    return BrokenVideo(name, f"ffmpeg could not read it ({first_error(log)})")


def too_many_pixels(log: str) -> bool:
    """Whether frames were refused for their size."""
    return "exceeds specified max pixel count" in log


def first_error(log: str) -> str:
    """The first error of a log, without contexts and levels."""
    lines = [line for line in log.splitlines() if "[error]" in line or "[fatal]" in line]
    if not lines:
        return "it ended without a message"
    return re.sub(r"^(?:\[[^\]]*\] )+", "", lines[0])


def blamed_inputs(log: str) -> set[int]:
    """Numbers of the inputs that could not be opened."""
    return {
        int(of[1])
        for line in log.splitlines()
        if "Error opening input" in line and (of := _OF_INPUT.match(line))
    }
