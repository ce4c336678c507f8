"""A writer of torch files without torch, and a web server that misbehaves.

The writer knows both containers, and writes whatever a pickle should not hold.
"""

import dataclasses
import http.server
import io
import pickle
import struct
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

STORAGES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


@dataclasses.dataclass
class Name:
    """A global, as pickle writes classes and functions."""

    module: str
    attribute: str


@dataclasses.dataclass
class Call:
    """What REDUCE makes: function(*arguments)."""

    function: Any
    arguments: tuple


@dataclasses.dataclass
class Persistent:
    """A persistent id, by which torch names storages."""

    identity: tuple


@dataclasses.dataclass
class Raw:
    """Opcodes as they are."""

    code: bytes


def pickled(value: Any) -> bytes:
    """A pickle of plain values and of the four classes above, protocol 2."""
    return b"\x80\x02" + _code(value) + b"."


def _code(value: Any) -> bytes:
    match value:
        case None:
            return b"N"
        case True | False:
            return b"\x88" if value else b"\x89"
        case int():
            content = pickle.encode_long(value)
            return b"\x8a" + bytes([len(content)]) + content
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            content = value.encode()
            return b"X" + struct.pack("<I", len(content)) + content
        case tuple():
            return b"(" + b"".join(map(_code, value)) + b"t"
        case list():
            return b"](" + b"".join(map(_code, value)) + b"e"
        case dict():
            items = b"".join(_code(key) + _code(inner) for key, inner in value.items())
            return b"}(" + items + b"u"
        case Name(module, attribute):
            return f"c{module}\n{attribute}\n".encode()
        case Call(function, arguments):
            return _code(function) + _code(arguments) + b"R"
        case Persistent(identity):
            return _code(identity) + b"Q"
        case Raw(code):
            return code
    raise TypeError(type(value))


class TorchWriter:
    """Builds the parts of a torch file, then the file in either container."""

    def __init__(self, legacy: bool = False) -> None:
        self.legacy = legacy
        self.storages: dict[str, tuple[np.ndarray, str]] = {}

    def storage(self, values: np.ndarray, dtype: str = "") -> Persistent:
        """Keeps the flat values; returns what a pickle names them by."""
        key = str(len(self.storages))
        dtype = dtype or values.dtype.name
        self.storages[key] = (values, dtype)
        identity = ("storage", Name("torch", STORAGES[dtype]), key, "cpu", values.size)
        return Persistent((*identity, None) if self.legacy else identity)

    def view(
        self, storage: Persistent, offset: Any, shape: Sequence[int], strides: Sequence[int]
    ) -> Call:
        """A tensor of a storage."""
        arguments = (storage, offset, tuple(shape), tuple(strides), False, ordered())
        return Call(Name("torch._utils", "_rebuild_tensor_v2"), arguments)

    def tensor(self, array: np.ndarray, dtype: str = "") -> Call:
        """A contiguous tensor of an array's values; bfloat16 comes as uint16 bits."""
        strides = [int(np.prod(array.shape[axis + 1 :])) for axis in range(array.ndim)]
        return self.view(self.storage(array.reshape(-1), dtype), 0, array.shape, strides)

    def file(self, value: Any, *, little_endian: bool = True, **zip_options: Any) -> bytes:
        """The file of a value, which may hold what `tensor` and `view` returned."""
        content = pickled(value)
        if self.legacy:
            machine = {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {}}
            heads = (0x1950A86A20F9469CFC6C, 1001, machine)
            result = b"".join(map(pickled, heads)) + content + pickled(sorted(self.storages))
            for key in sorted(self.storages):
                values = self.storages[key][0]
                result += struct.pack("<q", values.size) + values.tobytes()
            return result
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", **zip_options) as archive:
            archive.writestr("x/data.pkl", content)
            archive.writestr("x/byteorder", "little" if little_endian else "big")
            for key, (values, _) in self.storages.items():
                archive.writestr(f"x/data/{key}", values.tobytes())
            archive.writestr("x/version", "3\n")
        return buffer.getvalue()


def ordered(items: dict | None = None) -> Any:
    """An OrderedDict as Python 3 pickles it: made empty, then filled."""
    made = Call(Name("collections", "OrderedDict"), ())
    if not items:
        return made
    filled = b"".join(_code(key) + _code(value) for key, value in items.items())
    return Raw(_code(made) + b"(" + filled + b"u")


@pytest.fixture(params=[False, True], ids=["zip", "legacy"])
def torch_writer(request) -> TorchWriter:
    """A writer, once of the zip form and once of the older one."""
    return TorchWriter(legacy=request.param)


@pytest.fixture
def torch_zip() -> TorchWriter:
    """A writer of the zip form."""
    return TorchWriter()


@pytest.fixture(scope="session")
def code():
    """The classes that stand for what a pickle holds, and the functions that write it."""
    return CODE


class CODE:
    """See the names."""

    Name, Call, Persistent, Raw, Writer = Name, Call, Persistent, Raw, TorchWriter
    pickled, ordered = staticmethod(pickled), staticmethod(ordered)


class Server(http.server.ThreadingHTTPServer):
    """Serves `content`; what else it does is in the attributes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = bytes(range(256)) * 2000
        self.etag = '"one"'
        self.breaks: list[int] = []  # after how many bytes each of the next answers ends
        self.says_length = True
        self.ranges = True
        self.redirect = ""
        self.status = 200
        self.delay = 0.0
        self.requests: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/weights.pth"

    def handle_error(self, request, client_address):
        """Quiet: a client that goes away is what some tests are about."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *arguments):
        """Quiet."""

    def do_GET(self):
        server = self.server
        server.requests.append(dict(self.headers))
        if server.redirect:
            self.send_response(302)
            self.send_header("Location", server.redirect)
            self.end_headers()
            return
        if server.status != 200:
            self.send_error(server.status)
            return
        start, size = 0, len(server.content)
        asked = self.headers.get("Range")
        unchanged = self.headers.get("If-Range", server.etag) == server.etag
        if asked and server.ranges and unchanged:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= size:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{size}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        else:
            self.send_response(200)
        if server.says_length:
            self.send_header("Content-Length", str(size - start))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        end = size
        if server.breaks:
            end = min(start + server.breaks.pop(0), size)
        for place in range(start, end, 1 << 16):
            self.wfile.write(server.content[place : min(place + (1 << 16), end)])
            time.sleep(server.delay)


@pytest.fixture
def server() -> Iterator[Server]:
    """A web server on this machine."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
