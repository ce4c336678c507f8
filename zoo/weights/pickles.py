"""A pickle machine for torch files that can build tensors and plain containers, and call nothing.

A pickle is a program for a stack machine, and Python's own machine imports and calls whatever the
program names. This one knows the few names that a state dict needs as data of its own: there is no
import, no call and no attribute in it, so a file has nothing to run. `pickletools` splits the
bytes into opcodes; the opcodes are those of protocol 2 and up that containers are made of.
"""

import dataclasses
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO

# Real state dicts have at most a few thousand entries of about 100 bytes of pickle each.
MOST_BYTES = 8 << 20

_MARK = object()


class PickleError(ValueError):
    """A pickle that is damaged or that holds more than tensors and plain containers."""


@dataclasses.dataclass(frozen=True)
class DType:
    """A torch dtype, or the class of the storages that hold it, by its torch name."""

    name: str


@dataclasses.dataclass(frozen=True)
class Storage:
    """A run of `size` elements of a dtype that lies elsewhere in the file, under `key`.

    dtype: None where the storage is plain bytes; then size counts bytes. start: where a view of
    another storage begins, in elements.
    """

    key: str
    dtype: str | None
    size: int
    start: int = 0


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor as a view of a storage; offset and strides count elements."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Function:
    """A name that REDUCE may be applied to, and what is made of its arguments here."""

    name: str
    make: Callable[..., Any]


def load(file: BinaryIO, storages: dict[str, Storage] | None = None) -> Any:
    """The object of the pickle that begins at the file's position, which ends up behind it.

    Args:
      file: with a pickle; what comes after it does not matter.
      storages: is filled with every storage that the pickle speaks of, by key.

    Returns:
      Plain Python values, dicts for ordered dicts too, and `Tensor` and `DType`.

    Raises:
      PickleError: the message names what the file holds or what is wrong with it.
    """
    machine = _Machine({} if storages is None else storages)
    try:
        for opcode, argument, position in pickletools.genops(file):
            try:
                if opcode.name == "STOP":
                    return machine.pop()
                machine.step(opcode.name, argument)
            except (IndexError, KeyError) as error:  # an empty stack, an unknown memo entry
                raise PickleError(f"is damaged at byte {position} ({opcode.name})") from error
    except PickleError:
        raise
    except (ValueError, UnicodeDecodeError, OverflowError) as error:  # of genops
        raise PickleError(f"is damaged ({str(error)[:100]})") from error
    raise PickleError("is damaged: it ends in the middle")


class _Machine:
    """The stack and the memo. A mark is an element of the stack."""

    def __init__(self, storages: dict[str, Storage]) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages = storages

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise IndexError
        return value

    def pop_to_mark(self) -> list[Any]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                values = self.stack[index + 1 :]
                del self.stack[index:]
                return values
        raise IndexError

    def step(self, name: str, argument: Any) -> None:
        """Executes one opcode."""
        if name in _IGNORED:
            return
        if name in _VALUES:
            if type(argument) is int and argument.bit_length() > 128:
                raise PickleError("holds an integer of more than 128 bits; no torch file does")
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name == "MARK":
            self.stack.append(_MARK)
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            value = self.stack[-1]
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = value
        elif name in _TUPLES:
            values = [self.pop() for _ in range(_TUPLES[name])]
            self.stack.append(tuple(reversed(values)))
        elif name == "TUPLE":
            self.stack.append(tuple(self.pop_to_mark()))
        elif name == "LIST":
            self.stack.append(self.pop_to_mark())
        elif name == "DICT":
            self.stack.append(_set({}, self.pop_to_mark()))
        elif name in ("APPEND", "APPENDS"):
            values = [self.pop()] if name == "APPEND" else self.pop_to_mark()
            _require(list, self.stack[-1], name).extend(values)
        elif name in ("SETITEM", "SETITEMS"):
            pairs = self.pop_to_mark() if name == "SETITEMS" else [self.pop(), self.pop()][::-1]
            _set(_require(dict, self.stack[-1], name), pairs)
        elif name in ("GLOBAL", "INST"):
            found = _global(*argument.split(" ", 1))
            if name == "INST":
                raise PickleError(f"makes an object of {argument}; {_ONLY}")
            self.stack.append(found)
        elif name == "STACK_GLOBAL":
            attribute, module = self.pop(), self.pop()
            self.stack.append(_global(module, attribute))
        elif name == "BINPERSID":
            storage = _storage(self.pop())
            self.storages.setdefault(storage.key, storage)
            self.stack.append(storage)
        elif name == "REDUCE":
            arguments, function = self.pop(), self.pop()
            self.stack.append(_reduce(function, arguments))
        elif name == "BUILD":
            # PyTorch keeps the version of each module as an attribute of the ordered dict.
            attributes, value = self.pop(), self.stack[-1]
            if type(value) is not dict or type(attributes) is not dict:
                raise PickleError(f"sets attributes of a {_kind(value)}; {_ONLY}")
        else:
            raise PickleError(f"uses the pickle opcode {name}; {_ONLY}")


