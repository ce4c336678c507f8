"""From a compressed file back to pictures, or to an ordinary video."""

import dataclasses
import os
import pathlib
import warnings
from typing import Any, NamedTuple

import numpy as np

from zoo.codec import container, hybrid, source
from zoo.codec.container import File, OnError
from zoo.codec.errors import BrokenFile, CodecError, CodecWarning, CutShort, TooLarge
from zoo.codec.source import Pictures, chroma


class Decoded(NamedTuple):
    """Pictures, and one error for each place where the file is damaged."""

    pictures: Pictures
    problems: tuple[CodecError, ...]


def decode(
    file: str | os.PathLike | bytes,
    *,
    start: float = 0.0,
    end: float | None = None,
    on_error: OnError = "raise",
    max_bytes: int = 2**31,
    name: str | None = None,
) -> Decoded:
    """Decodes a file, or the frames with times in [start, end), for which only their groups are.

    Of an MP4 with a filter (zoo.codec.hybrid) all frames are decoded, and the filter's are given.

    Args:
      file: path, or the file's bytes.
      start, end: seconds from the first frame.
      on_error: of a damaged group: "raise", or leave out its frames ("skip"), or show the frame
        before in their place ("freeze"). A file that ends early gives its whole groups and a
        warning (CodecWarning) whichever it is; its first group must be whole.
      max_bytes: most bytes of frames to return.
      name: what errors call the file.

    Raises:
      CodecError: see zoo.codec.errors. VideoError: the MP4 of a filter is damaged.
      OSError: the path cannot be read.
    """
    name = name or (f"<{len(file)} bytes>" if isinstance(file, bytes) else os.fspath(file))
    data = file if isinstance(file, bytes) else pathlib.Path(file).read_bytes()
    if (corrected := hybrid.decode(data, name, max_bytes=max_bytes)) is not None:
        return Decoded(_between(corrected, start, end), ())
    read = container.parse(data, name)
    damage = [problem for problem in read.problems if not isinstance(problem, CutShort)]
    if damage and on_error == "raise":
        raise damage[0]
    for problem in read.problems:
        warnings.warn(str(problem), CodecWarning, stacklevel=2)
    header = read.header
    groups = [group for group in read.groups if _overlaps(group, header, start, end)]
    if not read.groups and read.problems:
        raise read.problems[0]
    if not groups:
        reason = f"it has no whole group of frames from {start:g} s on"
        raise BrokenFile(name, reason, "ask for another part, or replace the file")
    last = groups[-1].first + len(groups[-1].ticks)
    span = last - groups[0].first if on_error == "freeze" else sum(len(g.ticks) for g in groups)
    frame = header.width * header.height + 2 * chroma(header.width) * chroma(header.height)
    needed = span * frame * (1 if header.depth == 8 else 2)
    if needed > max_bytes:
        raise TooLarge(name, f"its frames take {needed} bytes, above {max_bytes}")
    parts = [_decoded(group, header, name) for group in groups]
    if on_error == "freeze":
        parts = _frozen(groups, parts)
    return Decoded(_joined(header, groups, parts, start, end), read.problems)


class _Part(NamedTuple):
    ticks: list[int]
    y: np.ndarray
    uv: np.ndarray


def _overlaps(
    group: container.Group, header: container.Header, start: float, end: float | None
) -> bool:
    begin, stop = group.ticks[0], group.ticks[-1] + group.last
    return stop * header.time_base > start and (end is None or begin * header.time_base < end)


def _decoded(group: container.Group, header: container.Header, name: str) -> _Part:
    from zoo.codec import group as coding
    from zoo.codec import padding
    from zoo.codec.network import Shape

    shape = Shape(header.height, header.width)
    try:
        planes = coding.decode(group.data, len(group.ticks), shape)
    except (ValueError, AssertionError) as error:  # constriction asserts that data are possible
        raise BrokenFile(name, str(error), group=group.number, offset=group.offset) from error
    return _Part(list(group.ticks), *padding.samples(planes, shape, header.depth))


