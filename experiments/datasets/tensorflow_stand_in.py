"""What the code of tensorflow-datasets asks TensorFlow for, where TensorFlow is not installed.

To build a set and to read it, TFDS needs file functions and the names of a few types, all of which
NumPy and Python have. TFDS reaches TensorFlow through one object that imports it on first use; the
stand-in is put there, so that no other package takes it for TensorFlow.
"""

import glob
import importlib.resources.abc
import os
import pathlib
import shutil
from types import SimpleNamespace
from typing import Any

import numpy as np


class NeedsTensorFlow(RuntimeError):
    """The code of a data set uses a part of TensorFlow that has no stand-in."""


class _Part(SimpleNamespace):
    """A module of the stand-in; what it lacks is named in an error."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise NeedsTensorFlow(f"it uses {self._name}.{name} of TensorFlow")


class _Errors:
    """`tf.errors`: classes that nothing here raises, for `except` clauses."""

    def __getattr__(self, name: str) -> type[Exception]:
        return type(name, (Exception,), {})


def _read_mode(path: str | os.PathLike, mode: str = "r") -> Any:
    return open(path, mode, encoding=None if "b" in mode else "utf-8")  # noqa: PTH123


def install() -> None:
    """Lets tensorflow-datasets find the stand-in in place of TensorFlow.

    It also finds the standard library's `importlib.resources` in place of the backport
    `importlib_resources`, which it uses without requiring it (tensorflow-datasets 4.9.10).
    """
    from tensorflow_datasets.core import dataset_builder
    from tensorflow_datasets.core.utils import lazy_imports_utils

    def make_folders(path: str | os.PathLike) -> None:
        pathlib.Path(path).mkdir(parents=True, exist_ok=True)

    def copy(source: str | os.PathLike, target: str | os.PathLike, overwrite: bool = False) -> None:
        if not overwrite and pathlib.Path(target).exists():
            raise FileExistsError(f"{target} exists")
        shutil.copyfile(source, target)

    gfile = _Part(
        _name="tf.io.gfile",
        GFile=_read_mode,
        copy=copy,
        exists=os.path.exists,
        glob=glob.glob,
        isdir=os.path.isdir,
        listdir=os.listdir,
        makedirs=make_folders,
        mkdir=os.mkdir,
        remove=os.remove,
        rmtree=shutil.rmtree,
        walk=os.walk,
    )
    stand_in = _Part(
        _name="tf",
        __version__="2.0.0",
        compat=_Part(_name="tf.compat", as_text=os.fsdecode, as_bytes=os.fsencode),
        dtypes=_Part(_name="tf.dtypes", as_dtype=np.dtype),
        errors=_Errors(),
        io=_Part(_name="tf.io", gfile=gfile),
        uint8=np.uint8,
        uint16=np.uint16,
    )
    _resolve(lazy_imports_utils.tensorflow, stand_in)
    _resolve(dataset_builder.importlib_resources, importlib.resources)


def _resolve(lazy_module: Any, module: Any) -> None:
    """Gives a lazy module of etils what it would import."""
    lazy_module.__dict__["_module"] = module
