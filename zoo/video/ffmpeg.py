"""One ffmpeg process: started without a shell, bounded in time and output, never left behind.

Untrusted input. A file is opened here and handed over as an open descriptor, bytes as an anonymous
file in memory; ffmpeg may use no protocol but that descriptor and no demuxer outside CONTAINERS.
A playlist or a reference inside a container can therefore open neither another file nor a socket.

No orphan. The child has its own process group, so that Ctrl-C reaches only the parent, which kills
it on every way out of `Job.run`. If the parent itself is killed, the child's next write to one of
its pipes fails and it exits; a limit on its processor time bounds what precedes that write.
"""

import contextlib
import dataclasses
import errno
import functools
import math
import os
import pathlib
import selectors
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from zoo.video.errors import NotAVideo, VideoError, VideoTimeout
from zoo.video.pipes import READ_BYTES, End, Feed, Result, Sink, anonymous_file, open_pipe

Source = str | os.PathLike | bytes

# Demuxers of real containers and raw streams. Left out: everything that names other files
# (playlists, concat, image patterns), devices, and text formats that are rendered to pictures.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,flv,live_flv,asf,asf_o,mpeg,mpegts,mpegvideo,"
    "ogg,nut,mxf,gxf,ivf,apng,webp_anim,h261,h263,h264,hevc,vvc,av1,obu,m4v,mjpeg,"
    "mjpeg_2000,yuv4mpegpipe,rm,nsv,nuv,wtv,dv,swf,vc1,vc1test,dirac,cavsvideo,avs2,avs3,amv,"
    "roq,bink,smk,flic,fits,dxa,4xm,kux,"
    # Single pictures: a video of one frame.
    "png_pipe,jpeg_pipe,webp_pipe,bmp_pipe"
)

# Frames of more pixels than 8K (7680 x 4320) twice over are refused before they are allocated.
MAX_PIXELS = 2**26
# Text kept of what ffmpeg says: this much of its beginning, and again of its end.
_LOG_BYTES = 2**22
_PAUSE = 0.0015
_POLL = 0.2


@functools.cache
def executable() -> str:
    """Path of ffmpeg: $IMAGEIO_FFMPEG_EXE, else the one bundled with imageio-ffmpeg."""
    if path := os.environ.get("IMAGEIO_FFMPEG_EXE"):
        return path
    import imageio_ffmpeg

    # get_ffmpeg_exe() starts ffmpeg once to test it, which costs more than reading a clip.
    folder = pathlib.Path(imageio_ffmpeg.__file__ or "").parent / "binaries"
    bundled = sorted(folder.glob("ffmpeg-*"))
    return str(bundled[0]) if len(bundled) == 1 else imageio_ffmpeg.get_ffmpeg_exe()


@dataclasses.dataclass(frozen=True)
class Pipe:
    """An open pipe from which a video comes, by its descriptor; whoever opened it closes it."""

    descriptor: int


def display_name(source: Source | Pipe, name: str | None = None) -> str:
    """What errors call a source: `name`, else its path, else its size in bytes."""
    if name is not None:
        return name
    if isinstance(source, Pipe):
        return "<pipe>"
    return f"<{len(source)} bytes>" if isinstance(source, bytes) else os.fspath(source)


def input_options(descriptor: int) -> list[str]:
    """Options that make `descriptor` the only thing an input may read, ending with -i."""
    return [
        *("-protocol_whitelist", "fd", "-format_whitelist", CONTAINERS),
        *("-max_pixels", str(MAX_PIXELS), "-fd", str(descriptor), "-i", "fd:"),
    ]


class OutputTooLarge(Exception):
    """A sink received more than its limit."""


class Stopped(Exception):
    """The caller of a run wanted it to end early."""


