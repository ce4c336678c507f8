"""Reading prepared data: shards of encoded clips, the classes, and what was left out.

The shards are ArrayRecord files of `tf.train.Example` messages, written by the TFDS builder in
`experiments.datasets.builder`; `tfds.builder_from_directory` opens them too. They are read here
without tensorflow-datasets, which takes longer to import than a batch takes to decode.
"""

import dataclasses
import itertools
import json
import pathlib
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from array_record.python.array_record_module import ArrayRecordReader

FORMAT = 2  # of prepared.json and of the fields of a record
PREPARED = "prepared.json"
QUARANTINE = "quarantine.json"
FEATURES = (
    *("video", "label", "source", "frames", "fps", "fps_denominator", "constant_rate"),
    *("height", "width"),
)


class DataError(ValueError):
    """Data that cannot be used; the message names the file or value and what to do."""


@dataclass(frozen=True)
class Record:
    """One prepared clip.

    Attributes:
        video: a small video file, as bytes.
        label: position in the classes of the dataset.
        source: path relative to the dataset's root, or another name by which a person finds it.
        frames: number of frames.
        fps: frames per second.
        constant_rate: whether frame k is shown exactly k / fps seconds after the first.
        height, width: size of a frame in pixels.
    """

    video: bytes
    label: int
    source: str
    frames: int
    fps: Fraction
    constant_rate: bool
    height: int
    width: int


@dataclass(frozen=True)
class Broken:
    """A source file that could not be used."""

    source: str
    split: str
    label: str
    reason: str