_ONLY = "only tensors and plain containers are read"
_IGNORED = {"PROTO", "FRAME"}
_VALUES = {
    *("INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("STRING", "SHORT_BINSTRING", "BINSTRING"),  # of Python 2
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _kind(value: Any) -> str:
    return value.name if isinstance(value, _Function | DType) else type(value).__name__


def _require(kind: type, value: Any, what: str) -> Any:
    if type(value) is not kind:
        raise PickleError(f"is damaged: {what} on a {_kind(value)}")
    return value


def _set(target: dict, pairs: list[Any]) -> dict:
    if len(pairs) % 2:
        raise PickleError("is damaged: a key of a dict has no value")
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        # Python hashes a tuple recursively without a limit, so a deep one would end the process.
        if not isinstance(key, str | int | float | bool | None):
            raise PickleError(f"has a {_kind(key)} as a key of a dict; {_ONLY}")
        target[key] = value
    return target


def _ordered_dict(items: Any = ()) -> dict:
    result: dict = {}
    for item in _require(list, items, "OrderedDict") if items else ():
        if type(item) not in (list, tuple) or len(item) != 2:
            raise PickleError("is damaged: an OrderedDict of other than pairs")
        _set(result, list(item))
    return result


def _is_shape(value: Any) -> bool:
    return type(value) is tuple and len(value) <= 64 and all(type(n) is int for n in value)


def _size(values: Any) -> tuple[int, ...]:
    if not _is_shape(values):
        raise PickleError("is damaged: a torch.Size of other than integers")
    return values


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any, dtype: Any = None
) -> Tensor:
    """rest: requires_grad, hooks and metadata, which say nothing about the values."""
    if not isinstance(storage, Storage) or not (_is_shape(shape) and _is_shape(strides)):
        raise PickleError("is damaged: a tensor without storage, shape or strides")
    if type(offset) is not int or len(shape) != len(strides):
        raise PickleError(f"is damaged: a tensor of shape {shape} with strides {strides}")
    dtype = dtype or storage.dtype
    if dtype not in _DTYPES:
        raise PickleError("is damaged: a tensor without a dtype")
    return Tensor(storage, dtype, offset, shape, strides)


def _tensor_of_dtype(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> Tensor:
    name = _require(DType, dtype, "_rebuild_tensor_v3").name
    return _tensor(storage, offset, shape, strides, dtype=name)


def _parameter(tensor: Any, *rest: Any) -> Tensor:
    return _require(Tensor, tensor, "_rebuild_parameter")


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch.Size": _size,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": _parameter,
}
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
_DTYPES = {*_STORAGES.values(), "uint16", "uint32", "uint64"}
_GLOBALS: dict[str, Any] = {
    **{name: _Function(name, make) for name, make in _FUNCTIONS.items()},
    **{f"torch.{name}": DType(dtype) for name, dtype in _STORAGES.items()},
    **{f"torch.{name}": DType(name) for name in _DTYPES},
    "torch.storage.UntypedStorage": DType("bytes"),
}


def _global(module: Any, attribute: Any) -> Any:
    if not isinstance(module, str) or not isinstance(attribute, str):
        raise PickleError("is damaged: a global without a name")
    name = f"{module}.{attribute}"
    if name not in _GLOBALS:
        raise PickleError(f"holds {name[:200]}; {_ONLY}")
    return _GLOBALS[name]


def _storage(identity: Any) -> Storage:
    """The storage of a persistent id: ("storage", class, key, device, size) and, in the old form,
    the view of it that is meant: (key, offset, size) or None."""
    view: Any = None
    if type(identity) is tuple and len(identity) == 6:
        *identity, view = identity
    match identity:
        case ["storage", DType(name), str(key), _, int(size)] if size >= 0:
            pass
        case _:
            raise PickleError("is damaged: a storage that is not described as one")
    dtype = None if name == "bytes" else name
    match view:
        case None:
            return Storage(key, dtype, size)
        case [_, int(start), int(length)] if start >= 0 and length >= 0:
            return Storage(key, dtype, length, start)
    raise PickleError("is damaged: a view of a storage that is not described as one")


def _reduce(function: Any, arguments: Any) -> Any:
    if not isinstance(function, _Function) or type(arguments) is not tuple:
        raise PickleError(f"calls a {_kind(function)}; {_ONLY}")
    try:
        return function.make(*arguments)
    except TypeError as error:  # too few or too many arguments
        raise PickleError(f"is damaged: {function.name} of {len(arguments)} arguments") from error
