"""Reads TensorFlow checkpoints (PREFIX.index, PREFIX.data-00000-of-00001 ...) without TensorFlow.

The index is a table (`zoo.weights.sstable`) from names to small protocol buffers that say what a
tensor is and which bytes of which shard hold it (tensorflow/core/protobuf/tensor_bundle.proto). A
checkpoint may be files side by side or an archive, .tar.gz, as MoViNets are published. An archive
is read in memory and nothing of it is written, so the names in it lead nowhere. Sizes are checked
against the bytes that are there before anything is allocated, and all bytes that are used against
their checksums.
"""

import dataclasses
import gzip
import io
import math
import os
import pathlib
import re
import tarfile
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zoo.weights import sstable, tf_objects
from zoo.weights.crc32c import crc32c, masked
from zoo.weights.errors import WeightsError

if TYPE_CHECKING:
    import numpy as np

# TensorFlow 2 ends the names of variables among the objects of a program with this.
_ATTRIBUTE = "/.ATTRIBUTES/VARIABLE_VALUE"
# By number in tensorflow/core/framework/types.proto.
_TEXT = 7
_DTYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    17: "uint16",
    19: "float16",
    22: "uint32",
    23: "uint64",
}
_GZIP = b"\x1f\x8b"
_MOST_INDEX_BYTES = 64 << 20
_MOST_MEMBERS = 1000  # of an archive
_MOST_AXES = 16

# A shard by its name.
Shards = Callable[[str], bytes]


@dataclasses.dataclass(frozen=True)
class Limits:
    """How much an archive may hold when it is unpacked: weights hardly shrink, so one that holds
    many times its own size was made to fill the memory."""

    factor: int = 8
    more: int = 64 << 20
    most: int = 4 << 30


@dataclasses.dataclass(frozen=True)
class Entry:
    """A tensor of a checkpoint: dtype by numpy's name (or "bfloat16"), and where its bytes are."""

    dtype: str
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int


def is_checkpoint(path: str | os.PathLike) -> bool:
    """Whether a file is an index or a compressed archive, by its content."""
    try:
        with pathlib.Path(path).open("rb") as file:
            start = file.read(len(_GZIP))
            file.seek(max(0, os.fstat(file.fileno()).st_size - len(sstable.MAGIC)))
            return start == _GZIP or file.read() == sstable.MAGIC
    except OSError:  # is named by whoever reads it
        return False


def read(
    path: str | os.PathLike, limits: Limits | None = None, *, own_names: bool = False
) -> dict[str, "np.ndarray"]:
    """The variables of a checkpoint, name to array.

    Args:
      path: the index, whose shards lie beside it, or a .tar.gz with one checkpoint inside.
      limits: of an archive.
      own_names: give variables the names that their program gave them (`zoo.weights.tf_objects`)
        where the checkpoint holds those, and else the names of the checkpoint.

    Returns:
      Arrays in the dtype of the tensors, bfloat16 as float32. They may be read-only. Text is left
      out, which describes the program and holds no weights, and so is the end
      "/.ATTRIBUTES/VARIABLE_VALUE" of names.

    Raises:
      WeightsError: a file is absent, damaged, of another form, written on a big-endian machine,
        or claims more than its bytes can hold.
    """
    path = pathlib.Path(path)
    try:
        with path.open("rb") as file:
            if file.read(len(_GZIP)) == _GZIP:
                return _read_archive(path, limits or Limits(), own_names)
            if path.stat().st_size > _MOST_INDEX_BYTES:
                raise WeightsError(f"{path}: larger than the index of any model; give an index")
            file.seek(0)
            index = file.read()
        prefix = str(path).removesuffix(".index")
        return _arrays(
            str(path), index, lambda end: pathlib.Path(prefix + end).read_bytes(), own_names
        )
    except OSError as error:
        raise WeightsError(
            f"{error.filename or path}: cannot be read ({error.strerror or error}); a checkpoint "
            "is an .index file with its .data files beside it, so bring all of them here"
        ) from error


