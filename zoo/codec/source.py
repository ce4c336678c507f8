"""Pictures in and out of ordinary video files, as planes of samples with 4:2:0 chroma.

Any pixel format is taken as 8 bits, or, where a component has more, as 10; chroma of another
sampling is converted, and so is RGB (to BT.709, limited range). Matrix and range of YUV are kept.
"""

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from zoo.video import clock, ffmpeg, filters, messages
from zoo.video.clip import STAMP_BYTES, raw_output
from zoo.video.encode import write_whole
from zoo.video.errors import BrokenVideo, VideoError, VideoTooLarge
from zoo.video.ffmpeg import Source
from zoo.video.probe import probe

_FORMATS = {8: "yuv420p", 10: "yuv420p10le"}
MATRICES = ("unknown", "bt709", "smpte170m", "bt470bg", "bt2020nc", "fcc", "smpte240m")
RANGES = ("unknown", "tv", "pc")


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Frames of a video.

    Attributes:
      y: uint8 or uint16 [t h w].
      uv: the same type, [t 2 ceil(h/2) ceil(w/2)].
      ticks: time stamps, increasing, the first is 0, in units of `time_base`.
      time_base: seconds.
      last: how long the last frame is shown, in the same units.
      depth: 8 or 10 bits.
      matrix: one of MATRICES.
      color_range: one of RANGES.
    """

    y: np.ndarray
    uv: np.ndarray
    ticks: tuple[int, ...]
    time_base: Fraction
    last: int
    depth: int
    matrix: str
    color_range: str


def chroma(size: int) -> int:
    """Samples of chroma for so many of luma."""
    return -(-size // 2)


def read(
    source: Source,
    *,
    frames: int | None = None,
    name: str | None = None,
    timeout: float = 600.0,
    max_bytes: int = 2**31,
) -> Pictures:
    """All frames of a video, or the first `frames`; raises as zoo.video.probe and decode do."""
    name = ffmpeg.display_name(source, name)
    said = probe(source, name=name, timeout=timeout)
    depth = 10 if said.bit_depth > 8 else 8
    yuv = said.pixel_format.startswith("yuv") or said.pixel_format.startswith(("nv", "p0"))
    matrix = said.color_space if yuv and said.color_space in MATRICES else "unknown"
    color_range = said.color_range if yuv and said.color_range in RANGES else "unknown"
    convert = "scale=flags=bicubic+accurate_rnd+full_chroma_int"
    if not yuv:
        matrix, color_range = "bt709", "tv"
        convert += ":out_color_matrix=bt709:out_range=tv"
    with ffmpeg.Job() as job:
        descriptor = job.open(source, name)
        pictures, stamps = job.sink(max_bytes), job.sink(STAMP_BYTES)
        arguments = [
            *("-loglevel", "level+verbose", "-threads", "2"),
            *ffmpeg.input_options(descriptor),
            *("-map", "0:V:0", "-vf", f"{convert},format={_FORMATS[depth]}"),
            *([] if frames is None else ["-frames:v", str(frames)]),
            *raw_output(pictures, stamps),
        ]
        try:
            job.run(arguments, name=name, timeout=timeout)
        except ffmpeg.OutputTooLarge:
            raise VideoTooLarge(name, f"its frames take more than {max_bytes} bytes") from None
    if job.returncode:
        raise messages.failure(job.log, name)
    heard = messages.parse(job.log)
    problem = heard.inputs[0].problem
    if problem is None and heard.decoder_errors:
        problem = messages.damaged(heard.decoder_errors[0][1])
    if problem is not None:
        raise BrokenVideo(name, problem)
    found = clock.stamps(stamps.data.decode())
    h, w = heard.outputs.get(0, (0, 0))
    kind = np.dtype(np.uint8 if depth == 8 else "<u2")
    frame = h * w + 2 * chroma(h) * chroma(w)
    samples = np.frombuffer(pictures.data, kind)
    if not found or len(samples) != len(found) * frame:
        raise BrokenVideo(name, "no frame could be decoded")
    samples = samples.reshape(len(found), frame)
    ticks = [stamp.ticks - found[0].ticks for stamp in found]
    if any(later <= earlier for earlier, later in itertools.pairwise(ticks)):
        raise BrokenVideo(
            name, "its time stamps do not increase", "convert it to another container"
        )
    rate = said.frame_rate or Fraction(25)
    last = max(clock.rounded(1 / rate / found[0].unit), 1)
    return Pictures(
        y=samples[:, : h * w].reshape(-1, h, w),
        uv=samples[:, h * w :].reshape(-1, 2, chroma(h), chroma(w)),
        ticks=tuple(ticks),
        time_base=found[0].unit,
        last=last,
        depth=depth,
        matrix=matrix,
        color_range=color_range,
    )


def raw_input(job: ffmpeg.Job, pictures: Pictures) -> list[str]:
    """ffmpeg's options for an input of these samples, at their mean frame rate."""
    t, h, w = pictures.y.shape
    packed = np.concatenate([pictures.y.reshape(t, -1), pictures.uv.reshape(t, -1)], 1)
    feed = job.feed([packed.view(np.uint8).data.cast("B")])
    rate = t / ((pictures.ticks[-1] - pictures.ticks[0] + pictures.last) * pictures.time_base)
    return [
        *("-f", "rawvideo", "-framerate", str(rate), "-video_size", f"{w}x{h}"),
        *("-pixel_format", _FORMATS[pictures.depth], "-i", f"pipe:{feed.childs.number}"),
    ]


