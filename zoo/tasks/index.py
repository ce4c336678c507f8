"""An index of embeddings on disk: added to, removed from and searched exactly; survives kill -9.

A folder with three files. `index.json` says what the vectors are. `vectors.f32` holds them one
after the other. `entries.jsonl` has a line for each video added (its rows, their times and a
checksum) or removed. Both grow at their ends only, the vectors first and both to the disk before
`add` returns; so whatever a killed process leaves behind lies after the last whole line that can
be believed, and is cut off by the next one that writes.

Search compares with every vector, the first look in one byte a number (`zoo.tasks.nearest`): no
library of approximate search is needed for what fits in memory, nothing is missed, and a video is
found as soon as it is added.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from zoo import cache
from zoo.tasks import nearest
from zoo.tasks.embed import Embedding
from zoo.tasks.records import write_text

_VERSION = 1
# So few numbers are multiplied as they are. More queries than this at once are a product of two
# matrices, which reads the vectors once for all of them.
_FEW_NUMBERS, _FEW_QUERIES = 2**20, 4


class IndexDamage(ValueError):
    """An index does not hold what it says, or is none."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A video in an index.

    Attributes:
      video: what it is called there.
      first, count: its rows among all vectors.
      times: seconds [(start, end)] that each of its rows stands for.
      label: the name that somebody gave to what it shows, or "".
    """

    video: str
    first: int
    count: int
    times: tuple[tuple[float, float], ...]
    label: str = ""


@dataclasses.dataclass(frozen=True)
class Hit:
    """A part of a video that is like what was searched for: `score` 1 is equal, 0 unrelated."""

    video: str
    start: float
    end: float
    score: float
    label: str = ""


class Index:
    """An open index. One process may write at a time, any number may read.

    Attributes:
      about: the plain values that it was made with, such as the model of its embeddings.
      entries: the videos in it, by name, in the order in which they were added.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        """Opens an index that `create` made.

        Raises:
          IndexDamage: it is none, or what it holds is not what was written.
        """
        self.path = pathlib.Path(path)
        try:
            header = json.loads((self.path / "index.json").read_text("utf-8"))
            version, self.dimensions = header["version"], header["dimensions"]
            self.about: dict[str, Any] = header["about"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise IndexDamage(
                f"{self.path} is no index ({error}); make one with python -m zoo recognize add"
            ) from error
        if version != _VERSION:
            raise IndexDamage(
                f"{self.path} has version {version}, not {_VERSION}; make it again from its videos"
            )
        self.entries: dict[str, Entry] = {}
        self._vectors = nearest.Grown(np.zeros((0, self.dimensions), np.float32))
        self._owner = nearest.Grown(
            np.zeros(0, np.int64)
        )  # Each row's video's number; -1 is removed.
        self._codes = nearest.Codes(self.dimensions)
        self._names: list[str] = []
        self._size = 0  # Bytes of entries.jsonl that can be believed.
        self._load()

    @classmethod
    def create(cls, path: str | os.PathLike, dimensions: int, about: Mapping[str, Any]) -> "Index":
        """Makes an empty index in a new folder, or opens the one that is there.

        Raises IndexDamage where there is one of other vectors.
        """
        folder = pathlib.Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        header = {"version": _VERSION, "dimensions": dimensions, "about": dict(about)}
        if not (folder / "index.json").exists():
            write_text(folder / "index.json", json.dumps(header, indent=1) + "\n")
        index = cls(folder)
        if (index.dimensions, index.about) != (dimensions, header["about"]):
            raise IndexDamage(
                f"{folder} holds vectors of {index.dimensions} numbers made by {index.about}, not "
                f"{dimensions} by {header['about']}; use another folder"
            )
        return index

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def rows(self) -> int:
        """Vectors, those of removed videos included."""
        return self._vectors.count

    def vectors(self, video: str) -> np.ndarray:
        """The vectors [windows d] of a video.

        Raises KeyError where there is no such video.
        """
        entry = self.entries[video]
        return self._vectors.all[entry.first : entry.first + entry.count]

    def add(self, video: str, embedding: Embedding, label: str = "") -> None:
        """Adds a video, in the place of one of the same name; on the disk when it returns."""
        vectors = np.ascontiguousarray(embedding.vectors, np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.dimensions or not len(vectors):
            raise ValueError(
                f"{video} has vectors of shape {vectors.shape}; the index holds rows of "
                f"{self.dimensions} numbers"
            )
        if not np.isfinite(vectors).all():
            raise ValueError(f"{video} has vectors that are not finite; the model is at fault")
        content = vectors.tobytes()
        with self._writing():
            first = self.rows
            with (self.path / "vectors.f32").open("r+b" if first else "wb") as file:
                file.seek(4 * self.dimensions * first)
                file.truncate()
                _write_through(file, content)
            self._append(
                {
                    "video": video,
                    "first": first,
                    "times": embedding.times.tolist(),
                    "label": label,
                    "crc32": zlib.crc32(content),
                }
            )
            self._vectors.add(vectors)

    def remove(self, video: str) -> None:
        """Removes a video; its vectors stay in the file and are never found again.

        Raises KeyError where there is no such video.
        """
        with self._writing():
            if video not in self.entries:
                raise KeyError(video)
            self._append({"remove": video})

    def search(
        self, queries: np.ndarray, top: int = 10, *, without: Sequence[str] = ()
    ) -> list[list[Hit]]:
        """For each query [q d], the `top` videos most like it by their best windows, best first.

        Args:
          queries: vectors of length 1.
          top: videos for each.
          without: videos that are not wanted.
        """
        hidden = self._owner.all < 0
        for video in without:
            if video in self.entries:
                entry = self.entries[video]
                hidden[entry.first : entry.first + entry.count] = True
        vectors, rows = self._vectors.all, np.atleast_2d(queries).astype(np.float32)
        if vectors.size <= _FEW_NUMBERS or len(rows) > _FEW_QUERIES:
            return [self._best(found, top) for found in nearest.rankings(vectors, rows, hidden)]
        self._codes.follow(vectors)
        return [self._best(self._codes.ranking(vectors, row, hidden), top) for row in rows]

    def _best(self, ranking: nearest.Ranking, top: int) -> list[Hit]:
        """One hit for each of the best videos, from the ranking of all rows."""
        found: dict[int, Hit] = {}
        count = min(4 * top, self.rows)
        while True:
            for row, score in zip(*ranking.best(count), strict=True):
                owner = int(self._owner.all[row])
                if np.isfinite(score) and owner not in found and len(found) < top:
                    entry = self.entries[self._names[owner]]
                    start, end = entry.times[row - entry.first]
                    found[owner] = Hit(entry.video, start, end, float(score), entry.label)
            if len(found) == min(top, len(self.entries)) or count == self.rows:
                return list(found.values())
            # Several of the best rows were of the same video.
            count = min(4 * count, self.rows)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """The right to write, after what other processes wrote is known."""
        with cache.lock(self.path / "lock", lambda: None):
            self._load()
            yield

    def _append(self, line: Mapping[str, Any]) -> None:
        content = (json.dumps(line, ensure_ascii=False) + "\n").encode()
        path = self.path / "entries.jsonl"
        with path.open("r+b" if path.exists() else "wb") as file:
            file.seek(self._size)
            file.truncate()
            _write_through(file, content)
        self._take(line)
        self._size += len(content)

    def _take(self, line: Mapping[str, Any]) -> None:
        """What a line of the list of entries says."""
        gone = self.entries.pop(line.get("remove", line.get("video")), None)
        if gone is not None:
            self._owner.all[gone.first : gone.first + gone.count] = -1
        if "video" in line:
            times = tuple((float(a), float(b)) for a, b in line["times"])
            entry = Entry(line["video"], line["first"], len(times), times, line["label"])
            self.entries[entry.video] = entry
            self._names.append(entry.video)
            self._owner.add(np.full(entry.count, len(self._names) - 1))

    def _load(self) -> None:
        """Reads what was added since, up to the first line that was not finished."""
        lines = list(self._lines())
        self._read_rows([line for line, _ in lines if "video" in line])
        for line, size in lines:
            self._take(line)
            self._size += size

    def _lines(self) -> Iterator[tuple[dict[str, Any], int]]:
        path = self.path / "entries.jsonl"
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._size)
            content = file.read()
        for number, text in enumerate(content.splitlines(keepends=True)):
            if not text.endswith(b"\n"):
                return  # The process that wrote it was killed.
            try:
                yield json.loads(text), len(text)
            except ValueError as error:
                raise IndexDamage(
                    f"{path}: line {number + 1} is not what was written ({error}); make the index "
                    "again from its videos"
                ) from error

    def _read_rows(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """The vectors of new entries, in one piece."""
        if not lines:
            return
        path, width = self.path / "vectors.f32", 4 * self.dimensions
        count = sum(len(line["times"]) for line in lines)
        content = b""
        if path.exists():
            with path.open("rb") as file:
                file.seek(width * self.rows)
                content = file.read(width * count)
        start = 0
        for line in lines:
            end = start + width * len(line["times"])
            here = line["first"] == self.rows + start // width
            if not here or zlib.crc32(content[start:end]) != line["crc32"]:
                raise IndexDamage(
                    f"{path}: the vectors of {line['video']!r} are not what was written; make the "
                    "index again from its videos"
                )
            start = end
        self._vectors.add(np.frombuffer(content, np.float32).reshape(count, self.dimensions))


def _write_through(file: BinaryIO, content: bytes) -> None:
    """Writes to the disk, not only to the operating system."""
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
