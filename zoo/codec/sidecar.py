"""Weights of filters in a box at the end of an MP4, which players pass over.

    u32 4 bytes  size of the box, "uuid" (ISO/IEC 14496-12, 4.2)
    16 bytes     UUID, below
    u8           version
    u32 u32      width and height of the pictures, without what an even size adds
    u32          CRC-32 of the file before the box: the filters are for these pictures only
    data         the weights of the three planes, range-coded
    u32          CRC-32C of the box before it

Numbers are big-endian, as everywhere in an MP4.
"""

import dataclasses
import struct
import uuid
import zlib
from typing import TYPE_CHECKING

import numpy as np

from zoo.codec.checksum import crc32c
from zoo.codec.errors import BrokenFile, WrongDecoder

if TYPE_CHECKING:
    from zoo.codec import entropy

UUID = uuid.UUID("6f0c9d1e-7b52-4a3c-9a57-2f1d8c4be0a9").bytes
VERSION = 1
STEP = 1 / 128  # Of the weights.
_HEAD = struct.Struct(">I4s16sBIII")
_CHECK = struct.Struct(">I")
MAX_BOX = 1 << 16
_PLANES = 3


@dataclasses.dataclass(frozen=True)
class Filters:
    """Weights of Y, U and V in units of STEP, int64 [3 CLASSES FEATURES], and the true size."""

    width: int
    height: int
    weights: np.ndarray


def pack(filters: Filters, movie: bytes) -> bytes:
    """The box to put behind `movie`."""
    data = _coded(filters.weights)
    size = _HEAD.size + len(data) + _CHECK.size
    facts = filters.width, filters.height, zlib.crc32(movie)
    body = _HEAD.pack(size, b"uuid", UUID, VERSION, *facts) + data
    return body + _CHECK.pack(crc32c(body))


def find(data: bytes) -> int | None:
    """Where the box begins in an MP4; None where there is none."""
    place = 0
    if data[4:8] != b"ftyp":
        return None
    while place + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"uuid" and data[place + 8 : place + 24] == UUID:
            return place
        if size == 1 and place + 16 <= len(data):
            size = struct.unpack_from(">Q", data, place + 8)[0]
        if size < 8:
            return None
        place += size
    return None


def parse(data: bytes, place: int, name: str) -> Filters:
    """The filters in the box at `place`; raises BrokenFile or WrongDecoder."""
    box = data[place:]
    advice = "play the file without its filter, which any player does, or replace it"
    if not _HEAD.size + _CHECK.size <= len(box) <= MAX_BOX:
        raise BrokenFile(name, "its filter's box has no possible size", advice, offset=place)
    size, _, _, version, width, height, movie = _HEAD.unpack_from(box)
    if version != VERSION:
        reason = f"its filter has version {version}; this is version {VERSION}"
        raise WrongDecoder(name, reason, offset=place)
    if size != len(box) or _CHECK.unpack_from(box, size - 4)[0] != crc32c(box[:-4]):
        raise BrokenFile(name, "its filter's checksum is wrong", advice, offset=place)
    if movie != zlib.crc32(data[:place]):
        raise BrokenFile(name, "its filter was made for other pictures", advice, offset=place)
    return Filters(width, height, _decoded(box[_HEAD.size : -4], name, place))


def _coded(weights: np.ndarray) -> bytes:
    from zoo.codec import entropy

    coder = entropy.Encoder()
    _code(coder, weights)
    return coder.finish()


def _decoded(data: bytes, name: str, place: int) -> np.ndarray:
    from zoo.codec import entropy

    try:
        return _code(entropy.Decoder(data), None)
    except (ValueError, AssertionError) as error:  # constriction asserts that data are possible
        raise BrokenFile(name, f"its filter: {error}", offset=place) from error


def _code(coder: "entropy.Coder", weights: np.ndarray | None) -> np.ndarray:
    """Of each plane: which filter it is, which classes have weights, and these."""
    from zoo.codec import entropy, wiener

    result = np.zeros((_PLANES, wiener.CLASSES, wiener.FEATURES), np.int64)
    numbers = entropy.Signed(wiener.FEATURES, 1)
    for plane in range(_PLANES):
        given = None if weights is None else weights[plane]
        kind = None if given is None else np.array([_kind(given)])
        kind = int(coder.raw(1 + len(wiener.choices()), 1, kind)[0])
        if not kind:
            continue
        features, together = wiener.choices()[kind - 1]
        rows = 1 if together else wiener.CLASSES
        there = None if given is None else given[:rows].any(1).astype(np.int64)
        there = coder.raw(2, rows, there)
        for row in np.flatnonzero(there):
            values = None if given is None else given[row, :features]
            result[plane, row, :features] = numbers.code(coder, np.arange(features), values)
        if together:
            result[plane] = result[plane, 0]
    return np.clip(result, -127, 127)


def _kind(weights: np.ndarray) -> int:
    """0 for no filter, else 1 and the number of the smallest of wiener.choices() that has it."""
    from zoo.codec import wiener

    if not weights.any():
        return 0
    for number, (features, together) in enumerate(wiener.choices()):
        if not weights[:, features:].any() and (not together or np.all(weights == weights[0])):
            return 1 + number
    raise AssertionError("the last choice has every filter")


def size_of(weights: np.ndarray) -> int:
    """Bytes that weights [3 CLASSES FEATURES] add to a file."""
    return _HEAD.size + len(_coded(weights)) + _CHECK.size