class Job:
    """The descriptors of one ffmpeg process, its run and its log; a context manager."""

    def __init__(self) -> None:
        self._files = contextlib.ExitStack()
        self._inherited: list[int] = []
        self._sinks: list[Sink] = []
        self._feeds: list[Feed] = []
        self._text = _Text(None)
        self.log = ""
        self.returncode = 0

    def __enter__(self) -> "Job":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._files.close()

    def open(self, source: Source, name: str) -> int:
        """Opens a file or bytes for reading and returns the descriptor's number.

        Raises:
          FileNotFoundError, PermissionError: as `open` does.
          NotAVideo: empty, or not a regular file.
        """
        if isinstance(source, bytes):
            if not source:
                raise NotAVideo(name, "it is empty")
            descriptor = anonymous_file(source)
        else:
            # Without O_NONBLOCK, a named pipe without a writer would hang right here.
            descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        self._files.callback(End(descriptor).close)
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise NotAVideo(name, "it is a folder")
        if not stat.S_ISREG(status.st_mode):
            raise NotAVideo(name, "it is not a regular file")
        if status.st_size == 0:
            raise NotAVideo(name, "it is empty")
        self._inherited.append(descriptor)
        return descriptor

    def adopt(self, pipe: Pipe, name: str) -> int:
        """A descriptor of a pipe that is open already, for reading.

        Raises NotAVideo where it is a terminal, a folder or closed.
        """
        try:
            descriptor = os.dup(pipe.descriptor)
        except OSError as error:
            raise NotAVideo(name, "it is closed") from error
        self._files.callback(End(descriptor).close)
        if os.isatty(descriptor):
            raise NotAVideo(name, "it is a terminal: pipe a video into it")
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise NotAVideo(name, "it is a folder")
        self._inherited.append(descriptor)
        return descriptor

    def sink(self, limit: int, take: Callable[[bytes], object] | None = None) -> Sink:
        """A new output pipe; give ffmpeg `pipe:{sink.childs.number}`."""
        sink = Sink(limit, take)
        self._sinks.append(sink)
        self._own(sink)
        return sink

    def feed(self, pieces: Sequence[memoryview]) -> Feed:
        """A new input pipe for raw frames of our own; give ffmpeg `pipe:{feed.childs.number}`."""
        feed = Feed(pieces)
        self._feeds.append(feed)
        self._own(feed)
        return feed

    def result(self) -> Result:
        """A new output file; give ffmpeg `*result.options`."""
        result = Result()
        self._files.callback(result.file.close)
        self._inherited.append(result.file.number)
        return result

    def _own(self, pipe: "Sink | Feed") -> None:
        self._files.callback(pipe.ours.close)
        self._files.callback(pipe.childs.close)
        self._inherited.append(pipe.childs.number)

    def run(
        self,
        arguments: Sequence[str],
        *,
        name: str,
        timeout: float,
        shorten: Callable[[bytes], bytes | None] | None = None,
        endless: bool = False,
        stopped: Callable[[], bool] | None = None,
    ) -> None:
        """Runs ffmpeg to its end; afterwards the sinks hold its output and `log` its messages.

        Args:
          arguments: without the program's name.
          name: what errors call the video.
          timeout: seconds.
          shorten: what to keep of a line of the log; None drops it.
          endless: `timeout` bounds the time without output, not the whole run.
          stopped: asked several times a second whether to end early.

        Raises:
          VideoTimeout: `timeout` seconds passed; the process is dead.
          Stopped: `stopped` said so; the process is dead.
          VideoError: something else killed the process.
          OutputTooLarge: a sink overflowed; the process is dead.
        """
        # Processor time may exceed wall time (several threads): a bound on an orphan, not on us.
        limit = ["-timelimit", str(math.ceil(timeout) * max(os.cpu_count() or 1, 2) + 1)]
        limit = [] if endless else limit
        clock = _Clock(timeout, endless, stopped)
        command = [executable(), "-hide_banner", "-nostdin", "-nostats", *limit, *arguments]
        environment = {k: v for k, v in os.environ.items() if k not in _UNWANTED}
        log, log_writer = open_pipe()
        self._files.callback(log.close)
        self._files.callback(log_writer.close)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log_writer.number,
            pass_fds=self._inherited,
            env=environment,
            process_group=0,
        )
        try:
            log_writer.close()
            for pipe in (*self._sinks, *self._feeds):
                pipe.childs.close()
            self._exchange(log, name, clock, shorten)
            self.returncode = process.wait(max(clock.left(), 1.0))
        except subprocess.TimeoutExpired:
            raise VideoTimeout(name, f"ffmpeg did not end within {timeout:g} s") from None
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if self.returncode == -signal.SIGXCPU:
            raise VideoTimeout(name, "it took more processor time than it may")
        if self.returncode < 0:
            reason = f"ffmpeg was killed by signal {-self.returncode}"
            raise VideoError(name, reason, "free some memory, and try it again")

    def _exchange(
        self,
        log: End,
        name: str,
        clock: "_Clock",
        shorten: Callable[[bytes], bytes | None] | None,
    ) -> None:
        """Moves bytes until every pipe is at its end."""
        text = self._text = _Text(shorten)
        with selectors.DefaultSelector() as selector:
            selector.register(log.number, selectors.EVENT_READ)
            for sink in self._sinks:
                selector.register(sink.ours.number, selectors.EVENT_READ, sink)
            for feed in self._feeds:
                selector.register(feed.ours.number, selectors.EVENT_WRITE, feed)
            while selector.get_map():
                ready = selector.select(clock.pause())
                if clock.stopped():
                    raise Stopped
                if clock.left() <= 0:
                    reason = f"reading or writing it took more than {clock.timeout:g} s"
                    raise VideoTimeout(name, reason)
                # The log first: what ffmpeg says of a frame, it says before it writes the frame.
                for key, _ in sorted(ready, key=lambda item: item[0].data is not None):
                    pipe = key.data
                    if isinstance(pipe, Sink):
                        more = pipe.read()
                        clock.heard()
                        if pipe.overflowed:
                            raise OutputTooLarge
                    elif isinstance(pipe, Feed):
                        more = pipe.write()
                    else:
                        more = text.take(os.read(log.number, READ_BYTES))
                    if not more:
                        selector.unregister(key.fd)
                        if isinstance(pipe, Feed):
                            pipe.ours.close()  # The end of the file, for ffmpeg.
                # ffmpeg writes in small pieces: to wait a little is to read fewer, larger ones.
                time.sleep(_PAUSE)
        self.log = text.decode()

    def said_so_far(self) -> str:
        """The log of a run that is under way."""
        return self._text.decode()


