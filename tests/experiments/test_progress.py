"""The progress bar on real pseudo terminals, and the silence everywhere else."""

import fcntl
import io
import itertools
import os
import pathlib
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from typing import TextIO

import pytest

from experiments import progress
from experiments.progress import Progress

ROOT = pathlib.Path(__file__).resolve().parents[2]
LINE = {
    "train/loss": 0.5,
    "train/top1": 0.8,
    "val/loss": 0.25,
    "val/top1": 0.975,
    "clips_per_second": 1033.2,
    "seconds": 250.0,
}
LINE_TEXT = "train loss 0.500 acc 80.0%  val loss 0.250 acc 97.5%  1033 clips/s  4 min 10 s"


class Terminal:
    """A pseudo terminal whose output can be read as text and as the screen that it leaves."""

    _marks = itertools.count()

    def __init__(self, columns: int, rows: int = 24, encoding: str = "utf-8") -> None:
        self.master, slave = pty.openpty()
        self.resize(columns, rows)
        self.stream: TextIO = os.fdopen(slave, "w", encoding=encoding)
        self._output = b""
        # Read all the time: a terminal that nobody reads stops its writer after a few thousand
        # characters.
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self) -> None:
        while True:
            self._output += os.read(self.master, 65536)

    def resize(self, columns: int, rows: int = 24) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self) -> str:
        """Everything written so far: what is written comes out in order, so up to a mark."""
        self.stream.flush()
        mark = f"\a{next(self._marks)}\a".encode()
        os.write(self.stream.fileno(), mark)
        deadline = time.monotonic() + 30
        while mark not in self._output:
            assert time.monotonic() < deadline, self._output
            time.sleep(0.001)
        return re.sub(rb"\a\d+\a", b"", self._output).decode()

    def rows(self, columns: int) -> list[str]:
        """The screen: carriage returns overwrite, lines of more than `columns` fold."""
        rows, column = [""], 0
        for character in self.read().replace("\r\n", "\n"):
            if character == "\n":
                rows.append("")
                column = 0
            elif character == "\r":
                column = 0
            else:
                if column == columns:
                    rows.append("")
                    column = 0
                rows[-1] = rows[-1][:column].ljust(column) + character + rows[-1][column + 1 :]
                column += 1
        return [row.rstrip() for row in rows]

    def drawings(self) -> list[str]:
        """Every state of the bar, in order."""
        return [part for part in self.read().replace("\r\n", "\n").split("\r") if part.strip()]


class Clock:
    """A clock that only a test moves, for the bar's own time and for tqdm's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(progress, "_now", lambda: self.now)
        monkeypatch.setattr("tqdm.std.time", lambda: self.now)


@pytest.fixture(autouse=True)
def xterm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TERM", "xterm")
    yield


class Unread:
    """A value that is still being computed: looking at it is an error."""

    def __float__(self) -> float:
        raise AssertionError("the value was waited for although nothing is drawn")


def test_plain_stream_gets_one_line_per_epoch_and_nothing_else() -> None:
    stream = io.StringIO()
    with Progress(20, 2, stream=stream) as shown:
        for step in range(1, 21):
            shown.update(step, loss=Unread(), top1=Unread(), clips=32)
            if step % 10 == 0:
                shown.epoch(step // 10, LINE)
    assert stream.getvalue() == f"epoch 1/2  {LINE_TEXT}\nepoch 2/2  {LINE_TEXT}\n"


def test_dumb_terminal_is_treated_as_a_plain_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal(80)
    with Progress(2, 1, stream=terminal.stream) as shown:
        shown.update(1, loss=Unread(), top1=Unread(), clips=1)
        shown.epoch(1, {"val/loss": float("nan")})
    assert terminal.read() == "epoch 1/1  val loss nan\r\n"


def test_bar_shows_what_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Epoch, share done, loss, accuracy, clips per second and time left, from a known clock."""
    clock, terminal = Clock(monkeypatch), Terminal(100)
    with Progress(600, 3, stream=terminal.stream) as shown:
        assert terminal.drawings()[-1].strip() == "epoch 1/3  starting"
        for step in range(1, 301):
            clock.now += 0.25
            shown.update(step, loss=0.4321, top1=0.875, clips=32)
    last = [row for row in terminal.drawings() if "loss" in row][-1]
    start, end = last.split("50%")
    assert start.strip() == "epoch 2/3"
    assert end.endswith("loss 0.432  acc 87.5%  128 clips/s  01:15 left")
    assert "█" in end


