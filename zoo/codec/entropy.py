"""Adaptive range coding of integers with constriction, on integer frequency tables of our own.

`Encoder` and `Decoder` have the same methods, so that what is coded is written once for both: a
method takes the values (None when decoding) and returns them. A table's frequencies are integers
that sum to 2**24, and everything that leads to them is integer arithmetic on the symbols coded
before, so that every machine gets the same ones. constriction takes probabilities as floats:
frequencies - 1, whose sum 2**24 - n is exact in float64, make its scale factor exactly 1 and its
table exactly ours (it gives every symbol 1/2**24 beforehand).
"""

from typing import Any, Protocol

import constriction
import numpy as np

# The extension makes its submodules when it is loaded, out of sight of type checkers.
_stream: Any = constriction.stream  # pyright: ignore[reportAttributeAccessIssue]
_models, _queue = _stream.model, _stream.queue

PRECISION = 24
# Magnitudes from here on are written as this and a remainder.
ESCAPE = 15
# Most bits of a remainder: no coefficient of any picture needs more.
_REMAINDER_BITS = 20
_LEARNING = 32  # What one symbol adds to its count.
_LIMIT = 1 << 16  # Of the counts of a table; beyond it all are halved.


class Tables:
    """Frequency tables that learn, one for each of a number of classes.

    Attributes:
      counts: int64 [classes symbols].
    """

    def __init__(self, start: np.ndarray) -> None:
        self.counts = np.array(start, np.int64)

    def frequencies(self, number: int) -> np.ndarray:
        """Of one class: int64 [symbols], each at least 1, that sum to 2**PRECISION."""
        counts = self.counts[number]
        room = (1 << PRECISION) - len(counts)
        shares = counts * room // counts.sum()
        shares[counts.argmax()] += room - shares.sum()
        return shares + 1

    def learn(self, number: int, values: np.ndarray) -> None:
        """Counts what was coded."""
        counts = self.counts[number]
        counts += _LEARNING * np.bincount(values, minlength=len(counts))
        while counts.sum() > _LIMIT:
            counts -= counts >> 1
        np.maximum(counts, 1, out=counts)


def uniform_start(classes: int, symbols: int) -> np.ndarray:
    """Counts that expect every symbol alike."""
    return np.full((classes, symbols), 8)


def falling_start(classes: int, symbols: int, halving: int = 2) -> np.ndarray:
    """Counts that expect small symbols."""
    row = np.maximum(256 >> (np.arange(symbols) * halving).clip(max=30), 1)
    return np.tile(row, (classes, 1))


class Coder(Protocol):
    """What `Encoder` and `Decoder` have in common."""

    bits: float

    def symbols(
        self, tables: Tables, classes: np.ndarray, values: np.ndarray | None
    ) -> np.ndarray: ...

    def raw(self, size: int, count: int, values: np.ndarray | None) -> np.ndarray: ...


def _by_class(classes: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """(class, places) of every class that occurs."""
    order = np.argsort(classes, kind="stable")
    found, first = np.unique(classes[order], return_index=True)
    return list(zip(found.tolist(), np.split(order, first[1:]), strict=True))


def _model(tables: Tables, number: int) -> tuple[Any, np.ndarray]:
    frequencies = tables.frequencies(number)
    probabilities = (frequencies - 1).astype(np.float64)
    return _models.Categorical(probabilities, perfect=False), frequencies


class Encoder:
    """Writes symbols; `bits` is what they should take by their tables."""

    def __init__(self) -> None:
        self._coder = _queue.RangeEncoder()
        self.bits = 0.0

    def symbols(self, tables: Tables, classes: np.ndarray, values: np.ndarray | None) -> np.ndarray:
        """Codes values [m], each with the table of its class [m]; tables learn."""
        assert values is not None
        for number, places in _by_class(classes) if len(classes) else []:
            model, frequencies = _model(tables, number)
            part = values[places]
            self._coder.encode(np.ascontiguousarray(part, np.int32), model)
            self.bits += float(np.sum(PRECISION - np.log2(frequencies[part])))
            tables.learn(number, part)
        return values

    def raw(self, size: int, count: int, values: np.ndarray | None) -> np.ndarray:
        """Codes values [count] of 0 to size - 1, all alike."""
        assert values is not None
        if count:
            self._coder.encode(np.ascontiguousarray(values, np.int32), _models.Uniform(size))
            self.bits += count * float(np.log2(size))
        return values

    def finish(self) -> bytes:
        """All that was written."""
        return self._coder.get_compressed().astype("<u4").tobytes()


class Decoder:
    """Reads what `Encoder` wrote; damaged data gives wrong symbols, of the right range."""

    def __init__(self, data: bytes) -> None:
        whole = data + bytes(-len(data) % 4)
        self._coder = _queue.RangeDecoder(np.frombuffer(whole, "<u4").astype(np.uint32))
        self.bits = 0.0

    def symbols(
        self, tables: Tables, classes: np.ndarray, values: np.ndarray | None = None
    ) -> np.ndarray:
        """Values [m] by their classes [m]; tables learn."""
        result = np.zeros(len(classes), np.int64)
        for number, places in _by_class(classes) if len(classes) else []:
            model, _ = _model(tables, number)
            part = np.asarray(self._coder.decode(model, len(places)), np.int64)
            result[places] = part
            tables.learn(number, part)
        return result

    def raw(self, size: int, count: int, values: np.ndarray | None = None) -> np.ndarray:
        """Values [count] of 0 to size - 1, all alike."""
        if not count:
            return np.zeros(0, np.int64)
        return np.asarray(self._coder.decode(_models.Uniform(size), count), np.int64)


class Signed:
    """Codes signed integers: magnitudes by class, remainders of large ones, signs as they are."""

    def __init__(self, classes: int, halving: int = 2) -> None:
        self.magnitudes = Tables(falling_start(classes, ESCAPE + 1, halving))
        self.lengths = Tables(falling_start(1, _REMAINDER_BITS + 1, 1))

    def code(self, coder: Coder, classes: np.ndarray, values: np.ndarray | None) -> np.ndarray:
        """Values [m], int64, by their classes [m]."""
        given = values is not None
        sizes = np.abs(values) if given else None
        small = coder.symbols(
            self.magnitudes, classes, np.minimum(sizes, ESCAPE) if sizes is not None else None
        )
        result = small.astype(np.int64)
        large = np.flatnonzero(small == ESCAPE)
        if len(large):
            rest = sizes[large] - ESCAPE + 1 if sizes is not None else None
            result[large] += self._remainder(coder, len(large), rest) - 1
        there = np.flatnonzero(result)
        signs = coder.raw(2, len(there), (values[there] < 0).astype(np.int64) if given else None)
        result[there] *= 1 - 2 * signs
        return result

    def _remainder(self, coder: Coder, count: int, rest: np.ndarray | None) -> np.ndarray:
        """Integers from 1 on: the number of bits after the leading one, then those bits."""
        lengths = None
        if rest is not None:
            if rest.max() >> (_REMAINDER_BITS + 1):
                raise ValueError(f"a latent is {rest.max()}; the codec has room for 2**20")
            lengths = np.array([int(value).bit_length() - 1 for value in rest])
        lengths = coder.symbols(self.lengths, np.zeros(count, np.int64), lengths)
        result = np.ones(count, np.int64)
        for place in range(int(lengths.max()) if count else 0):
            more = np.flatnonzero(lengths > place)
            bits = None
            if rest is not None:
                bits = (rest[more] >> (lengths[more] - 1 - place)) & 1
            result[more] = 2 * result[more] + coder.raw(2, len(more), bits)
        return result
