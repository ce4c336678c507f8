"""From a large video to a small one in which random access is cheap.

One process decodes, scales and encodes: frames never leave it.
"""

import math

from zoo.video import clock, ffmpeg, messages
from zoo.video.clip import STAMP_BYTES, stamp_options
from zoo.video.encode import BT709_TAGS, TO_BT709, x264_options
from zoo.video.errors import BrokenVideo, VideoError
from zoo.video.ffmpeg import Source
from zoo.video.probe import ending_problem, frame_rate, read_packets


def shrink(
    source: Source,
    *,
    short_side: int,
    keyframe_interval: int = 12,
    crf: int = 20,
    preset: str = "veryfast",
    start: float | None = None,
    end: float | None = None,
    name: str | None = None,
    timeout: float = 600.0,
    threads: int = 1,
) -> bytes:
    """Re-encodes a video, or a part of it, as a small H.264 MP4 with short key frame intervals.

    Frames keep their rate, which becomes exact where the source only rounded it, or else their
    varying times; the first is at 0. Sound and everything else is dropped. Sides become even; a
    video whose short side is smaller already keeps its size.

    Args:
      source: path, or the file's bytes.
      short_side: pixels of the shorter side.
      keyframe_interval: most frames from one key frame to the next.
      crf: constant rate factor, 0 (best) to 51 (worst).
      preset: x264's speed preset.
      start, end: seconds from the video's first frame; frames with start <= t < end are kept.
      name: what errors call the source.
      timeout: seconds for each ffmpeg process, of which there are two or more.
      threads: of the decoder, and of the encoder.

    Raises:
      ValueError: an option is not as described.
      FileNotFoundError, PermissionError: the path cannot be opened.
      NotAVideo, BrokenVideo, VideoTooLarge, VideoTimeout: see zoo.video.errors.
      VideoError: no frame lies between start and end.
    """
    name = ffmpeg.display_name(source, name)
    begin, stop = start or 0.0, math.inf if end is None else end
    if not 0 <= begin < stop:
        raise ValueError(f"{name}: the part from {start} s to {end} s is empty; give start < end")
    if short_side < 2:
        raise ValueError(f"short_side is {short_side}; give at least 2 pixels")
    options = x264_options(crf, preset, keyframe_interval, threads, cabac=False)
    packets, unit, said = read_packets(source, name, timeout)
    if problem := said.problem or ending_problem(source, said):
        raise BrokenVideo(name, problem)
    first = clock.goal(begin, said, unit)
    last = None if end is None else clock.goal(end, said, unit) - 1
    times = sorted(
        packet.decoded_at if packet.shown_at == clock.NO_TIME else packet.shown_at
        for packet in packets
    )
    kept = [time for time in times if first <= time and (last is None or time <= last)]
    if not kept:
        reason = f"no frame lies between {begin:g} s and {stop:g} s"
        raise VideoError(name, reason, f"give a part of its {len(times)} frames")
    rate, variable = frame_rate(kept, packets[-1].duration, unit)
    seek = clock.exact_seek(begin, said, unit)
    while True:
        timing = "setpts=PTS-STARTPTS" if variable or not rate else f"settb=1/({rate}),setpts=N"
        upper = None if last is None else last - clock.shift(seek.at, said, unit)
        with ffmpeg.Job() as job:
            descriptor, result = job.open(source, name), job.result()
            stamps = job.sink(STAMP_BYTES)
            arguments = [
                *("-loglevel", "level+verbose", "-threads", str(threads), *seek.options),
                *(*ffmpeg.input_options(descriptor), "-map", "0:V:0"),
                *("-vf", f"{_part(seek.first, upper)}{timing},{_scaling(short_side)}"),
                *("-pix_fmt", "yuv420p", *stamp_options(stamps)),
                *([] if last is None else ["-frames:v", str(len(kept))]),
                *(*options, *result.options),
            ]
            job.run(arguments, name=name, timeout=timeout)
            content = result.read()
        if job.returncode:
            raise messages.failure(job.log, name)
        log = messages.parse(job.log)
        problem = log.inputs[0].problem
        if problem is None and log.decoder_errors:
            problem = messages.damaged(log.decoder_errors[0][1])
        found = clock.stamps(stamps.data.decode())
        better = clock.next_seek(begin, seek, log.inputs[0], found, damaged=problem is not None)
        if better is not None:
            seek = better
        elif problem is not None or not found:
            raise BrokenVideo(name, problem or "no frame could be decoded")
        elif len(found) != len(kept) and not variable:
            # Packets that are not shown: the frames' own times must tell.
            variable = True
        else:
            return content


def _part(first: int | None, last: int | None) -> str:
    """A filter and a comma that lets the wanted time stamps pass."""
    bounds = [] if first is None else [f"gte(pts,{first})"]
    bounds += [] if last is None else [f"lte(pts,{last})"]
    return f"select='{'*'.join(bounds)}'," if bounds else ""


def _scaling(short_side: int) -> str:
    short = short_side - short_side % 2
    wide = f"if(lte(iw,ih),min({short},2*floor(iw/2)),-2)"
    high = f"if(lte(iw,ih),-2,min({short},2*floor(ih/2)))"
    return f"scale=w='{wide}':h='{high}':{TO_BT709},setparams={BT709_TAGS}"
