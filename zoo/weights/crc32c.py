"""CRC-32C (Castagnoli), the checksum of TensorFlow's files, over megabytes at a time.

A checksum is linear over GF(2), so one long message is cut into many lanes of equal length that
numpy goes through side by side, four bytes a step; neighbours are then joined in pairs. The
polynomial and the masked form are those of RFC 3720 and of LevelDB (util/crc32c.h).
"""

import functools
from typing import Any

import numpy as np

_POLYNOMIAL = 0x82F63B78  # of bits in reverse
_MASK_DELTA = 0xA282EAD8


def crc32c(data: "bytes | memoryview | np.ndarray") -> int:
    """The checksum of bytes."""
    buffer = np.frombuffer(data, np.uint8)
    # As many lanes as steps, about, and a power of two of them.
    lanes = 1 << (max(buffer.size, 1).bit_length() - 2) // 2 if buffer.size > 4 else 1
    # Words of a lane, all lanes of one length; zeros before the message change nothing, because
    # the register of `_lanes` starts at zero.
    words = -(-max(buffer.size, 1) // (4 * lanes))
    padded = np.zeros(lanes * words * 4, np.uint8)
    padded[padded.size - buffer.size :] = buffer
    sums = _lanes(padded.view("<u4").reshape(lanes, words))
    shift = _zeros(4 * words)
    while sums.size > 1:
        sums = _apply(shift, sums[0::2]) ^ sums[1::2]
        shift = _apply(shift, shift)
    start = _apply(_zeros(buffer.size), np.array([0xFFFFFFFF], np.uint32))
    return int(sums[0] ^ start[0]) ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    """The form in which LevelDB and TensorFlow store a checksum."""
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


@functools.cache
def _tables() -> Any:
    """[4, 256]: what a byte does to a register of zero, followed by that many more zero bytes."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(_POLYNOMIAL), table >> 1)
    tables = [table]
    for _ in range(3):
        tables.append(table[tables[-1] & 0xFF] ^ tables[-1] >> 8)
    return np.stack(tables)


def _lanes(words: Any) -> Any:
    """The register after each row of words, from zero."""
    tables = _tables()
    register = np.zeros(words.shape[0], np.uint32)
    for column in np.ascontiguousarray(words.T):
        register = register ^ column
        register = (
            tables[3][register & 0xFF]
            ^ tables[2][register >> 8 & 0xFF]
            ^ tables[1][register >> 16 & 0xFF]
            ^ tables[0][register >> 24]
        )
    return register


def _zeros(count: int) -> Any:
    """What `count` zero bytes do to a register: the images of its 32 bits, [32]."""
    result = np.array([1 << bit for bit in range(32)], np.uint32)
    for bit in range(count.bit_length()):
        if count >> bit & 1:
            result = _apply(_zeros_doubled(bit), result)
    return result


@functools.cache
def _zeros_doubled(times: int) -> Any:
    """`_zeros` of 2**times bytes."""
    if times:
        half = _zeros_doubled(times - 1)
        return _apply(half, half)
    bits = np.array([1 << bit for bit in range(32)], np.uint32)
    return _tables()[0][bits & 0xFF] ^ bits >> 8


def _apply(matrix: Any, registers: Any) -> Any:
    """The matrix of `_zeros` times each register; times another such matrix, their product."""
    bits = registers[:, None] >> np.arange(32, dtype=np.uint32) & 1
    return np.bitwise_xor.reduce(np.where(bits, matrix, np.uint32(0)), axis=1)