def _frozen(groups: list[container.Group], parts: list[_Part]) -> list[_Part]:
    """Between groups that are not neighbours, the last frame before the gap, in even steps."""
    result = [parts[0]]
    for before, after, part in zip(groups[:-1], groups[1:], parts[1:], strict=True):
        lost = after.first - before.first - len(before.ticks)
        if lost > 0:
            low, high = before.ticks[-1], after.ticks[0]
            ticks = [low + (high - low) * (k + 1) // (lost + 1) for k in range(lost)]
            y, uv = (np.repeat(x[-1:], lost, 0) for x in (result[-1].y, result[-1].uv))
            result.append(_Part(ticks, y, uv))
        result.append(part)
    return result


def _joined(
    header: container.Header,
    groups: list[container.Group],
    parts: list[_Part],
    start: float,
    end: float | None,
) -> Pictures:
    pictures = Pictures(
        y=np.concatenate([part.y for part in parts]),
        uv=np.concatenate([part.uv for part in parts]),
        ticks=tuple(tick for part in parts for tick in part.ticks),
        time_base=header.time_base,
        last=groups[-1].last,
        depth=header.depth,
        matrix=source.MATRICES[min(header.matrix, len(source.MATRICES) - 1)],
        color_range=source.RANGES[min(header.color_range, len(source.RANGES) - 1)],
    )
    return _between(pictures, start, end)


def _between(pictures: Pictures, start: float, end: float | None) -> Pictures:
    """The frames with times in [start, end), at least one."""
    ticks, base = pictures.ticks, pictures.time_base
    low = next((k for k, tick in enumerate(ticks) if tick * base >= start), None)
    kept = [k for k, tick in enumerate(ticks) if end is None or tick * base < end]
    first = len(ticks) - 1 if low is None else low
    places = slice(first, max(kept[-1] + 1 if kept else 0, first + 1))
    return dataclasses.replace(
        pictures, y=pictures.y[places], uv=pictures.uv[places], ticks=ticks[places]
    )


def decompress(
    file: str | os.PathLike,
    path: str | os.PathLike,
    *,
    start: float = 0.0,
    end: float | None = None,
    on_error: OnError = "raise",
    max_bytes: int = 2**31,
) -> Decoded:
    """Decodes `file` and writes it without loss to `path`; see `decode` and source.write."""
    decoded = decode(file, start=start, end=end, on_error=on_error, max_bytes=max_bytes)
    pictures = decoded.pictures
    shifted = tuple(tick - pictures.ticks[0] for tick in pictures.ticks)
    source.write(dataclasses.replace(pictures, ticks=shifted), path)
    return decoded


def info(file: str | os.PathLike | bytes, *, name: str | None = None) -> dict[str, Any]:
    """What a file says about itself, without decoding; raises as `decode`."""
    name = name or (f"<{len(file)} bytes>" if isinstance(file, bytes) else os.fspath(file))
    data = file if isinstance(file, bytes) else pathlib.Path(file).read_bytes()
    if (said := hybrid.info(data, name)) is not None:
        return said
    read: File = container.parse(data, name)
    header = read.header
    ticks = sum(g.ticks[-1] + g.last - g.ticks[0] for g in read.groups)
    seconds = float(ticks * header.time_base)
    return {
        "bytes": len(data),
        "width": header.width,
        "height": header.height,
        "bit_depth": header.depth,
        "matrix": source.MATRICES[min(header.matrix, len(source.MATRICES) - 1)],
        "range": source.RANGES[min(header.color_range, len(source.RANGES) - 1)],
        "time_base": str(header.time_base),
        "frames": header.frames,
        "seconds": seconds,
        "bits_per_second": 8 * len(data) / seconds if seconds else 0.0,
        "decoder": container.definition_hash().hex(),
        "groups": [
            {
                "number": g.number,
                "first_frame": g.first,
                "frames": len(g.ticks),
                "start": float(g.ticks[0] * header.time_base),
                "bytes": len(g.data),
                "offset": g.offset,
            }
            for g in read.groups
        ],
        "problems": [str(problem) for problem in read.problems],
    }
