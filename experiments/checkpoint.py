"""Checkpoints of a run: the last one, to go on from, and the best one, to test and to keep.

Orbax writes each checkpoint beside the others under a temporary name and commits it last, so a
process killed while writing leaves the earlier one whole. Two are kept for the same reason.
Saving is synchronous: the arrays of the train state are donated to the next step.
"""

import errno
import functools
import pathlib
import shutil
from typing import TYPE_CHECKING, Any

import jax

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

KEPT = {"last": 2, "best": 1}


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read; the message names the folder and the reason."""


class Checkpoints:
    """The checkpoints of one run, in `directory/last/STEP` and `directory/best/STEP`."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory.absolute()
        self._managers: dict[str, ocp.CheckpointManager] = {}

    @functools.cached_property
    def _orbax(self) -> Any:
        # Imported with the first checkpoint: the first train step need not wait for it.
        import orbax.checkpoint as ocp

        return ocp

    def _manager(self, name: str) -> "ocp.CheckpointManager":
        if name not in self._managers:
            options = self._orbax.CheckpointManagerOptions(
                max_to_keep=KEPT[name],
                create=True,
                cleanup_tmp_directories=True,
                enable_async_checkpointing=False,
            )
            self._managers[name] = self._orbax.CheckpointManager(
                self.directory / name, options=options
            )
        return self._managers[name]

    def latest_step(self, name: str = "last") -> int | None:
        """Step of the newest whole checkpoint, or None where there is none."""
        return self._manager(name).latest_step()

    def save(self, name: str, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Writes `state` (a pytree of arrays) and `meta` (JSON) as the checkpoint of `step`.

        A checkpoint of the same step that exists already is kept: a step determines its state.

        Raises:
            CheckpointError: it could not be written, for instance because the disk is full.
        """
        args = self._orbax.args
        try:
            manager = self._manager(name)
            if step in manager.all_steps():
                return
            self._require_room(state)
            manager.save(
                step, args=args.Composite(state=args.StandardSave(state), meta=args.JsonSave(meta))
            )
            manager.wait_until_finished()
        except (OSError, ValueError) as error:  # tensorstore reports a full disk as ValueError
            raise CheckpointError(
                f"The checkpoint of step {step} could not be written to {self.directory}: "
                f"{_first_line(error)}; make room or choose another --out, then use --resume."
            ) from error

    def _require_room(self, state: Any) -> None:
        """Raises OSError where the state does not fit on the disk.

        Orbax notices too, but its threads then print dozens of tracebacks.
        """
        needed = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)) + 2**20
        free = shutil.disk_usage(self.directory).free
        if free < needed:
            raise OSError(
                errno.ENOSPC, f"it needs {needed / 2**20:.1f} MB and {free / 2**20:.1f} MB are free"
            )

    def restore(self, name: str, abstract_state: Any) -> tuple[Any, dict[str, Any]]:
        """The newest checkpoint as (state, meta), the state shaped as `abstract_state`.

        Raises:
            CheckpointError: there is none, or it does not fit the model.
        """
        manager, args = self._manager(name), self._orbax.args
        step = manager.latest_step()
        if step is None:
            raise CheckpointError(
                f"There is no checkpoint in {self.directory / name}: start without --resume."
            )
        target = jax.tree.map(self._orbax.utils.to_shape_dtype_struct, abstract_state)
        try:
            restored = manager.restore(
                step,
                args=args.Composite(state=args.StandardRestore(target), meta=args.JsonRestore()),
            )
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"The checkpoint {self.directory / name / str(step)} cannot be read: "
                f"{_first_line(error)}; delete that folder to go on from an earlier one."
            ) from error
        return restored["state"], restored["meta"]

    def close(self) -> None:
        """Releases what Orbax holds."""
        for manager in self._managers.values():
            manager.close()


def _first_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