def entries(index: bytes, what: str) -> tuple[dict[str, Entry], int]:
    """The tensors of an index by name, and the number of shards.

    Args:
      index: content of the file.
      what: the file, for messages.

    Raises:
      WeightsError: as `read`.
    """
    tensors: dict[str, Entry] = {}
    shards = None
    try:
        for key, value in sstable.entries(index):
            if key == b"":
                shards = _shards(value, what)
                continue
            if key.startswith(b"\0"):  # a part of a tensor, whose own entry is refused below
                continue
            name = key.decode("utf-8").removesuffix(_ATTRIBUTE)
            entry = _entry(value, f"{what}: {name}")
            if entry is None:
                continue
            if name in tensors:
                raise WeightsError(f"{what}: {name} is there twice; it is damaged")
            tensors[name] = entry
    except (sstable.TableError, UnicodeDecodeError) as error:
        raise WeightsError(
            f"{what}: not a whole index of a TensorFlow checkpoint ({error}); download it again"
        ) from error
    if shards is None or not tensors:
        raise WeightsError(f"{what}: an index without tensors; give that of a checkpoint")
    return tensors, shards


def _shards(message: bytes, what: str) -> int:
    """The number of shards, from the header."""
    header = dict(sstable.fields(message))
    if header.get(2):
        raise WeightsError(f"{what}: written on a big-endian machine; save it on another one")
    return header.get(1, 0)


def _entry(message: bytes, what: str) -> Entry | None:
    """A tensor; None for text. Absent fields are zero."""
    values: dict[int, Any] = {}
    for number, value in sstable.fields(message):
        if number == 7:
            raise WeightsError(f"{what} is saved in parts; save it again from a program of one")
        values[number] = value
    kind = values.get(1, 0)
    if kind == _TEXT:
        return None
    if kind not in _DTYPES:
        raise WeightsError(f"{what} is of TensorFlow's type {kind}, which weights are not")
    shape = _shape(values.get(2, b""))
    where = (values.get(number, 0) for number in (3, 4, 5, 6))
    entry = Entry(_DTYPES[kind], shape, *where)
    if len(shape) > _MOST_AXES or math.prod(shape) * _item_bytes(entry.dtype) != entry.size:
        raise WeightsError(
            f"{what} of shape {shape} has {entry.size:,} bytes; the file is damaged or made to "
            "fill the memory"
        )
    return entry


def _shape(message: bytes) -> tuple[int, ...]:
    axes = (axis for number, axis in sstable.fields(message) if number == 2)
    return tuple(dict(sstable.fields(axis)).get(1, 0) for axis in axes)


def _arrays(what: str, index: bytes, shard: Shards, own_names: bool) -> dict[str, "np.ndarray"]:
    """The arrays; shard: the content of a shard by the end of its name."""
    tensors, count = entries(index, what)
    numbers = sorted({entry.shard for entry in tensors.values()})
    if numbers[-1] >= count:
        raise WeightsError(f"{what}: shard {numbers[-1]} of {count}; it is damaged")
    arrays: dict[str, np.ndarray] = {}
    for number in numbers:
        end = f".data-{number:05d}-of-{count:05d}"
        content = shard(end)
        inside = {name: entry for name, entry in tensors.items() if entry.shard == number}
        # Tensors lie side by side, so that they never hold more than the shard does.
        if sum(entry.size for entry in inside.values()) > len(content):
            raise WeightsError(
                f"{what}: its {end} has {len(content):,} bytes, fewer than the tensors in it; "
                "download it again"
            )
        for name, entry in inside.items():
            arrays[name] = _array(f"{what}: {name}", entry, memoryview(content))
    own = _own_names(what, index, count, shard) if own_names else {}
    found = {own.get(name, name): arrays[name] for name in tensors}
    if len(found) < len(arrays):
        raise WeightsError(f"{what}: two variables have the same name; it is damaged")
    return found


