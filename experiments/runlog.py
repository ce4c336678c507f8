"""What a run writes while it goes on: metrics.jsonl, TensorBoard events and its stage times."""

import contextlib
import json
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

from experiments.events import EventWriter


class RunLog:
    """Lines of metrics.jsonl, mirrored as TensorBoard scalars.

    A resumed run cuts the file back to what it held when the checkpoint was written, so that no
    step is logged twice.

    Args:
        run_dir: folder of the run; None: nothing is written, as another host does.
        size: bytes of metrics.jsonl that are kept.
        step: step from which the run goes on; later TensorBoard events are purged.
    """

    def __init__(self, run_dir: pathlib.Path | None, size: int, step: int) -> None:
        self._file, self._events = None, None
        if run_dir is None:
            return
        path = run_dir / "metrics.jsonl"
        with path.open("ab") as file:
            file.truncate(min(size, path.stat().st_size))
        self._file = path.open("a", encoding="utf-8")
        self._events = EventWriter(run_dir, resume_step=step or None)

    def write(self, step: int, epoch: int, values: dict[str, float]) -> None:
        """Logs `values` after `step` steps, in `epoch` (counted from 0)."""
        if self._file is None or self._events is None:
            return
        self._file.write(json.dumps({"step": step, "epoch": epoch, **values}) + "\n")
        self._file.flush()
        self._events.write(step, values)

    def size(self) -> int:
        """Bytes of metrics.jsonl so far."""
        if self._file is None:
            return 0
        self._file.flush()
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Closes both files."""
        if self._file is not None and self._events is not None:
            self._file.close()
            self._events.close()


class Stages:
    """Seconds that the main thread spent in each stage of the loop."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = dict(seconds)

    @contextlib.contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Adds the time of the `with` block to stage `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def write_json(path: pathlib.Path, values: Any) -> None:
    """Writes plain values as a JSON file, in one step."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", "utf-8")
    temporary.replace(path)
