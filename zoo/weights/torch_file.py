"""Reads the state dict of a torch file (.pth, .pyth, .pt) without torch and without running it.

Both containers that torch.save has used: the zip archive (since 1.6, 2020) and the sequence of
pickles that came before, which many published video weights still have. The pickle inside goes
through `zoo.weights.pickles`, which refuses everything but tensors and plain containers by name.
Sizes are checked against the bytes that are there before anything is allocated.
"""

import io
import math
import os
import pathlib
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from zoo.weights import pickles
from zoo.weights.pickles import PickleError, Storage, Tensor

if TYPE_CHECKING:
    import numpy as np

# Names under which training scripts put the state dict, in the order in which they are tried.
CONTAINERS = ("model_state", "state_dict", "model", "model_state_dict")
# Tensors may share bytes (tied weights) or repeat them (an expanded bias), so that they are larger
# than the file. This much more is believed.
_SHARED_FACTOR = 4
_SHARED_BYTES = 64 << 20

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_ITEM_BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    **{f"{u}int{8 * n}": n for u in ("", "u") for n in (1, 2, 4, 8)},
    "bool": 1,
}


class TorchFileError(ValueError):
    """A torch file that is damaged, too large or that holds more than weights."""


def read(path: str | os.PathLike) -> dict[str, "np.ndarray"]:
    """The state dict of a file that torch.save wrote, name to array.

    It may lie under one of `CONTAINERS`; a prefix "module." that all names have is taken off.

    Returns:
      Arrays in the dtype of the tensors, bfloat16 as float32. They may be read-only.

    Raises:
      TorchFileError: the file is absent, damaged, of another form, written on a big-endian
        machine, or holds anything but tensors and plain containers; the message names what.
    """
    path = pathlib.Path(path)
    try:
        with path.open("rb") as file:
            if file.read(4) == b"PK\x03\x04":
                return _read_zip(path, file)
            return _read_legacy(path, file)
    except OSError as error:
        raise TorchFileError(f"{path}: cannot be read ({error.strerror or error})") from error
    except PickleError as error:
        raise TorchFileError(
            f"{path}: {error}; if you trust the file, load it with torch and save its state dict "
            "alone with torch.save(model.state_dict(), FILE)"
        ) from error


def is_torch_file(path: str | os.PathLike) -> bool:
    """Whether the first bytes are those of one of torch.save's two containers."""
    with pathlib.Path(path).open("rb") as file:
        start = file.read(16)
    return start.startswith(b"PK\x03\x04") or _MAGIC.to_bytes(10, "little") in start


def _read_zip(path: pathlib.Path, file: BinaryIO) -> dict[str, "np.ndarray"]:
    file_bytes = path.stat().st_size
    try:
        with zipfile.ZipFile(file) as archive:
            entries = _entries(path, archive, file_bytes)
            folders = [name[: -len("data.pkl")] for name in entries if name.endswith("/data.pkl")]
            if len(folders) != 1:
                raise TorchFileError(
                    f"{path}: a zip archive without a data.pkl, so not a file of torch.save; give "
                    "the file as it was published"
                )
            folder = folders[0]
            order = entries.get(f"{folder}byteorder")
            if order is not None and archive.open(order).read(9) != b"little":
                raise TorchFileError(
                    f"{path}: written on a big-endian machine; save it again on a little-endian one"
                )
            if entries[f"{folder}data.pkl"].file_size > pickles.MOST_BYTES:
                raise TorchFileError(f"{path}: its pickle is larger than any state dict has")
            state = _state_dict(path, pickles.load(io.BytesIO(archive.read(f"{folder}data.pkl"))))

            def storage_bytes(storage: Storage) -> bytes:
                name = f"{folder}data/{storage.key}"
                if name not in entries:
                    raise TorchFileError(f"{path}: {name} is missing; download the file again")
                return archive.read(name)

            return _arrays(path, state, file_bytes, storage_bytes)
    except (
        zipfile.BadZipFile,
        NotImplementedError,  # another version of the format
        EOFError,
        struct.error,
        UnicodeDecodeError,
        OverflowError,
    ) as error:
        raise TorchFileError(
            f"{path}: the zip archive is damaged ({error}); download the file again"
        ) from error