def test_bar_is_drawn_ten_times_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """5000 steps in two seconds of the clock; values between two drawings stay unread."""
    clock, terminal = Clock(monkeypatch), Terminal(80)
    read = 0

    class Counted(float):
        def __float__(self) -> float:
            nonlocal read
            read += 1
            return 0.5

    with Progress(5000, 1, stream=terminal.stream) as shown:
        for step in range(1, 5001):
            clock.now += 0.0004
            shown.update(step, loss=Counted(), top1=0.5, clips=1)
    assert 19 <= read <= 22
    assert len([row for row in terminal.drawings() if "loss" in row]) == read
    assert "100%" in [row for row in terminal.drawings() if "loss" in row][-1]


@pytest.mark.parametrize("columns", [1, 5, 12, 20, 33, 48, 60, 79, 80, 132, 250])
def test_bar_never_folds(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any width each drawing stays on one row, and leaving wipes it out."""
    clock, terminal = Clock(monkeypatch), Terminal(columns)
    with Progress(1000, 10, stream=terminal.stream) as shown:
        for step in (1, 17, 400, 999, 1000):
            clock.now += 40.0
            shown.update(step, loss=123.4 / step, top1=step / 1000, clips=64)
    assert max(map(len, terminal.drawings())) < max(columns, 2)
    assert terminal.rows(columns) == [""]


def test_window_may_change_its_width(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, terminal = Clock(monkeypatch), Terminal(120)
    with Progress(10, 1, stream=terminal.stream) as shown:
        for step, columns in enumerate((120, 40, 90), start=1):
            terminal.resize(columns)
            clock.now += 1.0
            shown.update(step, loss=0.5, top1=0.5, clips=8)
            assert len(terminal.drawings()[-1].rstrip()) < columns
        assert len(terminal.drawings()[-1]) > 80


def test_terminal_without_a_size_still_has_a_bar() -> None:
    """Pseudo terminals of containers say 0 rows and 0 columns."""
    terminal = Terminal(0, 0)
    with Progress(10, 1, stream=terminal.stream) as shown:
        shown.update(5, loss=0.5, top1=0.5, clips=8)
    assert "50%" in terminal.drawings()[-1]


def test_epoch_lines_stay_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, terminal = Clock(monkeypatch), Terminal(110)
    with Progress(20, 2, stream=terminal.stream) as shown:
        for step in range(1, 21):
            clock.now += 1.0
            shown.update(step, loss=0.5, top1=0.5, clips=8)
            if step % 10 == 0:
                shown.epoch(step // 10, LINE)
                shown.say("saved checkpoint")
        above = terminal.rows(110)
        assert above[-1].startswith("epoch 2/2  100%")
    expected = [f"epoch {e}/2  {LINE_TEXT}" for e in (1, 2)]
    rows = terminal.rows(110)
    assert rows == [expected[0], "saved checkpoint", expected[1], "saved checkpoint", ""]
    assert above[:-1] == rows[:-1]


def test_resumed_run_starts_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speed and time left come from the steps of this process alone."""
    clock, terminal = Clock(monkeypatch), Terminal(110)
    with Progress(100, 10, initial=50, stream=terminal.stream) as shown:
        assert "epoch 5/10" in terminal.drawings()[-1]
        for step in range(51, 61):
            clock.now += 1.0
            shown.update(step, loss=0.5, top1=0.5, clips=8)
    last = terminal.drawings()[-1]
    assert "60%" in last and "8.00 clips/s  00:40 left" in last


def test_terminal_without_unicode_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, terminal = Clock(monkeypatch), Terminal(100, encoding="ascii")
    with Progress(2, 1, stream=terminal.stream) as shown:
        clock.now += 1.0
        shown.update(1, loss=float("nan"), top1=0.5, clips=8)
    assert terminal.read().isascii()
    assert "loss nan" in terminal.read()


def test_no_thread_is_left_or_started() -> None:
    """Threads are a hazard where decoding workers are forked."""
    terminal = Terminal(80)
    before = set(threading.enumerate())  # a bar of another library may have started its monitor
    with Progress(2, 1, stream=terminal.stream) as shown:
        shown.update(1, loss=0.5, top1=0.5, clips=8)
        assert set(threading.enumerate()) <= before
    shown.close()  # a second time


def test_ctrl_c_leaves_a_clean_line() -> None:
    """A real process on a real terminal, interrupted while the bar stands."""
    program = (
        "import time\nfrom experiments.progress import Progress\n"
        "try:\n"
        "  with Progress(10**6, 1) as shown:\n"
        "    for step in range(1, 10**6):\n"
        "      time.sleep(0.01)\n"
        "      shown.update(step, loss=0.5, top1=0.5, clips=1)\n"
        "except KeyboardInterrupt:\n"
        "  print('stopped')\n"
    )
    terminal = Terminal(80)
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=terminal.stream, stderr=terminal.stream, cwd=ROOT
    )
    try:
        deadline = time.monotonic() + 30
        while "loss" not in terminal.read():
            assert time.monotonic() < deadline and process.poll() is None, terminal.read()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()
    assert terminal.rows(80) == ["stopped", ""]