class _Clock:
    """The time that a run may still take."""

    def __init__(self, timeout: float, endless: bool, stopped: Callable[[], bool] | None) -> None:
        self.timeout = timeout
        self.stopped = stopped or (lambda: False)
        self._longest = math.inf if stopped is None else _POLL
        self._endless = endless
        self._deadline = time.monotonic() + timeout

    def heard(self) -> None:
        """Output came."""
        if self._endless:
            self._deadline = time.monotonic() + self.timeout

    def left(self) -> float:
        """Seconds."""
        return self._deadline - time.monotonic()

    def pause(self) -> float:
        """Seconds that one wait may last."""
        return max(min(self.left(), self._longest), 0.0)


class _Text:
    """The beginning and the end of a text that may be long, optionally only a part of its lines."""

    def __init__(self, shorten: Callable[[bytes], bytes | None] | None) -> None:
        self._shorten = shorten
        self._head, self._tail, self._line = bytearray(), bytearray(), b""

    def take(self, piece: bytes) -> bool:
        """Adds a piece; False at the end of the stream."""
        more = bool(piece)
        if self._shorten is not None:
            *lines, self._line = (self._line + piece).split(b"\n")
            self._line = self._line[-_LOG_BYTES:]
            short = [self._shorten(line) for line in lines]
            piece = b"".join(line + b"\n" for line in short if line is not None)
        room = _LOG_BYTES - len(self._head)
        self._head += piece[:room]
        self._tail += piece[room:]
        del self._tail[:-_LOG_BYTES]
        return more

    def decode(self) -> str:
        return (self._head + self._tail).decode("utf-8", "replace")


# FFREPORT makes ffmpeg write a report file, the others colour its messages.
_UNWANTED = {"FFREPORT", "AV_LOG_FORCE_COLOR", "AV_LOG_FORCE_256COLOR"}


def disk_error(name: str, error: OSError) -> VideoError | OSError:
    """A full disk as a VideoError, any other OSError as it is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return VideoError(name, "the disk is full", "free some space and write it again")
    return error
