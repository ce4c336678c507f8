"""What a person sees while a run trains: a bar on a terminal, one plain line per epoch elsewhere.

The bar goes to standard error and is redrawn ten times a second at most, in place. Where standard
error is a file, a pipe or a dumb terminal there is no bar and no escape code: only the lines that
`epoch` and `say` write.
"""

import math
import os
import shutil
import sys
import threading
from collections.abc import Mapping
from time import monotonic as _now
from types import TracebackType
from typing import Any, TextIO

from tqdm import tqdm

from experiments.readable import duration, number, percent

REDRAW_SECONDS = 0.1
SHORTEST_BAR = 8  # columns; where there are fewer, the numbers stand alone


class _Bar(tqdm):
    """tqdm without its monitor thread, which wakes bars that went silent: not needed here, and a
    thread is a hazard where workers are forked."""

    monitor_interval = 0


_Bar.set_lock(threading.RLock())  # tqdm's default is a semaphore shared between processes


class Progress:
    """Progress of a training run.

    ```
    with Progress(total_steps, epochs) as progress:
        for step in range(1, total_steps + 1):
            ...
            progress.update(step, loss=loss, top1=top1, clips=32)
            if an epoch ends:
                progress.epoch(epoch, {"train/loss": 0.4, "val/top1": 0.9, ...})
    ```

    Leaving the block, by Ctrl-C too, erases the bar, so that what is written next begins on an
    empty line.
    """

    def __init__(
        self, total: int, epochs: int, *, initial: int = 0, stream: TextIO | None = None
    ) -> None:
        """A run of `total` steps in `epochs` epochs, of which `initial` steps are already done.

        `stream` is standard error unless given.
        """
        self._stream = sys.stderr if stream is None else stream
        self._total, self._epochs, self._initial = total, epochs, initial
        self._next_draw = 0.0
        self._bar: _Bar | None = None

    def __enter__(self) -> "Progress":
        if _is_terminal(self._stream):
            self._bar = _Bar(
                total=self._total,
                initial=self._initial,
                file=self._stream,
                leave=False,
                mininterval=0,  # `update` decides when to draw
                miniters=1,
                nrows=20,  # a terminal that says it has no rows, as in containers, shows a bar too
                ascii=not _is_unicode(self._stream),
                ncols=_columns(self._stream),
                bar_format=f"{self._epoch_of(self._initial)}  starting",
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def update(self, step: int, *, loss: Any, top1: Any, clips: float) -> None:
        """Tells that `step` steps are done.

        Cheap where nothing is drawn: `loss` and `top1` (a share of 1) are then not looked at, so
        that arrays still being computed on a device are not waited for.

        Args:
            step: steps done since the run began, 1 after the first.
            loss: of this step; anything that `float` takes.
            top1: of this step, likewise.
            clips: number of clips in this step.
        """
        bar, now = self._bar, _now()
        if bar is None or (now < self._next_draw and step < self._total):
            return
        self._next_draw = now + REDRAW_SECONDS
        rate = bar.format_dict["rate"]  # steps per second lately; None before the second drawing
        bar.ncols = _columns(self._stream)  # the window may have another width by now
        bar.bar_format = _template(
            bar.ncols,
            [self._epoch_of(step), f"{100 * step / max(self._total, 1):3.0f}%"],
            [
                f"loss {number(float(loss))}",
                f"acc {percent(float(top1))}",
                f"{number(clips * rate)} clips/s" if rate else "",
                f"{_Bar.format_interval((self._total - step) / rate)} left" if rate else "",
            ],
        )
        bar.update(step - bar.n)

    def epoch(self, epoch: int, metrics: Mapping[str, Any]) -> None:
        """Writes the line of an epoch, 1 for the first.

        Args:
            epoch: its number.
            metrics: a line of metrics.jsonl; read are {train,val}/{loss,top1}, clips_per_second
                and seconds, each where present.
        """
        parts = [f"epoch {epoch}/{self._epochs}"]
        for split in ("train", "val"):
            loss, top1 = metrics.get(f"{split}/loss"), metrics.get(f"{split}/top1")
            shown = [] if loss is None else [f"loss {number(float(loss))}"]
            shown += [] if top1 is None else [f"acc {percent(float(top1))}"]
            if shown:
                parts.append(" ".join((split, *shown)))
        if (rate := metrics.get("clips_per_second")) is not None:
            parts.append(f"{number(float(rate))} clips/s")
        if (seconds := metrics.get("seconds")) is not None:
            parts.append(duration(float(seconds)))
        self.say("  ".join(parts))

    def say(self, line: str) -> None:
        """Writes a line; the bar, where there is one, stays below it."""
        if self._bar is None:
            print(line, file=self._stream, flush=True)
        else:
            self._bar.write(line, file=self._stream)
            self._stream.flush()

    def _epoch_of(self, step: int) -> str:
        epoch = math.ceil(step * self._epochs / max(self._total, 1))
        return f"epoch {max(1, epoch)}/{self._epochs}"

    def close(self) -> None:
        """Erases the bar. Called on leaving the `with` block; a second call does nothing."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _is_terminal(stream: TextIO) -> bool:
    """Whether the stream is a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _template(columns: int, before: list[str], after: list[str]) -> str:
    """tqdm's format of a line of at most `columns` columns: texts, with the bar between them.

    Where there is no room for the bar it goes; what still does not fit is cut at the end.
    """
    texts = [text for text in (*before, *after) if text]
    if len("  ".join(texts)) + 2 + SHORTEST_BAR > columns:
        return "  ".join(texts)
    return "  ".join([*before, "{bar}", *(text for text in after if text)])


def _is_unicode(stream: TextIO) -> bool:
    return (getattr(stream, "encoding", None) or "").lower().replace("-", "").startswith("utf")


def _columns(stream: TextIO) -> int:
    """Columns to write in: those of the terminal, 80 where it does not say.

    One stays free, because a character in the last one makes some terminals begin a new line.
    """
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except OSError:
        columns = shutil.get_terminal_size().columns
    return max((columns or 80) - 1, 1)
