"""The file: a header, then groups of pictures, each with its length and checksum. Little-endian.

    header  8 bytes   magic "ZVC\\r\\n\\x1a\\n\\0", which damage by text conversion shows in
            u16       version of the format
            8 bytes   hash of the decoder's definition
            u32 u32   width, height
            u8 u8 u8  bits of a sample (8 or 10), matrix, range (numbers of `source`'s names)
            u32 u32   time base, numerator and denominator
            u32 u32   frames, groups
            u32       CRC-32C of all of the above
    group   4 bytes   magic "GOP!"
            u32 u32   number of the group, number of its first frame
            u16 u32   frames, bytes of data
            time stamps: of the first frame u64, then u32 to each next frame, and the duration of
            the last; then the data
            u32       CRC-32C of all of the group before it

There is no index: it is rebuilt by going from group to group, and where a group is damaged by
looking for the next magic whose checksum holds.
"""

import dataclasses
import hashlib
import struct
from fractions import Fraction
from typing import Literal

import numpy as np

from zoo.codec.checksum import crc32c
from zoo.codec.errors import (
    BrokenFile,
    CodecError,
    CutShort,
    NotACompressedVideo,
    TooLarge,
    WrongDecoder,
)

MAGIC = b"ZVC\r\n\x1a\n\0"
GROUP_MAGIC = b"GOP!"
VERSION = 1
# What a change of the decoder's mathematics or of its symbols must change.
DEFINITION = "wavelet 9/7 in four levels, two networks, motion by labels, three passes; 2"
MAX_SIDE = 1 << 13
MAX_FRAMES_PER_GROUP = 1 << 10
MAX_FRAMES = 1 << 24
MAX_TICK = 1 << 60
# Bytes that are read in search of whole groups in a damaged file, for each byte of it.
SEARCH = 16

# How a reason begins that is a file cut short.
_ENDS = "it ends"

OnError = Literal["raise", "skip", "freeze"]
_HEADER = struct.Struct("<8sH8sIIBBBIIII")
_GROUP = struct.Struct("<4sIIHI")
_CHECK = struct.Struct("<I")


def definition_hash() -> bytes:
    """Eight bytes that name this decoder."""
    return hashlib.sha256(DEFINITION.encode()).digest()[:8]


@dataclasses.dataclass(frozen=True)
class Header:
    """Facts of the whole video; `matrix` and `color_range` are numbers of zoo.codec.source's."""

    width: int
    height: int
    depth: int
    matrix: int
    color_range: int
    time_base: Fraction
    frames: int
    groups: int

    def pack(self) -> bytes:
        """With its checksum."""
        body = _HEADER.pack(
            *(MAGIC, VERSION, definition_hash(), self.width, self.height, self.depth, self.matrix),
            *(self.color_range, self.time_base.numerator, self.time_base.denominator),
            *(self.frames, self.groups),
        )
        return body + _CHECK.pack(crc32c(body))


@dataclasses.dataclass(frozen=True)
class Group:
    """One group of pictures as it lies in the file.

    Attributes:
      number: from 0.
      first: number of its first frame.
      ticks: time stamp of each frame.
      last: duration of the last frame.
      data: what zoo.codec.group decodes.
      offset: bytes from the file's start.
    """

    number: int
    first: int
    ticks: tuple[int, ...]
    last: int
    data: bytes
    offset: int = 0

    def pack(self) -> bytes:
        """With its checksum."""
        count = len(self.ticks)
        steps = np.diff(self.ticks).tolist()
        body = _GROUP.pack(GROUP_MAGIC, self.number, self.first, count, len(self.data))
        body += struct.pack(f"<Q{count}I", self.ticks[0], *steps, self.last) + self.data
        return body + _CHECK.pack(crc32c(body))


@dataclasses.dataclass(frozen=True)
class File:
    """A file that was read.

    Attributes:
      groups: those that are whole, in order.
      problems: one error for each place where something is missing; CutShort where the file ends.
    """

    header: Header
    groups: tuple[Group, ...]
    problems: tuple[CodecError, ...]


