"""From uint8 frames to H.264 MP4.

Equal input gives equal bytes: encoders run on one thread unless asked otherwise, and neither date
nor version is written. Colours are BT.709, limited range, and tagged so.
"""

import os
import pathlib
import secrets
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, TypedDict, Unpack, overload

import numpy as np

from zoo.video import ffmpeg, filters, messages
from zoo.video.errors import VideoError

PixelFormat = Literal["yuv420p", "yuv444p"]

# Clips that one process encodes: more amortise its start, but each takes descriptors and threads.
_CLIPS_PER_PROCESS = 16
_INPUT_PIXELS = {1: "gray", 3: "rgb24", 4: "rgba"}
TO_BT709 = "flags=bicubic+accurate_rnd+full_chroma_int:out_color_matrix=bt709:out_range=tv"
BT709_TAGS = "colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
_TICKS = 90_000  # Units per second of an encoded variable frame rate.


class Options(TypedDict, total=False):
    """What `encode` takes beside frames and path."""

    fps: Fraction | int
    crf: int
    preset: str
    keyframe_interval: int
    timestamps: Sequence[float] | np.ndarray | None
    pixel_format: PixelFormat
    threads: int
    timeout: float


@overload
def encode(frames: np.ndarray, path: None = None, **options: Unpack[Options]) -> bytes: ...


@overload
def encode(frames: np.ndarray, path: str | os.PathLike, **options: Unpack[Options]) -> None: ...


def encode(
    frames: np.ndarray,
    path: str | os.PathLike | None = None,
    *,
    fps: Fraction | int = 25,
    crf: int = 18,
    preset: str = "veryfast",
    keyframe_interval: int = 12,
    timestamps: Sequence[float] | np.ndarray | None = None,
    pixel_format: PixelFormat = "yuv420p",
    threads: int = 1,
    timeout: float = 600.0,
) -> bytes | None:
    """Encodes `frames` to `path`, or to bytes where `path` is None.

    With yuv420p, which every player knows, an odd height or width grows by one: the last row or
    column is repeated. yuv444p keeps odd sizes and full colour resolution.

    Args:
      frames: uint8 [t h w c], c = 1 (grey), 3 (RGB) or 4 (RGBA, of which A is dropped).
      path: written whole or not at all; a file that is there is replaced at the end.
      fps: exact frame rate.
      crf: constant rate factor, 0 (best) to 51 (worst).
      preset: x264's speed preset.
      keyframe_interval: most frames from one key frame to the next.
      timestamps: seconds [t], increasing, for a variable frame rate instead of `fps`; kept to
        1/90000 s, and shifted so that the first is 0.
      pixel_format: "yuv420p" or "yuv444p".
      threads: encoder threads.
      timeout: seconds.

    Raises:
      ValueError: `frames` or an option is not as described.
      VideoTimeout: it took longer than `timeout`.
      VideoError: ffmpeg failed, or the disk is full.
      OSError: `path` cannot be written.
    """
    name = "<encoded video>" if path is None else os.fspath(path)
    clips = [_checked(frames)]
    options = x264_options(crf, preset, keyframe_interval, threads)
    times = None if timestamps is None else _ticks(timestamps, len(frames))
    content = _run(clips, Fraction(fps), pixel_format, options, times, name, timeout)[0]
    if path is None:
        return content
    write_whole(path, content)
    return None


def encode_many(
    clips: Sequence[np.ndarray],
    *,
    fps: Fraction | int = 25,
    crf: int = 18,
    preset: str = "veryfast",
    keyframe_interval: int = 12,
    pixel_format: PixelFormat = "yuv420p",
    timeout: float = 600.0,
) -> list[bytes]:
    """Encodes many short clips with few processes; each result equals `encode`'s of that clip.

    The arguments are those of `encode`; `timeout` is for each process.
    """
    options = x264_options(crf, preset, keyframe_interval, threads=1)
    checked = [_checked(clip) for clip in clips]
    contents = []
    for first in range(0, len(checked), _CLIPS_PER_PROCESS):
        group = checked[first : first + _CLIPS_PER_PROCESS]
        name = f"<clips {first} to {first + len(group) - 1}>"
        contents += _run(group, Fraction(fps), pixel_format, options, None, name, timeout)
    return contents


