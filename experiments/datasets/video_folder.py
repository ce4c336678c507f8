"""The user's own videos as a dataset: folders named after classes, or a CSV file.

Layouts of a folder:

* `ROOT/{train,val,test}/CLASS/*`: the splits are kept. Where there is no `val`, it is divided from
  `train`. Where there is a `val` but no `test`, `test` is `val` under a second name: dividing
  `train` could put clips of one recording on both sides, which a folder made by split may have
  been built to avoid.
* `ROOT/CLASS/*`: divided at random, stratified by class. Files with the same content stay
  together.

A CSV file has rows `path,label[,start,end][,split]`, with or without a header that names its
columns; start and end are seconds, paths are relative to the CSV file. Rows of one video stay
together where splits are made.

Sub-folders of classes belong to them. Hidden files and files that are not videos by their
extension are ignored. The originals are only read.
"""

import csv
import dataclasses
import functools
import hashlib
import os
import pathlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.datasets.plan import Contents, Item, Plan, Rejected
from experiments.datasets.records import DataError, Record
from experiments.datasets.shrinking import Shrinking, shrink
from experiments.datasets.splits import SPLIT_NAMES, SPLITS, Splitting, divide, recording
from zoo.video.files import EXTENSIONS


@dataclass(frozen=True)
class Source:
    """A video file, or a part of one, with its label.

    Attributes:
        path: the file.
        name: path relative to the root, for people.
        label: name of the class.
        split: train, val, test, or empty where the data does not say.
        start, end: part of the video, in seconds, or None.
    """

    path: pathlib.Path
    name: str
    label: str
    split: str = ""
    start: float | None = None
    end: float | None = None


def video_folder_plan(root: str, shrinking: Shrinking, splitting: Splitting) -> Plan:
    """The videos of a folder or a CSV file, shrunk.

    Raises:
        DataError: the folder or file cannot be used as it is.
    """
    if not root:
        raise DataError(
            "data.root is empty: set it to a folder of class folders, or to a CSV of path,label."
        )
    path = pathlib.Path(root).expanduser().absolute()
    if path.is_dir():
        sources, notes = list_folder(path)
    elif path.is_file():
        sources, notes = list_csv(path), []
    else:
        raise DataError(f"There is no folder or file {path}: set data.root to one.")
    _check(path, sources)
    recipe = {
        "root": _printable(path),
        "sources": [
            (s.name, s.label, s.split, s.start, s.end, *_size_and_time(s.path)) for s in sources
        ],
        "shrinking": dataclasses.asdict(shrinking),
        "splitting": dataclasses.asdict(splitting),
    }
    name = f"video_folder-{path.stem if path.is_file() else path.name}"
    return Plan(name, recipe, functools.partial(_contents, sources, notes, shrinking, splitting))


def list_folder(root: pathlib.Path) -> tuple[list[Source], list[str]]:
    """The videos of `ROOT/{train,val,test}/CLASS/*` or `ROOT/CLASS/*`, and notes for the user."""
    folders = _folders(root)
    given = {SPLIT_NAMES[f.name.lower()]: f for f in folders if f.name.lower() in SPLIT_NAMES}
    named = {split: given[split] for split in SPLITS if split in given}
    if not any(_folders(folder) for folder in named.values()):
        named = {}  # a class may be called "train"
    if not folders:
        raise DataError(
            f"{root} has no folders: put the videos of each class into a folder of its name."
        )
    if named and "train" not in named:
        raise DataError(f"{root} has {' and '.join(named)} but no train: add {root / 'train'}.")
    sources: list[Source] = []
    ignored: list[str] = []
    for split, folder in named.items() if named else [("", root)]:
        for class_folder in _folders(folder):
            label = unicodedata.normalize("NFC", _printable(class_folder.name))
            found = 0
            for file in _files(class_folder, set()):
                name = _printable(file.relative_to(root))
                if file.suffix.lower()[1:] in EXTENSIONS:
                    sources.append(Source(file, name, label, split))
                    found += 1
                else:
                    ignored.append(name)
            if not found and split in ("", "train"):
                raise DataError(
                    f"{class_folder} holds no video: add videos of the class, or remove the folder."
                )
    notes = []
    if ignored:
        notes.append(
            f"Ignored {len(ignored)} files that are not videos by their extension: "
            f"{', '.join(ignored[:3])}{', ...' if len(ignored) > 3 else ''}."
        )
    if others := [f.name for f in folders if named and f not in named.values()]:
        notes.append(f"Ignored folders beside {' and '.join(named)}: {', '.join(others)}.")
    return sorted(sources, key=lambda source: source.name), notes


