"""The ends of pipes, and files without a name, through which ffmpeg is fed and read."""

import contextlib
import fcntl
import os
import pathlib
import tempfile
from collections.abc import Callable, Sequence

_PIPE_BYTES = 2**20
READ_BYTES = 2**20


class End:
    """One end of a pipe, or an open file, that is closed exactly once.

    Closing a number twice could close what another thread opened in between.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._open = True

    def close(self) -> None:
        if self._open:
            self._open = False
            os.close(self.number)


class Sink:
    """What ffmpeg writes to one of its output pipes, at most `limit` bytes.

    With `take`, every piece goes there at once and none is kept; ffmpeg waits until it returns.
    """

    def __init__(self, limit: int, take: Callable[[bytes], object] | None = None) -> None:
        self.limit = limit
        self.data = bytearray()
        self.overflowed = False
        self.take = take
        self.ours, self.childs = open_pipe()
        _enlarge(self.ours.number)

    def read(self) -> bool:
        """Takes what is there; False at the end of the stream."""
        piece = os.read(self.ours.number, READ_BYTES)
        if self.take is not None:
            self.take(piece)
            return bool(piece)
        self.data += piece
        self.overflowed = len(self.data) > self.limit
        return bool(piece)


class Feed:
    """Bytes that ffmpeg reads from one of its input pipes."""

    def __init__(self, pieces: Sequence[memoryview]) -> None:
        self.pieces = [piece for piece in pieces if len(piece)]
        self.childs, self.ours = open_pipe()
        _enlarge(self.ours.number)
        os.set_blocking(self.ours.number, False)

    def write(self) -> bool:
        """Gives what fits; False when all is given, or when ffmpeg stopped reading."""
        while self.pieces:
            try:
                written = os.write(self.ours.number, self.pieces[0])
            except BlockingIOError:
                return True
            except BrokenPipeError:
                return False
            if written < len(self.pieces[0]):
                self.pieces[0] = self.pieces[0][written:]
            else:
                self.pieces.pop(0)
        return False


class Result:
    """A file without a name, for what ffmpeg must be able to seek in while writing."""

    def __init__(self) -> None:
        self.file = End(anonymous_file(b""))

    @property
    def options(self) -> list[str]:
        """The output of ffmpeg's command line."""
        return ["-fd", str(self.file.number), "fd:"]

    def read(self) -> bytes:
        """All of it, after the run."""
        with open(self.file.number, "rb", closefd=False) as file:
            file.seek(0)
            return file.read()


def open_pipe() -> tuple[End, End]:
    """A new pipe: its reading and its writing end."""
    reader, writer = os.pipe()
    return End(reader), End(writer)


def _enlarge(descriptor: int) -> None:
    """Asks for a larger pipe, so that the processes switch less often; a refusal is harmless."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def anonymous_file(content: bytes) -> int:
    """A descriptor of a file without a name that holds `content`, positioned at its start."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("video", os.MFD_CLOEXEC)
    else:
        descriptor, path = tempfile.mkstemp()
        pathlib.Path(path).unlink()
    view = memoryview(content)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