def even(pictures: Pictures) -> Pictures:
    """With the last row and column of an odd size repeated, which H.264 with 4:2:0 needs."""
    _, h, w = pictures.y.shape
    y = np.pad(pictures.y, ((0, 0), (0, h % 2), (0, w % 2)), mode="edge")
    return dataclasses.replace(pictures, y=y)


def encoded(
    pictures: Pictures, codec: Sequence[str], muxer: str, *, name: str, timeout: float = 600.0
) -> bytes:
    """A video file of these samples, times kept, by ffmpeg's options of a codec.

    Raises VideoError, with `name` for the file, where ffmpeg fails.
    """
    tags = [f"colorspace={pictures.matrix}"] if pictures.matrix != "unknown" else []
    tags += [f"range={pictures.color_range}"] if pictures.color_range != "unknown" else []
    with ffmpeg.Job() as job:
        inputs, result = raw_input(job, pictures), job.result()
        text = f"settb={pictures.time_base},setpts='{filters.lookup(list(pictures.ticks))}'"
        text += f",setparams={':'.join(tags)}" if tags else ""
        script = job.feed([memoryview(text.encode())])
        arguments = [
            *("-loglevel", "level+verbose", *inputs, "-/filter:v", f"pipe:{script.childs.number}"),
            *("-fps_mode", "passthrough", "-enc_time_base", "filter", *codec),
            *("-f", muxer, *result.options),
        ]
        job.run(arguments, name=name, timeout=timeout)
        if job.returncode:
            reason = f"ffmpeg could not encode it: {messages.first_error(job.log)}"
            raise VideoError(name, reason, "check the size and the time stamps")
        return result.read()


def write(pictures: Pictures, path: str | os.PathLike, timeout: float = 600.0) -> None:
    """Writes without loss: FFV1 to .mkv, H.264 to .mp4, times kept.

    H.264 with 4:2:0 has even sizes only: in .mp4 the last row or column of odd ones is repeated.

    Raises VideoError where ffmpeg fails, OSError where the file cannot be written, ValueError for
    another extension.
    """
    name = os.fspath(path)
    extension = pathlib.Path(path).suffix.lower()
    if extension == ".mp4":
        pictures = even(pictures)
        codec = ["-c:v", "libx264", "-preset", "veryfast", "-qp", "0", "-threads:v", "2"]
        codec += ["-bf", "0", "-video_track_timescale", str(pictures.time_base.denominator)]
        muxer = "mp4"
    elif extension == ".mkv":
        codec, muxer = ["-c:v", "ffv1"], "matroska"
    else:
        raise ValueError(f"{name} is no .mp4 or .mkv; give the result such a name")
    write_whole(path, encoded(pictures, codec, muxer, name=name, timeout=timeout))
