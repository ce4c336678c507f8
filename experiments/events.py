"""Scalars for TensorBoard, written with tensorboardX: no TensorFlow.

tensorboardX's own SummaryWriter hands its events to a thread that dies when the disk is full, and
the next events then wait for it without end. Here each line is written by the caller, who gets
the error.
"""

import errno
import math
import pathlib
import socket
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, cast


class EventWriter:
    """Appends scalars to one new `events.out.tfevents.*` file in the run folder.

    A resumed run opens a second file beside the first; TensorBoard shows both as one curve.
    """

    def __init__(self, run_dir: pathlib.Path, *, resume_step: int | None = None) -> None:
        """Opens the file.

        Args:
            run_dir: folder of the run; made where it is missing.
            resume_step: where a run goes on, the steps that it has done: TensorBoard then drops
                what an earlier file says about later ones.

        Raises:
            OSError: the file cannot be written; the message names it.
        """
        # Imported here: reading configurations and reports needs no protocol buffers.
        from tensorboardX.proto import event_pb2, summary_pb2
        from tensorboardX.record_writer import RecordWriter

        generated: Any = event_pb2  # made at import, so that a type checker sees nothing in it
        self._event, self._summary = generated.Event, cast(Any, summary_pb2).Summary
        run_dir = run_dir.absolute()  # tensorboardX takes "s3:..." for a bucket
        run_dir.mkdir(parents=True, exist_ok=True)
        # Nanoseconds, so that two writers of one second do not share a file.
        name = f"events.out.tfevents.{time.time_ns() / 1e9:.9f}.{socket.gethostname()}"
        self.path = run_dir / name
        self._records: Any = RecordWriter(str(self.path))
        self._write(self._event(wall_time=time.time(), file_version="brain.Event:2"))
        if resume_step is not None:
            start = generated.SessionLog(status=generated.SessionLog.START)
            first = resume_step + 1  # TensorBoard drops this step and those after it
            self._write(self._event(wall_time=time.time(), step=first, session_log=start))

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes the numbers among `values` as scalars of one step, and hands them to the disk.

        What is not a number (a table, a name, None) is left out, so that a line of metrics.jsonl
        can be passed as it is; NaN and infinity are kept.

        Raises:
            OSError: the disk is full or gone; the message names the file.
        """
        if self._records is None:
            raise ValueError(f"{self.path.name} is closed: write before the run ends")
        scalars = [
            self._summary.Value(tag=tag, simple_value=_float32(float(value)))
            for tag, value in values.items()
            if tag != "step" and _is_number(value)
        ]
        if scalars:
            summary = self._summary(value=scalars)
            self._write(self._event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        if self._records is not None:
            records, self._records = self._records, None
            try:
                records.close()
            except OSError as error:
                raise self._refused(error) from error

    def __enter__(self) -> "EventWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _write(self, event: Any) -> None:
        try:
            self._records.write(event.SerializeToString())
            self._records.flush()
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> OSError:
        """An error of the operating system with the file's name and what to do."""
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror
        advice = f"{reason}; make room and continue the run with --resume"
        return OSError(error.errno, advice, str(self.path))


def _is_number(value: Any) -> bool:
    """Whether a value is one number: Python's, numpy's, or an array without dimensions."""
    if isinstance(value, bool):
        return False
    return hasattr(value, "__float__") and getattr(value, "ndim", 0) == 0


def _float32(value: float) -> float:
    """The nearest float32, infinite where there is none: protocol buffers refuse larger ones."""
    limit = 3.4028234663852886e38
    if math.isnan(value) or abs(value) <= limit:
        return float(value)
    return math.copysign(math.inf, value)
