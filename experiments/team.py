"""The hosts of a search: each trains a part of the members, and they meet when a round ends."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import numpy as np

T = TypeVar("T")


class Team:
    """The processes of a search; one that is alone meets itself.

    index: number of this one. count: how many there are.

    Args:
        run_dir: a folder that all see.
    """

    def __init__(self, run_dir: pathlib.Path) -> None:
        self.index, self.count = jax.process_index(), jax.process_count()
        self._stop = run_dir / "stop"

    def part(self, items: Sequence[T]) -> list[T]:
        """This host's share. Neighbours, which take equally long, go to different hosts."""
        return list(items[self.index :: self.count])

    def stop(self) -> None:
        """Asks the others to stop after their next step."""
        if self.count > 1:
            self._stop.touch()

    def stopping(self) -> bool:
        """Whether one of them asked to stop."""
        return self.count > 1 and self._stop.exists()

    def forget_stop(self) -> None:
        """Takes back what was asked, in an earlier process."""
        self._stop.unlink(missing_ok=True)

    def meet(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        """Waits for all hosts; returns the plain values that each brings, in their order."""
        if self.count == 1:
            return [message]
        # Imported late: a host that is alone does not need it.
        from jax.experimental import multihost_utils

        text = np.frombuffer(json.dumps(message).encode(), np.uint8)
        longest = int(np.max(multihost_utils.process_allgather(np.int32(len(text)))))
        padded = np.zeros(longest, np.uint8)
        padded[: len(text)] = text
        rows = np.asarray(multihost_utils.process_allgather(padded))
        return [json.loads(row.tobytes().rstrip(b"\0")) for row in rows]
