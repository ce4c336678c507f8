"""Reads a table of LevelDB's: sorted keys and values in blocks, as indices of TensorFlow are.

The format is that of leveldb's doc/table_format.md: blocks of entries that share the beginning of
the key before, each plain or compressed by Snappy (google/snappy, format_description.txt) and
followed by its checksum, a block that points to them, and 48 bytes at the end that point to that.
"""

from collections.abc import Iterator
from typing import Any

from zoo.weights.crc32c import crc32c, masked

MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
_FOOTER = 48
_TRAILER = 5  # how a block is compressed, and a checksum
# Snappy's shortest way to say most: three bytes that stand for 64.
_SNAPPY_FACTOR = 22


class TableError(ValueError):
    """A damaged table; the message says how."""


def entries(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a table, in order.

    Raises TableError where it is cut off, of another form, or does not fit its checksums.
    """
    if len(table) < _FOOTER or not table.endswith(MAGIC):
        raise TableError("it does not end as an index does")
    footer = table[-_FOOTER:]
    position = 0
    for _ in range(2):  # the first of the two places is that of blocks about blocks, never used
        offset, position = varint(footer, position)
        size, position = varint(footer, position)
    end = 0
    for _, place in _block(_content(table, offset, size)):
        start, position = varint(place, 0)
        size, _ = varint(place, position)
        # Each block once and in order, so that a small table cannot stand for a large one.
        if start < end:
            raise TableError("two blocks overlap")
        end = start + size + _TRAILER
        yield from _block(_content(table, start, size))


def varint(data: bytes, position: int) -> tuple[int, int]:
    """The number that begins there, seven bits a byte, and where it ends; at most 64 bits."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise TableError("a number is cut off")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise TableError("a number has more than 64 bits")


def _content(table: bytes, offset: int, size: int) -> bytes:
    """A block as it was before it was compressed."""
    end = offset + size
    if end + _TRAILER > len(table):
        raise TableError(f"a block ends at byte {end:,} of {len(table):,}")
    stored = int.from_bytes(table[end + 1 : end + _TRAILER], "little")
    if masked(crc32c(table[offset : end + 1])) != stored:
        raise TableError("a block does not fit its checksum")
    if table[end] == 0:
        return table[offset:end]
    if table[end] == 1:
        return _unsnappy(table[offset:end])
    raise TableError(f"a block is compressed by method {table[end]}, which is unknown")


def _block(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The entries of a block. At its end are places to jump to, and how many."""
    if len(block) < 4:
        raise TableError("a block is empty")
    jumps = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * jumps
    if end < 0:
        raise TableError("a block is shorter than its list of places")
    position, key = 0, b""
    while position < end:
        shared, position = varint(block, position)
        own, position = varint(block, position)
        size, position = varint(block, position)
        if shared > len(key) or position + own + size > end:
            raise TableError("an entry reaches beyond its block")
        key = key[:shared] + block[position : position + own]
        position += own
        yield key, block[position : position + size]
        position += size


def _unsnappy(data: bytes) -> bytes:
    size, position = varint(data, 0)
    if size > _SNAPPY_FACTOR * len(data):
        raise TableError(f"{len(data):,} compressed bytes cannot hold {size:,}")
    result = bytearray()
    while position < len(data) and len(result) <= size:
        tag = data[position]
        position += 1
        kind, length = tag & 3, (tag >> 2) + 1
        if kind == 0:  # bytes as they are
            if length > 60:  # the length follows
                extra = length - 60
                length = int.from_bytes(data[position : position + extra], "little") + 1
                position += extra
            if position + length > len(data):
                raise TableError("compressed bytes are cut off")
            result += data[position : position + length]
            position += length
            continue
        width = (0, 1, 2, 4)[kind]
        back = int.from_bytes(data[position : position + width], "little")
        position += width
        if kind == 1:
            back, length = back | tag >> 5 << 8, (tag >> 2 & 7) + 4
        if not 0 < back <= len(result):
            raise TableError("compressed bytes repeat what is not there")
        start = len(result) - back
        piece = bytes(result[start : start + length])
        result += (piece * (length // len(piece) + 1))[:length]  # may repeat itself
    if len(result) != size:
        raise TableError(f"compressed bytes hold {len(result):,}, not {size:,} as they say")
    return bytes(result)


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a protocol buffer by number: numbers, or bytes of what is inside.

    Raises TableError where it is cut off or of another form.
    """
    position = 0
    while position < len(message):
        tag, position = varint(message, position)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, position = varint(message, position)
            yield number, value
            continue
        if kind == 2:
            size, position = varint(message, position)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise TableError(f"a field of kind {kind}")
        content = message[position : position + size]
        if len(content) < size:
            raise TableError("a field is cut off")
        position += size
        yield number, content if kind == 2 else int.from_bytes(content, "little")