def write_whole(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file whole or not at all: to a temporary file beside it, then renamed.

    Raises:
      VideoError: the disk is full; nothing is left behind.
      OSError: the folder is absent or not writable.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ffmpeg.disk_error(os.fspath(path), error) from error
        raise


def _run(
    clips: Sequence[np.ndarray],
    fps: Fraction,
    pixel_format: PixelFormat,
    options: Sequence[str],
    times: str | None,
    name: str,
    timeout: float,
) -> list[bytes]:
    """One process that encodes every clip to its own MP4."""
    if fps <= 0:
        raise ValueError(f"fps is {fps}; give frames per second above 0")
    with ffmpeg.Job() as job:
        inputs, outputs, results = [], [], []
        for number, clip in enumerate(clips):
            _, h, w, c = clip.shape
            feed, result = job.feed([clip.data.cast("B")]), job.result()
            results.append(result)
            inputs += [
                *("-f", "rawvideo", "-pixel_format", _INPUT_PIXELS[c], "-video_size", f"{w}x{h}"),
                *("-framerate", str(fps), "-i", f"pipe:{feed.childs.number}"),
            ]
            filters = f"scale={TO_BT709},format={pixel_format},setparams={BT709_TAGS}"
            if pixel_format == "yuv420p" and (h % 2 or w % 2):
                right, bottom = w % 2, h % 2
                filters = (
                    f"pad={w + right}:{h + bottom},"
                    f"fillborders=right={right}:bottom={bottom}:mode=smear,{filters}"
                )
            # ffmpeg guesses a rate of its own from the raw input: each frame is timed here instead.
            timing = f"settb=1/({fps}),setpts=N"
            if times is not None:
                timing = f"settb=1/{_TICKS},setpts='{times}'"
            filters = f"{timing},{filters}"
            # A filter text may be longer than one argument of a process may be.
            script = job.feed([memoryview(filters.encode())])
            outputs += ["-map", f"{number}:v", "-/filter:v", f"pipe:{script.childs.number}"]
            outputs += ["-fps_mode", "passthrough", "-enc_time_base", "filter"]
            outputs += [*options, *result.options]
        job.run(["-loglevel", "level+verbose", *inputs, *outputs], name=name, timeout=timeout)
        if job.returncode:
            reason = f"ffmpeg could not encode it: {messages.first_error(job.log)}"
            raise VideoError(name, reason, "check crf, preset and size")
        return [result.read() for result in results]


def x264_options(
    crf: int, preset: str, keyframe_interval: int, threads: int, *, cabac: bool = True
) -> list[str]:
    """Options of an H.264 output whose bytes depend on its frames alone.

    Without CABAC, files grow by about 5 % and decode faster. The message (SEI) in which x264 writes
    its version and options is left out: in a short clip it is a tenth of the bytes.
    """
    if not 0 <= crf <= 51:
        raise ValueError(f"crf is {crf}; give 0 (best) to 51 (worst)")
    if keyframe_interval < 1:
        raise ValueError(f"keyframe_interval is {keyframe_interval}; give at least 1 frame")
    return [
        *("-c:v", "libx264", "-preset", preset, "-crf", str(crf), "-threads:v", str(threads)),
        *("-g", str(keyframe_interval), "-x264-params", f"scenecut=0:open-gop=0:cabac={cabac:d}"),
        *("-bsf:v", "filter_units=remove_types=6"),
        *("-map_metadata", "-1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-f", "mp4"),
    ]


def _checked(frames: np.ndarray) -> np.ndarray:
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.dtype != np.uint8 or frames.shape[3] not in _INPUT_PIXELS:
        raise ValueError(
            f"frames are {frames.dtype} {list(frames.shape)}; give uint8 [t h w c], c = 1, 3 or 4"
        )
    if 0 in frames.shape:
        raise ValueError(f"frames of shape {list(frames.shape)} are empty; give at least one")
    return np.ascontiguousarray(frames)


def _ticks(timestamps: Sequence[float] | np.ndarray, frames: int) -> str:
    """An expression of the frame number N whose value is its time stamp in ticks."""
    seconds = np.asarray(timestamps, np.float64)
    if seconds.shape != (frames,):
        raise ValueError(f"timestamps have shape {list(seconds.shape)}; give one for each frame")
    ticks = np.rint((seconds - seconds[0]) * _TICKS).astype(np.int64)
    if np.any(ticks[1:] <= ticks[:-1]):
        raise ValueError(f"timestamps do not increase by 1/{_TICKS} s or more; sort them")
    return filters.lookup(ticks.tolist())
