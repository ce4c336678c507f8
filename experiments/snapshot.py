"""The state of some members of a search in one file: arrays by their paths, and plain values.

Orbax is for the checkpoints of runs, which all hosts write together. The hosts of a search train
different members, each at its own pace, and each writes files of its own.
"""

import json
import os
import pathlib
import zipfile
from typing import Any

import jax
import numpy as np

from experiments.checkpoint import CheckpointError

_META = "meta"  # paths of arrays begin with a dot or a bracket


class Snapshot:
    """A file of arrays and plain values, which is replaced as a whole."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def exists(self) -> bool:
        """Whether it was saved."""
        return self.path.exists()

    def save(self, state: Any, meta: dict[str, Any]) -> None:
        """Writes `state`, a pytree of arrays, and `meta` (JSON) in one step.

        Raises:
            CheckpointError: it could not be written, for instance because the disk is full.
        """
        arrays = {path: np.asarray(leaf) for path, leaf in _leaves(state).items()}
        arrays[_META] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
        temporary = self.path.with_suffix(".tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except OSError as error:
            raise CheckpointError(
                f"{self.path} could not be written: {error.strerror}; make room or choose another "
                "--out, then use --resume."
            ) from error

    def restore(self, like: Any) -> tuple[Any, dict[str, Any]]:
        """What was saved as (state, meta), the state with the structure of `like`.

        Raises:
            CheckpointError: it cannot be read, or has other arrays.
        """
        expected = _leaves(like)
        try:
            with np.load(self.path, allow_pickle=False) as file:
                found = {name: file[name] for name in file.files}
            meta = json.loads(found.pop(_META).tobytes())
            if found.keys() != expected.keys():
                raise ValueError("it holds the arrays of another network")
            for path, leaf in expected.items():
                if found[path].shape != leaf.shape or found[path].dtype != leaf.dtype:
                    raise ValueError(f"{path} has the shape {found[path].shape}")
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise CheckpointError(
                f"{self.path} cannot be read: {error}; delete it to train these members again."
            ) from error
        return jax.tree.unflatten(jax.tree.structure(like), list(found.values())), meta


def _leaves(tree: Any) -> dict[str, Any]:
    """The arrays of a tree by their paths, in its order."""
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in paths}
