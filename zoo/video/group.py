"""Many clips in one ffmpeg process, decoded one after the other.

Starting a process costs more than decoding a short clip, and decoders that run side by side push
each other out of the caches; both are measured by `python -m experiments.bench input`.
"""

import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from zoo.video import clock, ffmpeg, filters, headers, messages
from zoo.video.clip import STAMP_BYTES, Clip, ClipRequest, Output, make_clip, raw_output
from zoo.video.errors import VideoError
from zoo.video.probe import ending_problem


def decode_group(
    group: Sequence[tuple[ClipRequest, clock.Seek]], output: Output
) -> list[Clip | clock.Seek | None]:
    """One process for a group: a clip, where to seek instead, or None for "decode it alone"."""
    bad: set[int] = set()
    while len(group) - len(bad) > 1:
        members = [number for number in range(len(group)) if number not in bad]
        try:
            outcomes, blamed = _run_group([group[number] for number in members], output)
        except (VideoError, ffmpeg.OutputTooLarge):
            break
        if outcomes is not None:
            results: list[Clip | clock.Seek | None] = [None] * len(group)
            for number, outcome in zip(members, outcomes, strict=True):
                results[number] = outcome
            return results
        if not blamed:
            break
        bad |= {members[number] for number in blamed}
    return [None] * len(group)


class _Member(NamedTuple):
    """One clip of a group; `known` is the start of its stream where the file was read before."""

    request: ClipRequest
    seek: clock.Seek
    count: int
    file: headers.Identity | None
    known: Fraction | None


def _run_group(
    group: Sequence[tuple[ClipRequest, clock.Seek]], output: Output
) -> tuple[list[Clip | clock.Seek | None] | None, set[int]]:
    """Clips that are decoded one after the other into one stream of frames.

    Every clip is padded to its count, so that the place of each in the stream is known; padding has
    no frame number and is cut off again.

    Returns:
      An outcome for each, or None and the numbers of those that kept the process from running.
    """
    assert isinstance(output.size, tuple)
    members, inputs, blamed = [], [], set()
    with ffmpeg.Job() as job:
        for number, (request, seek) in enumerate(group):
            try:
                descriptor = job.open(request.source, request.display_name)
            except (VideoError, OSError):
                blamed.add(number)
                continue
            file = None if isinstance(request.source, bytes) else headers.identity(descriptor)
            known = None if file is None else headers.stream_start(file)
            if seek.certain and seek.first is not None and not seek.quick:
                known = None  # The seek was computed for a run of the other kind.
            elif seek.quick and known is None:
                blamed.add(number)
                continue
            members.append(_Member(request, seek, request.count or 0, file, known))
            inputs += [] if known is None else headers.OPTIONS
            inputs += [*seek.options, "-threads", str(output.threads)]
            inputs += ffmpeg.input_options(descriptor)
        if blamed:
            return None, blamed
        script = job.feed([memoryview(_graph(members, output).encode())])
        total = sum(member.count for member in members)
        expected = total * math.prod(output.size) * output.channels
        frames, stamps = job.sink(expected), job.sink(STAMP_BYTES)
        arguments = [
            *("-loglevel", "level+info", "-filter_complex_threads", "1", *inputs),
            *("-/filter_complex", f"pipe:{script.childs.number}", "-map", "[all]"),
            *raw_output(frames, stamps),
        ]
        job.run(arguments, name=group[0][0].display_name, timeout=output.timeout)
    if job.returncode:
        return None, messages.blamed_inputs(job.log)
    said = messages.parse(job.log)
    found = clock.stamps(stamps.data.decode())
    if len(found) != total or len(frames.data) != expected:
        return None, set()
    suspects = said.suspects()
    pictures = np.frombuffer(frames.data, np.uint8).reshape(total, -1)
    outcomes, done = [], 0
    for number, member in enumerate(members):
        own = [stamp for stamp in found[done : done + member.count] if stamp.number >= 0]
        flat = pictures[done : done + len(own)]
        about, damaged = said.inputs[number], number in suspects
        outcomes.append(_outcome(member, flat, own, about, output, damaged=damaged))
        done += member.count
    return outcomes, set()


def _graph(members: Sequence[_Member], output: Output) -> str:
    """The filters of a group: every clip, then its padding, and all in one row."""
    assert isinstance(output.size, tuple)
    h, w = output.size
    planes = filters.FORMATS[output.pixels][1]
    scaling = filters.scaling(output.size, output.fit)
    padding = filters.padding(output.size, output.fit)
    chains = []
    for number, member in enumerate(members):
        trim = f"trim=end_frame={member.count}"
        chains += [
            f"[{number}:V:0]{member.request.selection(member.seek)}{trim},"
            f"{scaling},{planes}{padding},setsar=1[clip{number}]",
            f"color=s={w}x{h},{planes},setsar=1[pad{number}]",
            f"[clip{number}][pad{number}]concat,{trim}[v{number}]",
        ]
    labels = "".join(f"[v{number}]" for number in range(len(members)))
    return ";".join([*chains, f"{labels}concat=n={len(members)}:unsafe=1,setpts=N[all]"])


def _outcome(
    member: _Member,
    flat: np.ndarray,
    found: Sequence[clock.Stamp],
    about: messages.Input,
    output: Output,
    *,
    damaged: bool,
) -> Clip | clock.Seek | None:
    """A clip that is certainly right, where to seek instead, or None."""
    request = member.request
    if member.known is not None:
        about.stream_start = member.known
    elif member.file is not None:
        headers.remember(member.file, about)
    short = len(found) < member.count and ending_problem(request.source, about) is not None
    unsure = damaged or short or not found or any(stamp.guessed for stamp in found)
    # Sound or alpha that ffmpeg treats in a way that only a process of its own shows.
    special = _shifted(about) or (output.pixels == "rgba" and about.separate_alpha)
    better = clock.next_seek(
        request.start, member.seek, about, found, skipped=request.skipped, damaged=damaged
    )
    if special or (unsure and better is None):
        return None
    if better is not None:
        return dataclasses.replace(better, quick=member.known is not None)
    frames = _unpack(flat, len(found), output)
    return make_clip(request, frames, found, member.seek, about)


def _shifted(said: messages.Input) -> bool:
    """Whether ffmpeg may have moved the start, which it says only where the log is verbose."""
    return "mpeg" in said.container and said.start != said.stream_start


def _unpack(flat: np.ndarray, t: int, output: Output) -> np.ndarray:
    """Frames [t h w c] from ffmpeg's planes in the order G, B, R, or from packed pixels."""
    assert isinstance(output.size, tuple)
    h, w = output.size
    if output.channels != 3:
        return flat.reshape(t, h, w, output.channels).copy()
    planes = flat.reshape(t, 3, h, w)
    frames = np.empty((t, h, w, 3), np.uint8)
    for channel, plane in enumerate((2, 0, 1)):
        frames[..., channel] = planes[:, plane]
    return frames
