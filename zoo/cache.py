"""Where files are kept that can be made or fetched again, and how processes take turns there."""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator


def folder(kind: str) -> pathlib.Path:
    """The folder of one kind of files: in $ZOO_CACHE or else in ~/.cache/jax-video-zoo.

    It is not made here.
    """
    root = os.environ.get("ZOO_CACHE")
    base = pathlib.Path(root) if root else pathlib.Path.home() / ".cache" / "jax-video-zoo"
    return base.expanduser().absolute() / kind


def keep_compiled() -> None:
    """Has jax keep compiled programs in the cache, for processes that have not imported it yet.

    A folder that JAX_COMPILATION_CACHE_DIR names is left as it is; empty, it turns that off.
    """
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder("compiled")))


@contextlib.contextmanager
def lock(path: pathlib.Path, waiting: Callable[[], object]) -> Iterator[None]:
    """Holds the lock file `path`; the lock ends with the process, however that ends.

    waiting: called once where another process has the lock, before waiting for it.
    """
    import fcntl

    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