def _entries(
    path: pathlib.Path, archive: zipfile.ZipFile, file_bytes: int
) -> dict[str, zipfile.ZipInfo]:
    """The archive's entries by name. torch.save stores its entries as they are, each once, so that
    they can not hold more than the file has bytes; an archive where they do is no torch file."""
    entries = {info.filename: info for info in archive.infolist()}
    if len(entries) != len(archive.infolist()):
        raise TorchFileError(f"{path}: the zip archive has an entry twice; torch writes none")
    for info in entries.values():
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise TorchFileError(
                f"{path}: {info.filename} is compressed or encrypted, which torch.save never does; "
                "give the file as it was published"
            )
    total = sum(info.file_size for info in entries.values())
    if total > file_bytes:
        raise TorchFileError(
            f"{path}: its entries claim {total:,} bytes in a file of {file_bytes:,}; the file is "
            "damaged or made to fill the memory"
        )
    return entries


def _read_legacy(path: pathlib.Path, file: BinaryIO) -> dict[str, "np.ndarray"]:
    """Five pickles (magic number, protocol, machine, object, keys of the storages), then for each
    key the number of elements as int64 and the elements."""
    file_bytes = path.stat().st_size
    file.seek(0)
    start = io.BytesIO(file.read(pickles.MOST_BYTES))
    try:
        magic = pickles.load(start)
    except PickleError as error:
        raise TorchFileError(f"{path}: {_not_torch(start.getvalue())}") from error
    if type(magic) is not int or magic != _MAGIC:
        raise TorchFileError(f"{path}: {_not_torch(start.getvalue())}")
    protocol, machine = pickles.load(start), pickles.load(start)
    if protocol != _PROTOCOL or type(machine) is not dict:
        raise TorchFileError(f"{path}: an unknown version of torch's format; save it again")
    if machine.get("little_endian") is not True:
        raise TorchFileError(
            f"{path}: written on a big-endian machine; save it again on a little-endian one"
        )
    storages: dict[str, Storage] = {}
    state = _state_dict(path, pickles.load(start, storages))
    keys = pickles.load(start)
    if type(keys) is not list or not all(isinstance(key, str) for key in keys):
        raise TorchFileError(f"{path}: the list of storages is damaged; download the file again")
    places: dict[str, tuple[int, int]] = {}
    position = start.tell()
    for key in keys:
        if key not in storages:
            raise TorchFileError(f"{path}: a storage has no dtype; download the file again")
        file.seek(position)
        count = int.from_bytes(file.read(8), "little", signed=True)
        size = count * _ITEM_BYTES[storages[key].dtype or "uint8"]
        if count < 0 or position + 8 + size > file_bytes:
            raise TorchFileError(
                f"{path}: cut off, {file_bytes:,} bytes where at least {position + 8 + size:,} "
                "were announced; download the file again"
            )
        places[key] = (position + 8, size)
        position += 8 + size

    def storage_bytes(storage: Storage) -> bytes:
        if storage.key not in places:
            raise TorchFileError(f"{path}: a storage is missing; download the file again")
        place, size = places[storage.key]
        file.seek(place)
        return file.read(size)

    return _arrays(path, state, file_bytes, storage_bytes)


def _not_torch(start: bytes) -> str:
    if start[257:262] == b"ustar":
        return "the tar form of torch before 0.2 (2017); load it with torch and save it again"
    if start.lstrip()[:1] == b"<":
        return "a web page and not a weight file; open its address in a browser to see why"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS and not the weight file itself; download that"
    return "not a file of torch.save; give the file as it was published"