class Shards:
    """The records of one split, in order, over all its files. Safe to use from threads."""

    def __init__(self, split: str, files: Sequence[tuple[pathlib.Path, int]]) -> None:
        """`files` are the shards and how many records each holds."""
        self.split = split
        self._files = [file for file, count in files if count]
        self._ends = list(itertools.accumulate(count for _, count in files if count))
        self._readers: dict[int, ArrayRecordReader] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getstate__(self) -> dict[str, Any]:  # open files do not cross to another process
        return {"split": self.split, "_files": self._files, "_ends": self._ends}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _readers={}, _lock=threading.Lock())

    def __getitem__(self, index: int) -> Record:
        """Reads record `index`.

        Raises:
            DataError: the shard is missing or its bytes are damaged.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.split} has {len(self)} clips; there is no clip {index}")
        shard = bisect_right(self._ends, index)
        position = index - (self._ends[shard - 1] if shard else 0)
        try:
            (data,) = self._reader(shard).read([position])
            return parse_record(data)
        except (RuntimeError, ValueError) as error:
            raise DataError(
                f"{self._files[shard]}: record {position} (clip {index} of {self.split}) cannot be "
                f"read: {error}; delete {self._files[shard].parents[2]} to have it prepared anew."
            ) from error

    def _reader(self, shard: int) -> ArrayRecordReader:
        with self._lock:
            if shard not in self._readers:
                # Random access: no reading ahead, small buffers.
                self._readers[shard] = ArrayRecordReader(
                    str(self._files[shard]),
                    options="readahead_buffer_size:0",
                    file_reader_buffer_size=2**15,
                )
            return self._readers[shard]


@dataclass(frozen=True)
class Prepared:
    """A prepared dataset.

    Attributes:
        directory: where it is cached.
        classes: names of the labels.
        shards: the records of each split: train, val and test.
        counts: number of clips of each class, by split.
        frames: number of frames in all clips, by split.
        aliases: splits that are another split under a second name, such as {"test": "val"}.
        quarantine: source files that were left out, with the reason.
        notes: what a user should know about the splits, as sentences.
    """

    directory: pathlib.Path
    classes: tuple[str, ...]
    shards: dict[str, Shards]
    counts: dict[str, tuple[int, ...]]
    frames: dict[str, int]
    aliases: dict[str, str]
    quarantine: tuple[Broken, ...]
    notes: tuple[str, ...]

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.shards)

    @property
    def quarantine_file(self) -> pathlib.Path:
        """The report of broken files and duplicates."""
        return self.directory / QUARANTINE

    def size(self, split: str) -> int:
        """Number of clips of a split."""
        return len(self._split(split))

    def record(self, split: str, index: int) -> Record:
        """Clip `index` of a split: the encoded video and what is known about it."""
        return self._split(split)[index]

    def source_name(self, split: str, index: int) -> str:
        """Where clip `index` of a split comes from."""
        return self.record(split, index).source

    def _split(self, split: str) -> Shards:
        if split not in self.shards:
            raise DataError(
                f"{self.directory} has no split {split!r}; its splits are {', '.join(self.splits)}."
            )
        return self.shards[split]


def load(directory: pathlib.Path) -> Prepared:
    """Opens the dataset that `experiments.datasets.builder` prepared in `directory`."""
    try:
        found = json.loads((directory / PREPARED).read_text("utf-8"))
        report = json.loads((directory / QUARANTINE).read_text("utf-8"))
        aliases = found["aliases"]

        def by_split(values: dict[str, Any]) -> dict[str, Any]:
            return values | {alias: values[split] for alias, split in aliases.items()}

        shards = {
            split: Shards(split, [(directory / name, count) for name, count in files])
            for split, files in found["splits"].items()
        }
        return Prepared(
            directory=directory,
            classes=tuple(found["classes"]),
            shards=by_split(shards),
            counts=by_split({split: tuple(n) for split, n in found["counts"].items()}),
            frames=by_split(found["frames"]),
            aliases=aliases,
            quarantine=tuple(Broken(**entry) for entry in report["broken"]),
            notes=tuple(found["notes"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{directory} is not a prepared dataset ({error}); delete it to have it prepared anew."
        ) from error


def to_example(record: Record) -> dict[str, Any]:
    """The record as the features of the TFDS builder, see `FEATURES`."""
    values = dataclasses.asdict(record)
    fps = values.pop("fps")
    return values | {
        "fps": fps.numerator,
        "fps_denominator": fps.denominator,
        "constant_rate": int(record.constant_rate),
    }


def parse_record(data: bytes) -> Record:
    """The record in a serialized `tf.train.Example`.

    Raises:
        ValueError: the bytes are not such a message.
    """
    values = _parse_example(data)
    try:
        return Record(
            video=values["video"],
            label=values["label"],
            source=values["source"].decode(),
            frames=values["frames"],
            fps=Fraction(values["fps"], values["fps_denominator"]),
            constant_rate=bool(values["constant_rate"]),
            height=values["height"],
            width=values["width"],
        )
    except (KeyError, AttributeError, ZeroDivisionError) as error:
        raise ValueError(f"not a clip with the fields {', '.join(FEATURES)}") from error


def _parse_example(data: bytes) -> dict[str, Any]:
    """First value of each feature of a `tf.train.Example` protocol buffer.

    Example is {1: Features}, Features {1: repeated {1: key, 2: Feature}}, and Feature one of
    {1: BytesList}, {2: FloatList}, {3: Int64List}, lists being {1: repeated value}
    (tensorflow/core/example/{example,feature}.proto).
    """
    features: dict[str, Any] = {}
    for _, message in _fields(memoryview(data)):
        for _, entry in _fields(message):
            pair = dict(_fields(entry))
            for kind, values in _fields(pair[2]) if 2 in pair else ():
                for _, value in _fields(values):
                    key = bytes(pair[1]).decode()
                    if kind == 3 and isinstance(value, memoryview):  # packed integers
                        value = _varint(value, 0)[0]
                    features[key] = bytes(value) if isinstance(value, memoryview) else value
                    break
    return features


def _fields(message: memoryview | int) -> Iterator[tuple[int, memoryview | int]]:
    """Number and value of each field of a protocol buffer; integers or slices of the message."""
    if isinstance(message, int):
        raise ValueError("a number where a message is expected")
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag & 7 == 0:
            value, at = _varint(message, at)
        elif tag & 7 == 2:
            size, at = _varint(message, at)
            if at + size > len(message):
                raise ValueError("the message is cut off")
            value, at = message[at : at + size], at + size
        else:
            raise ValueError(f"a field of the unknown wire type {tag & 7}")
        yield tag >> 3, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The integer of variable length at a position, and the position after it."""
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("the message is cut off")
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
