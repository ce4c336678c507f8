"""Reading a run folder: whatever is there, checked, and a note for what is not usable.

Everything read here is untrusted: names of classes and files come from other people's data, and
a file may have been cut off anywhere.
"""

import json
import pathlib
from dataclasses import dataclass, field
from typing import Any

CLIP_BYTES = 8 * 2**20
"""Largest example clip that goes into a report."""
REPORT_BYTES = 48 * 2**20
"""Largest sum of the example clips; a page of more than this takes long to open."""


LARGEST = 1e15
"""Numbers beyond this measure nothing; with them left out, sums and axes cannot overflow."""


@dataclass(frozen=True)
class Example:
    """A tested clip. `video` is the MP4 file's content, or None with the reason in `missing`."""

    source: str
    label: str
    prediction: str
    probabilities: list[tuple[str, float]]
    video: bytes | None
    missing: str = ""


@dataclass(frozen=True)
class Run:
    """What is known of a run.

    lines: of metrics.jsonl, in the order of the steps, each with a whole `step`.
    metrics: of metrics.json; empty for a run that has not finished.
    notes: sentences about what could not be used.
    """

    name: str
    config: dict[str, Any]
    lines: list[dict[str, Any]]
    metrics: dict[str, Any]
    examples: list[Example]
    notes: list[str] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        return bool(self.metrics)

    @property
    def epochs(self) -> int:
        """Whole epochs trained so far."""
        return max((line["epoch"] + 1 for line in self.epoch_lines), default=0)

    @property
    def planned_epochs(self) -> int | None:
        """Epochs that the configuration asks for."""
        value = self.config.get("epochs")
        return value if isinstance(value, int) else None

    @property
    def epoch_lines(self) -> list[dict[str, Any]]:
        """The lines that end an epoch; their `epoch` is a whole number from 0."""
        return [
            line
            for line in self.lines
            if ("val/loss" in line or "train/loss" in line)
            and isinstance(line.get("epoch"), int)
            and 0 <= line["epoch"] <= LARGEST
        ]

    @property
    def classes(self) -> list[str]:
        """Names of the classes, empty where they are not known."""
        names = self.metrics.get("classes")
        if not isinstance(names, list):
            rows = self.metrics.get("test/per_class")
            rows = rows if isinstance(rows, list) else []
            names = [row.get("class") for row in rows if isinstance(row, dict)]
        return [str(name) for name in names]

    @property
    def confusion(self) -> list[list[float]]:
        """Rows (truth) of numbers (prediction), one row per class; empty where not known."""
        rows, size = self.metrics.get("test/confusion"), len(self.classes)
        if not isinstance(rows, list) or len(rows) != size:
            return []
        if not all(isinstance(row, list) and len(row) == size for row in rows):
            return []
        cells = [[as_number(cell) for cell in row] for row in rows]
        return [[max(cell or 0.0, 0.0) for cell in row] for row in cells]

    def number(self, name: str) -> float | None:
        """A figure of metrics.json, None where it is missing or not finite."""
        return as_number(self.metrics.get(name))

    def setting(self, name: str) -> Any:
        """A value of the configuration by its name with dots, None where it is missing."""
        value: Any = self.config
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value


def as_number(value: Any) -> float | None:
    """A number as a float; None for anything else, and for what is not finite or absurdly large."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= LARGEST else None  # false for NaN


def read(run_dir: pathlib.Path) -> Run:
    """Reads the files that `experiments.report` lists."""
    notes: list[str] = []
    config = read_json(run_dir / "config.json", dict, notes)
    metrics = read_json(run_dir / "metrics.json", dict, notes)
    return Run(
        name=run_dir.absolute().name,
        config=config,
        lines=_lines(run_dir / "metrics.jsonl", notes),
        metrics=metrics,
        examples=_examples(run_dir / "examples", notes),
        notes=notes,
    )


def read_json(path: pathlib.Path, kind: type, notes: list[str]) -> Any:
    """The value in a JSON file; an empty `kind` where the file is missing or of no use."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return kind()
    except (OSError, ValueError, RecursionError) as error:
        notes.append(f"{path.name} cannot be read ({_reason(error)}).")
        return kind()
    if not isinstance(value, kind):
        notes.append(f"{path.name} does not hold a {'list' if kind is list else 'JSON object'}.")
        return kind()
    return value


def _lines(path: pathlib.Path, notes: list[str]) -> list[dict[str, Any]]:
    """The valid lines of metrics.jsonl, each step once per set of names, in order."""
    try:
        texts = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        notes.append(f"{path.name} cannot be read ({_reason(error)}).")
        return []
    lines: list[dict[str, Any]] = []
    unusable = 0
    # A line without its end was being written when the run was killed: not worth a note.
    for text in texts if not texts[-1] else [*texts[:-1], *_whole(texts[-1])]:
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            line = None
        step = as_number(line.get("step")) if isinstance(line, dict) else None
        if not isinstance(line, dict) or step is None or step < 0:
            unusable += 1
            continue
        # The line of an epoch has the step of the last single step: voided is only what repeats.
        while lines and (
            lines[-1]["step"] > line["step"]
            or (lines[-1]["step"] == line["step"] and lines[-1].keys() & line.keys() - _SHARED)
        ):
            lines.pop()
        lines.append(line)
    if unusable:
        notes.append(f"{unusable} of the lines of {path.name} could not be read.")
    return lines


_SHARED = {"step", "epoch"}


def _whole(text: bytes) -> list[bytes]:
    """The last line of a file without a line end, if it is a whole object all the same."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return []
    return [text]


def _examples(folder: pathlib.Path, notes: list[str]) -> list[Example]:
    """The clips of examples/index.json."""
    examples: list[Example] = []
    budget = REPORT_BYTES
    for entry in read_json(folder / "index.json", list, notes):
        if not isinstance(entry, dict):
            notes.append("examples/index.json has an entry that is not an object.")
            continue
        video, missing = _video(folder, entry.get("file"), budget)
        budget -= len(video or b"")
        guesses = entry.get("probabilities")
        pairs = [
            (str(guess[0]), as_number(guess[1]))
            for guess in (guesses if isinstance(guesses, list) else [])
            if isinstance(guess, list) and len(guess) == 2
        ]
        examples.append(
            Example(
                source=str(entry.get("source", "")),
                label=str(entry.get("label", "")),
                prediction=str(entry.get("prediction", "")),
                probabilities=[(name, share) for name, share in pairs if share is not None],
                video=video,
                missing=missing,
            )
        )
    return examples


def _video(folder: pathlib.Path, name: Any, budget: int) -> tuple[bytes | None, str]:
    """The content of an example clip, or the reason why there is none."""
    # Only files of this folder: a name must not lead the report to any other file of the machine.
    if not isinstance(name, str) or pathlib.PurePath(name).name != name or not name:
        return None, "the file's name is not one of this folder"
    path = folder / name
    try:
        if path.is_symlink():
            return None, "the file is a link"
        if not path.is_file():
            return None, "the file is missing"
        size = path.stat().st_size
        if size > min(CLIP_BYTES, budget):
            return None, f"{size / 2**20:.1f} MB are too large for a report"
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        return None, _reason(error)
    if content[4:8] != b"ftyp":
        return None, "the file is not an MP4 video"
    return content, ""


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