def _state_dict(path: pathlib.Path, value: Any) -> dict[str, Tensor]:
    """The state dict inside what the pickle holds."""
    inside = []
    for _ in range(3):  # nested no deeper, but possibly within itself
        if type(value) is not dict:
            break
        key = next((key for key in CONTAINERS if type(value.get(key)) is dict), None)
        if key is None:
            break
        value = value[key]
        inside.append(key)
    place = "".join(f" under {key!r}" for key in inside)
    if type(value) is not dict or not value:
        raise TorchFileError(f"{path}: no state dict{place}; give the file of a state dict")
    odd = [name for name, entry in value.items() if type(entry) is not Tensor]
    if odd:
        raise TorchFileError(
            f"{path}: {odd[0]!r} is a {type(value[odd[0]]).__name__} among the weights{place}; "
            f"give a state dict, alone or under one of {', '.join(CONTAINERS)}"
        )
    if not all(isinstance(name, str) for name in value):
        raise TorchFileError(f"{path}: the weights{place} have no names; give a state dict")
    prefix = "module."
    if all(name.startswith(prefix) for name in value):
        return {name.removeprefix(prefix): tensor for name, tensor in value.items()}
    return value


def _arrays(
    path: pathlib.Path,
    state: Mapping[str, Tensor],
    file_bytes: int,
    storage_bytes: Callable[[Storage], bytes],
) -> dict[str, "np.ndarray"]:
    total = 0
    for name, tensor in state.items():
        if min((*tensor.shape, *tensor.strides, tensor.offset), default=0) < 0:
            raise TorchFileError(f"{path}: {name} has a negative size or stride; it is damaged")
        # An axis of length 0 is counted as 1: numpy multiplies the others without it.
        total += math.prod(max(n, 1) for n in tensor.shape) * _ITEM_BYTES[tensor.dtype]
        if total > _SHARED_FACTOR * file_bytes + _SHARED_BYTES:
            raise TorchFileError(
                f"{path}: {name} of shape {tensor.shape} would fill more memory than a file of "
                f"{file_bytes:,} bytes can hold; the file is damaged or made to do so"
            )
    # A storage is read once, and let go after the last tensor that views it.
    users: dict[str, list[str]] = {}
    for name, tensor in state.items():
        users.setdefault(tensor.storage.key, []).append(name)
    arrays: dict[str, np.ndarray] = {}
    for names in users.values():
        content = storage_bytes(state[names[0]].storage)
        for name in names:
            arrays[name] = _array(f"{path}: {name}", state[name], content)
    return {name: arrays[name] for name in state}


def _array(what: str, tensor: Tensor, content: bytes) -> "np.ndarray":
    """The tensor as an array; strides may leave gaps, be in any order, and overlap."""
    import numpy as np

    stored_as = {"bfloat16": "uint16", "bool": "uint8"}.get(tensor.dtype, tensor.dtype)
    item = np.dtype(stored_as).newbyteorder("<")
    storage = tensor.storage
    first = storage.start * _ITEM_BYTES[storage.dtype or "uint8"] + tensor.offset * item.itemsize
    reach = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
    there = (len(content) - first) // item.itemsize
    if 0 in tensor.shape:
        array = np.zeros(tensor.shape, item)
    elif there < reach + 1:
        raise TorchFileError(
            f"{what} of shape {tensor.shape} needs {reach + 1:,} elements of its storage, which "
            f"has {max(there, 0):,}; download the file again"
        )
    else:
        flat = np.frombuffer(content, item, reach + 1, first)
        steps = [
            step * item.itemsize if n > 1 else 0
            for n, step in zip(tensor.shape, tensor.strides, strict=True)
        ]
        view = np.lib.stride_tricks.as_strided(flat, tensor.shape, steps, writeable=False)
        array = np.ascontiguousarray(view).reshape(tensor.shape)  # which makes [] into [1]
    if tensor.dtype == "bool":
        return array != 0
    if tensor.dtype == "bfloat16":  # the upper half of a float32
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(item.newbyteorder("="), copy=False)