def list_csv(path: pathlib.Path) -> list[Source]:
    """The rows `path,label[,start,end][,split]` of a CSV file, in their order."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [(n, [f.strip() for f in row]) for n, row in enumerate(csv.reader(file), 1)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8 ({error}): save it as one.") from error
    rows = [(number, row) for number, row in rows if any(row)]
    columns: list[str] | None = None
    if rows and {"path", "label"} <= {field.lower() for field in rows[0][1]}:
        columns = [field.lower() for field in rows[0][1]]
        rows = rows[1:]
    if not rows:
        raise DataError(f"{path} has no rows: write path,label for each video.")
    return [_csv_source(path, number, row, columns) for number, row in rows]


def _csv_source(
    path: pathlib.Path, number: int, row: list[str], columns: list[str] | None
) -> Source:
    where = f"{path}, line {number}"
    if columns is None:
        columns = ["path", "label", "start", "end", "split"]
        if len(row) == 3 and row[2].lower() in SPLIT_NAMES:
            columns = ["path", "label", "split"]
    values = dict(zip(columns, row, strict=False))
    if not values.get("path") or not values.get("label"):
        raise DataError(f"{where}: {','.join(row)!r} has no path or no label; write path,label.")
    split = values.get("split", "").lower()
    if split not in ("", *SPLIT_NAMES):
        raise DataError(f"{where}: the split is {split!r}; write train, val or test.")
    times: list[float | None] = []
    for column in ("start", "end"):
        try:
            times.append(float(values[column]) if values.get(column) else None)
        except ValueError:
            raise DataError(
                f"{where}: {column} is {values[column]!r}; write seconds, such as 1.5."
            ) from None
    start, end = times
    if not 0 <= (start or 0.0) < (float("inf") if end is None else end):
        raise DataError(f"{where}: start {start} and end {end} are no part of a video.")
    return Source(
        path.parent / pathlib.Path(values["path"]).expanduser(),
        _printable(values["path"]),
        unicodedata.normalize("NFC", values["label"]),
        SPLIT_NAMES[split or "train"] if split else "",
        start,
        end,
    )


def _contents(
    sources: Sequence[Source], notes: Sequence[str], shrinking: Shrinking, splitting: Splitting
) -> Contents:
    """Decides the splits and finds duplicates, which takes reading files of equal size."""
    content = _contents_of_files(sorted({source.path for source in sources}))
    splits, aliases, made = divide(
        sources, lambda source: recording(source.name) or content[source.path], splitting
    )
    duplicates = _duplicates(splits, content)
    notes = [*notes, *made]
    if duplicates:
        notes.append(
            f"{len(duplicates)} videos appear under two labels or in two splits, such as "
            f"{' = '.join(duplicates[0])}; all are listed in quarantine.json of the cache."
        )
    classes = _classes(sources)
    items = {
        split: [
            Item(source.name, classes.index(source.label), (source.path, source.start, source.end))
            for source in of_split
        ]
        for split, of_split in splits.items()
    }
    encode = functools.partial(_shrink_all, shrinking=shrinking)
    return Contents(
        classes, items, encode, notes=tuple(notes), duplicates=duplicates, aliases=aliases
    )


def _shrink_all(items: Sequence[Item], shrinking: Shrinking) -> list[Record | Rejected]:
    found = []
    for item in items:
        path, start, end = item.job
        found.append(shrink(item, path, shrinking, start, end))
    return found


def _check(root: pathlib.Path, sources: Sequence[Source]) -> None:
    if not sources:
        raise DataError(
            f"{root} holds no video (known extensions: {' '.join(sorted(EXTENSIONS))}): add some."
        )
    classes = _classes(sources)
    if len(classes) == 1:
        raise DataError(
            f"{root} has only the class {classes[0]!r}: a classifier needs two or more; add videos "
            "of another class."
        )
    trained = Counter(source.label for source in sources if source.split in ("", "train"))
    if missing := [label for label in classes if not trained[label]]:
        raise DataError(
            f"{root} has no training videos of {', '.join(map(repr, missing))}: add some, or "
            "remove the class from the other splits."
        )


def _classes(sources: Sequence[Source]) -> tuple[str, ...]:
    """Names of the classes: numbers by value, anything else by the alphabet."""
    names = {source.label for source in sources}
    by_value = all(name.isascii() and name.isdigit() for name in names)
    return tuple(sorted(names, key=(lambda name: (int(name), name)) if by_value else None))


def _contents_of_files(paths: Sequence[pathlib.Path]) -> dict[pathlib.Path, Hashable]:
    """A value for each file that two files share only if they have the same bytes.

    Only files whose sizes are equal are read.
    """
    by_size: dict[int, list[pathlib.Path]] = defaultdict(list)
    for path in paths:
        by_size[_size_and_time(path)[0]].append(path)
    content: dict[pathlib.Path, Hashable] = {}
    for size, same in by_size.items():
        for path in same:
            content[path] = path
            if len(same) > 1 and size > 0:
                try:
                    with path.open("rb") as file:
                        content[path] = hashlib.file_digest(file, "blake2b").hexdigest()
                except OSError:  # reported when it is shrunk
                    continue
    return content


def _duplicates(
    splits: dict[str, list[Source]], content: dict[pathlib.Path, Hashable]
) -> tuple[tuple[str, ...], ...]:
    """Names of videos with the same content under two labels, or in two splits."""
    labels: dict[Hashable, dict[str, str]] = defaultdict(dict)  # of one part of one content
    places: dict[Hashable, dict[str, str]] = defaultdict(dict)
    for split, sources in splits.items():
        for source in sources:
            same = content[source.path]
            labels[(same, source.start, source.end)].setdefault(source.label, source.name)
            places[same].setdefault(split, source.name)
    groups = [tuple(names.values()) for names in (*labels.values(), *places.values())]
    return tuple(dict.fromkeys(group for group in groups if len(group) > 1))


def _folders(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))


def _files(folder: pathlib.Path, seen: set[Any]) -> Iterator[pathlib.Path]:
    """Files in a folder and below, links followed, each folder once."""
    status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _files(entry, seen)
        else:
            yield entry


def _size_and_time(path: pathlib.Path) -> tuple[int, int]:
    """Bytes and time of the last change, or -1 where there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _printable(name: str | os.PathLike) -> str:
    """A name as text that can be stored, whatever bytes it has on the disk."""
    return os.fspath(name).encode("utf-8", "backslashreplace").decode()