def _own_names(what: str, index: bytes, count: int, shard: Shards) -> dict[str, str]:
    """The variables' own names by those of `entries`; none where the checkpoint has none."""
    try:
        message = dict(sstable.entries(index)).get(tf_objects.KEY.encode())
        if message is None:
            return {}
        values: dict[int, Any] = dict(sstable.fields(message))
        number, offset, size, checksum = (values.get(field, 0) for field in (3, 4, 5, 6))
        if values.get(1) != _TEXT or _shape(values.get(2, b"")):
            raise sstable.TableError("its objects are no text")
        if number >= count:
            raise sstable.TableError(f"its objects lie in shard {number} of {count}")
        stored = shard(f".data-{number:05d}-of-{count:05d}")[offset : offset + size]
        # A text is stored as its length, a checksum of the length, and its bytes.
        length, start = sstable.varint(stored, 0)
        content = stored[start + 4 :]
        checked = length.to_bytes(4, "little") + stored[start:] if length < 1 << 32 else b""
        if len(content) != length or masked(crc32c(checked)) != checksum:
            raise sstable.TableError("its objects do not fit their checksum")
        own = tf_objects.names(content)
    except (sstable.TableError, UnicodeDecodeError) as error:
        raise WeightsError(f"{what}: damaged ({error}); download it again") from error
    return {key.removesuffix(_ATTRIBUTE): name for key, name in own.items()}


def _array(what: str, entry: Entry, content: memoryview) -> "np.ndarray":
    import numpy as np

    stored = content[entry.offset : entry.offset + entry.size]
    if len(stored) != entry.size or masked(crc32c(stored)) != entry.checksum:
        raise WeightsError(f"{what} does not fit its checksum; download the file again")
    item = np.dtype({"bfloat16": "uint16"}.get(entry.dtype, entry.dtype)).newbyteorder("<")
    array = np.frombuffer(stored, item).reshape(entry.shape)
    if entry.dtype == "bfloat16":  # the upper half of a float32
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(item.newbyteorder("="), copy=False)


def _item_bytes(dtype: str) -> int:
    import numpy as np

    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def _read_archive(path: pathlib.Path, limits: Limits, own_names: bool) -> dict[str, "np.ndarray"]:
    allowed = min(limits.most, limits.factor * path.stat().st_size + limits.more)
    files: dict[str, bytes] = {}
    try:
        with (
            gzip.open(path) as unpacked,
            tarfile.open(fileobj=_Bounded(unpacked, allowed, path), mode="r|") as archive,
        ):
            for number, member in enumerate(archive):
                if number >= _MOST_MEMBERS:
                    raise WeightsError(
                        f"{path}: more than {_MOST_MEMBERS} files; not an archive of a checkpoint"
                    )
                if not re.search(r"\.(index|data-\d{5}-of-\d{5})$", member.name):
                    continue
                content = archive.extractfile(member) if member.isreg() else None
                if content is None or member.name in files:
                    raise WeightsError(f"{path}: {member.name} is a link or there twice")
                files[member.name] = content.read()
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise WeightsError(
            f"{path}: the archive is damaged ({error}); download the file again"
        ) from error
    indices = [name for name in files if name.endswith(".index")]
    if len(indices) != 1:
        raise WeightsError(
            f"{path}: {len(indices)} checkpoints in the archive ({', '.join(indices) or 'none'}); "
            "give one with one, or unpack it and give an .index file"
        )
    prefix = indices[0].removesuffix(".index")

    def shard(end: str) -> bytes:
        if prefix + end not in files:
            raise WeightsError(f"{path}: {prefix + end} is missing; download the file again")
        return files[prefix + end]

    return _arrays(f"{path}: {indices[0]}", files[indices[0]], shard, own_names)


class _Bounded(io.RawIOBase):
    """What an archive holds, up to a number of bytes."""

    def __init__(self, file: Any, most: int, path: pathlib.Path) -> None:
        self._file, self._left, self._path, self._most = file, most, path, most

    def readable(self) -> bool:
        """Yes."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Raises WeightsError at the end of what is allowed."""
        content = self._file.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(content)
        if self._left < 0:
            raise WeightsError(
                f"{self._path}: more than {self._most:,} bytes in an archive of "
                f"{self._path.stat().st_size:,}; it is damaged or made to fill the memory"
            )
        return content
