"""Which files are videos, by their names, and which of them are meant by a list of inputs."""

import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

# fmt: off
EXTENSIONS = frozenset((
    "264", "265", "3g2", "3gp", "amv", "apng", "asf", "avi", "divx", "dv", "f4v", "flv", "gif",
    "h264", "h265", "hevc", "ivf", "m1v", "m2ts", "m2v", "m4v", "mjpeg", "mjpg", "mkv", "mov",
    "mp4", "mpeg", "mpg", "mts", "mxf", "nut", "ogg", "ogm", "ogv", "qt", "rm", "rmvb", "ts",
    "vob", "webm", "wmv", "wtv", "y4m",
))
# fmt: on


class Found(NamedTuple):
    """A video and what results about it are called: its path below the input that it was found in.

    The key is the same on every machine that has the same folder.
    """

    path: pathlib.Path
    key: str


def find(inputs: Sequence[str | os.PathLike]) -> list[Found]:
    """The videos that inputs mean: files as they are, of folders all files with a video's name.

    Folders are searched to any depth, hidden files and folders left out, in the order of names.
    Nothing is opened: what is named as a file may be absent or no video.

    Raises ValueError where a folder holds no video, and where two videos have the same key.
    """
    found: list[Found] = []
    for entry in map(pathlib.Path, inputs):
        if entry.is_dir():
            inside = [Found(path, path.relative_to(entry).as_posix()) for path in _inside(entry)]
            if not inside:
                raise ValueError(f"{entry} holds no video; name a folder with videos, or files")
            found += inside
        else:
            found.append(Found(entry, entry.name))
    seen: dict[str, pathlib.Path] = {}
    unique = []
    for path, key in found:
        if key in seen and seen[key] != path:
            raise ValueError(
                f"{seen[key]} and {path} would have results of the same name, {key}; name a folder "
                "that holds both, or do them one after the other"
            )
        if key not in seen:
            unique.append(Found(path, key))
        seen[key] = path
    return unique


def _inside(folder: pathlib.Path) -> Iterable[pathlib.Path]:
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and pathlib.PurePath(name).suffix.lower()[1:] in EXTENSIONS:
                yield pathlib.Path(path, name)