def read_header(data: bytes, name: str) -> Header:
    """The header of a file; raises NotACompressedVideo, WrongDecoder, BrokenFile or TooLarge."""
    if data[: len(MAGIC)] != MAGIC:
        raise NotACompressedVideo(name, "it does not begin as a compressed video does", offset=0)
    end = _HEADER.size
    if len(data) < end + _CHECK.size:
        raise BrokenFile(name, f"it ends after {len(data)} bytes, in its header", offset=len(data))
    if _CHECK.unpack_from(data, end)[0] != crc32c(data[:end]):
        raise BrokenFile(name, "its header's checksum is wrong", "replace the file", offset=end)
    _, version, hashed, width, height, depth, matrix, color_range, top, bottom, frames, groups = (
        _HEADER.unpack_from(data)
    )
    if version != VERSION:
        raise WrongDecoder(name, f"it has version {version}; this is version {VERSION}", offset=8)
    if hashed != definition_hash():
        raise WrongDecoder(name, "it was written for another definition of the decoder", offset=10)
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise TooLarge(name, f"its frames are {width}x{height}", f"at most {MAX_SIDE} are decoded")
    if depth not in (8, 10) or not (top and bottom) or frames > MAX_FRAMES or groups > frames:
        raise BrokenFile(name, "its header says what cannot be", "replace the file", offset=18)
    base = Fraction(top, bottom)
    return Header(width, height, depth, matrix, color_range, base, frames, groups)


def parse(data: bytes, name: str) -> File:
    """Reads a file and finds its whole groups; raises as `read_header`."""
    header = read_header(data, name)
    found: dict[int, Group] = {}
    problems: list[CodecError] = []
    place, budget = _HEADER.size + _CHECK.size, SEARCH * len(data)
    while place < len(data) and len(found) < header.groups:
        group = _group_at(data, place, header)
        if isinstance(group, str):
            offset = place
            place, budget = _next(data, place + 1, header, budget)
            # A wrong length looks as a cut does, but whole groups lie behind it.
            cut = group.startswith(_ENDS) and place == len(data) and budget > 0
            kind = CutShort if cut else BrokenFile
            problems.append(kind(name, group, group=len(found), offset=offset))
        else:
            found.setdefault(group.number, group)
            place = group.offset + _length(len(group.ticks), len(group.data))
    missing = [number for number in range(header.groups) if number not in found]
    if missing and not problems:
        reason = f"{_ENDS} after {len(data)} bytes, {len(missing)} groups before its end"
        problems.append(CutShort(name, reason, group=missing[0], offset=len(data)))
    groups: list[Group] = []
    for _, group in sorted(found.items()):
        before = groups[-1] if groups else None
        if before and (
            group.first < before.first + len(before.ticks) or group.ticks[0] < before.ticks[-1]
        ):
            reason = "its frames or their times lie before those of the group before it"
            problems.append(BrokenFile(name, reason, group=group.number, offset=group.offset))
        else:
            groups.append(group)
    return File(header, tuple(groups), tuple(problems))


def _length(count: int, size: int) -> int:
    return _GROUP.size + 8 + 4 * count + size + _CHECK.size


def _next(data: bytes, place: int, header: Header, budget: int) -> tuple[int, int]:
    """Where the next whole group begins, or the file's end, and what is left of the budget.

    A file may be made of beginnings of groups, each of which asks for a checksum of all the rest.
    """
    while budget > 0 and (place := data.find(GROUP_MAGIC, place)) >= 0:
        if not isinstance(_group_at(data, place, header), str):
            return place, budget
        if place + _GROUP.size <= len(data):
            *_, count, size = _GROUP.unpack_from(data, place)
            length = _length(count, size)
            budget -= length if place + length <= len(data) else 0
        place += 1
    return len(data), budget


def _group_at(data: bytes, place: int, header: Header) -> Group | str:
    """The group at a place, or what is wrong with it."""
    if len(data) < place + _GROUP.size:
        return f"{_ENDS} in a group's header"
    magic, number, first, count, size = _GROUP.unpack_from(data, place)
    if magic != GROUP_MAGIC:
        return "no group begins where one should"
    end = place + _length(count, size) - _CHECK.size
    if not 1 <= count <= MAX_FRAMES_PER_GROUP or number >= header.groups:
        return "a group's header says what cannot be"
    if first + count > header.frames:
        return "a group has more frames than the file"
    if end + _CHECK.size > len(data):
        return f"{_ENDS} {end + _CHECK.size - len(data)} bytes before the group does"
    if _CHECK.unpack_from(data, end)[0] != crc32c(data[place:end]):
        return "the group's checksum is wrong: its bytes were changed"
    start, *steps = struct.unpack_from(f"<Q{count}I", data, place + _GROUP.size)
    if start > MAX_TICK:
        return "a group begins at a time that cannot be"
    ticks = (start + np.concatenate([[0], np.cumsum(steps[:-1], dtype=np.int64)])).tolist()
    return Group(number, first, tuple(ticks), steps[-1], data[end - size : end], place)
