"""From video files to uint8 frames: whole videos, clips, and many clips at once.

ffmpeg seeks, decodes, picks frames and scales, so that neither unwanted nor full-size frames cross
the pipe.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np

from zoo.video import clock, damage, ffmpeg, filters, messages
from zoo.video.clip import STAMP_BYTES, Clip, ClipRequest, Output, make_clip, raw_output
from zoo.video.errors import BrokenVideo, VideoError, VideoTooLarge
from zoo.video.ffmpeg import Source
from zoo.video.filters import Fit, Pixels, Size
from zoo.video.group import decode_group
from zoo.video.probe import ending_problem, read_packets

# More clips in one process share the cost of its start, but each adds a decoder's memory.
_CLIPS_PER_PROCESS = 16
_BYTES_PER_PROCESS = 2**28
# ffmpeg's own decoders of these codecs leave alpha out.
_ALPHA_DECODERS = {"vp8": ["-c:v", "libvpx"], "vp9": ["-c:v", "libvpx-vp9"]}


def decode(
    source: Source,
    *,
    start: float = 0.0,
    frames: int | None = None,
    stride: int = 1,
    fps: Fraction | int | None = None,
    indices: Sequence[int] | None = None,
    size: Size = None,
    fit: Fit = "stretch",
    pixels: Pixels = "rgb",
    partial: bool = False,
    name: str | None = None,
    timeout: float = 60.0,
    max_bytes: int = 2**31,
    threads: int = 1,
) -> Clip:
    """Decodes a video or a clip of it, upright and scaled.

    Args:
      source: path, or the file's bytes.
      start: seconds from the video's first frame; the clip begins with the first frame at or after.
      frames: how many frames to return; None for all. A video that ends earlier gives fewer.
      stride: take every stride-th frame.
      fps: take the frame that is on display at start + k / fps instead, k = 0, 1, ...
      indices: take exactly these frames, counted from the one at `start`; non-decreasing. Those
        past the end are left out.
      size: (h, w), or an int for the shorter side, or None for the file's own size. The pixel
        aspect ratio that a file may declare is ignored: stored pixels are taken as square.
      fit: how (h, w) is met: "stretch", "crop" (cover, then centre crop), "pad" (black bars).
      pixels: "rgb" (c = 3, alpha dropped), "gray" (c = 1, luma) or "rgba" (c = 4).
      partial: return the good frames of a broken file, and the reason in `Clip.error`. Frames are
        counted as a decoder that drops damaged ones gives them.
      name: what errors call the source.
      timeout: seconds for each ffmpeg process; a broken or badly indexed file may take several.
      max_bytes: most bytes of frames to return.
      threads: decoder threads.

    Returns:
      Frames and their times. The times are those of the frames, also with `fps`.

    Raises:
      FileNotFoundError, PermissionError: the path cannot be opened.
      NotAVideo, BrokenVideo, VideoTooLarge, VideoTimeout: see zoo.video.errors. A file is broken
        when the part asked for has damaged frames, or ends because the file was cut short.
      VideoError: `start` or `indices` lie past the end.
    """
    request = ClipRequest(
        source,
        name=name,
        start=start,
        frames=frames,
        stride=stride,
        fps=None if fps is None else Fraction(fps),
        indices=None if indices is None else tuple(map(int, indices)),
    )
    output = Output(size, fit, pixels, partial, timeout, max_bytes, threads)
    return _decode_alone(request, output)


def decode_many(
    requests: Sequence[ClipRequest],
    *,
    size: Size,
    fit: Fit = "stretch",
    pixels: Pixels = "rgb",
    partial: bool = False,
    timeout: float = 60.0,
    max_bytes: int = 2**31,
    threads: int = 1,
) -> list[Clip | VideoError]:
    """Decodes many clips with few processes; each result equals `decode`'s of that request.

    The arguments are those of `decode`; `max_bytes` bounds each clip. A clip that fails is an
    error in the list, also where its file cannot be opened, and leaves the others as they are.
    Processes are shared where `size` is (h, w) and requests say how many frames they want.
    """
    output = Output(size, fit, pixels, partial, timeout, max_bytes, threads)
    results: list[Clip | VideoError | None] = [None] * len(requests)
    shared: list[tuple[int, clock.Seek]] = []
    for number, request in enumerate(requests):
        if isinstance(size, tuple) and request.count is not None and len(requests) > 1:
            try:
                output.check(request)
                shared.append((number, clock.first_seek(request.start)))
            except VideoTooLarge as error:
                results[number] = error
    while shared:
        again: list[tuple[int, clock.Seek]] = []
        for group in _batches(shared, requests, output):
            outcomes = decode_group([(requests[n], seek) for n, seek in group], output)
            for (number, _), outcome in zip(group, outcomes, strict=True):
                if isinstance(outcome, clock.Seek):
                    again.append((number, outcome))
                else:
                    results[number] = outcome
        shared = again
    return [
        _decode_or_error(requests[number], output) if result is None else result
        for number, result in enumerate(results)
    ]


def _batches(
    shared: Sequence[tuple[int, clock.Seek]], requests: Sequence[ClipRequest], output: Output
) -> Iterator[list[tuple[int, clock.Seek]]]:
    """Groups of limited number and size."""
    group, total = [], 0
    for number, seek in shared:
        needed = output.bytes_of(requests[number])
        if group and (len(group) == _CLIPS_PER_PROCESS or total + needed > _BYTES_PER_PROCESS):
            yield group
            group, total = [], 0
        group.append((number, seek))
        total += needed
    if group:
        yield group


def _decode_or_error(request: ClipRequest, output: Output) -> Clip | VideoError:
    try:
        return _decode_alone(request, output)
    except VideoError as error:
        return error
    except OSError as error:
        reason = f"it cannot be opened ({error.strerror})"
        return VideoError(request.display_name, reason, "check the path and its permissions")


@dataclasses.dataclass
class _Run:
    """What one process for one clip gave."""

    frames: np.ndarray
    found: list[clock.Stamp]
    said: messages.Input
    log: str
    problem: str | None


def _decode_alone(request: ClipRequest, output: Output) -> Clip:
    """As many processes as it takes to be sure of one clip."""
    output.check(request)
    seek = clock.first_seek(request.start)
    decoder: list[str] = []
    while True:
        run = _run_alone(request, seek, output, decoder=decoder)
        if output.pixels == "rgba" and run.said.separate_alpha and not decoder:
            decoder = _ALPHA_DECODERS.get(run.said.codec, [])
            if decoder:
                continue
        damaged = run.problem is not None
        better = clock.next_seek(
            request.start, seek, run.said, run.found, skipped=request.skipped, damaged=damaged
        )
        past = run.said.duration is not None and request.start > run.said.duration + 1
        if better is None or (past and not run.found):
            break
        seek = better
    if run.problem is not None:
        return _judge(request, output, run.problem)
    if not run.found:
        raise _nothing_there(request, run.said)
    return make_clip(request, run.frames, run.found, seek, run.said)


def _run_alone(
    request: ClipRequest,
    seek: clock.Seek,
    output: Output,
    *,
    strict: bool = False,
    decoder: Sequence[str] = (),
) -> _Run:
    name = request.display_name
    with ffmpeg.Job() as job:
        descriptor = job.open(request.source, name)
        frames, stamps = job.sink(output.max_bytes), job.sink(STAMP_BYTES)
        packed = filters.FORMATS[output.pixels][0]
        filter_text = (
            f"{request.selection(seek)}{filters.scaling(output.size, output.fit)},{packed}"
            f"{filters.padding(output.size, output.fit)}"
        )
        script = job.feed([memoryview(filter_text.encode())])
        threads = damage.STRICT_INPUT if strict else ["-threads", str(output.threads)]
        arguments = [
            *("-loglevel", "level+verbose", *(damage.STRICT_GLOBAL if strict else [])),
            *(*seek.options, *threads, *decoder, *ffmpeg.input_options(descriptor)),
            *("-map", "0:V:0"),
            *("-/filter:v", f"pipe:{script.childs.number}"),
            *([] if request.count is None else ["-frames:v", str(request.count)]),
            *raw_output(frames, stamps),
        ]
        shorten = damage.shorten if strict else None
        try:
            job.run(arguments, name=name, timeout=output.timeout, shorten=shorten)
        except ffmpeg.OutputTooLarge:
            reason = f"its frames take more than {output.max_bytes} bytes"
            raise VideoTooLarge(name, reason) from None
    if job.returncode:
        raise messages.failure(job.log, name)
    said = messages.parse(job.log)
    found = clock.stamps(stamps.data.decode())
    h, w = said.outputs.get(0, (0, 0))
    problem = said.inputs[0].problem
    if problem is None and said.decoder_errors:
        problem = messages.damaged(said.decoder_errors[0][1])
    if request.count is None or len(found) < request.count:
        problem = problem or ending_problem(request.source, said.inputs[0])
    shape = len(found), h, w, output.channels
    if math.prod(shape) != len(frames.data):
        reason = f"ffmpeg gave {len(frames.data)} bytes for frames of shape {list(shape)}"
        raise BrokenVideo(name, reason)
    pictures = np.frombuffer(frames.data, np.uint8).reshape(shape)
    return _Run(pictures, found, said.inputs[0], job.log, problem)


def _judge(request: ClipRequest, output: Output, problem: str) -> Clip:
    """Decodes strictly from the beginning and tells damaged frames from good ones.

    `problem` may lie outside the part that was asked for: ffmpeg reads ahead.
    """
    name = request.display_name
    packets, unit, file_said = read_packets(request.source, name, output.timeout)
    goal = clock.goal(request.start, file_said, unit)
    seek = clock.from_beginning(request.start, file_said, unit)
    run = _run_alone(request, seek, output, strict=True)
    shift = clock.shift(None, run.said, unit)
    times = [stamp.ticks + shift for stamp in run.found]
    complete = request.count is not None and len(times) == request.count
    # ffmpeg stops after a complete clip: later packets are not expected to be decoded.
    expected = [packet for packet in packets if not complete or packet.shown_at <= times[-1]]
    good, lost = damage.good_frames(
        expected, damage.decoded_frames(run.log), shift, holes=file_said.has_holes
    )
    if complete and not any(goal <= time <= times[-1] for time in lost):
        # In a file that was cut short, pictures that are shown before its last packet's time of
        # decoding are all there; between later ones, some may be missing.
        cut = file_said.cut_short or ending_problem(request.source, file_said) is not None
        if not cut or times[-1] <= packets[-1].decoded_at:
            return make_clip(request, run.frames, run.found, seek, run.said)
    kept = [k for k, stamp in enumerate(run.found) if good[stamp.number]]
    lost = [time for time in lost if time >= goal]
    if not lost and file_said.problem is None and run.problem is None:
        return make_clip(request, run.frames, run.found, seek, run.said)
    advice = "replace the file, or pass partial=True to keep its good frames"
    error = BrokenVideo(name, problem, advice, good_frames=len(kept))
    if not output.partial:
        raise error
    return make_clip(request, run.frames, run.found, seek, run.said, kept=kept, error=error)


def _nothing_there(request: ClipRequest, said: messages.Input) -> VideoError:
    name = request.display_name
    if request.start == 0 and (request.indices is None or request.indices[0] == 0):
        return BrokenVideo(name, "no frame could be decoded")
    first = "" if request.indices is None else f", frame {request.indices[0]}"
    length = "" if said.duration is None else f", of which it has {float(said.duration):.3f}"
    reason = f"nothing is left from {request.start:g} s on{first}{length} s"
    return VideoError(name, reason, "ask for an earlier part")
