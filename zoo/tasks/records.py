"""Results as other programs read them: JSON, a file for each video, resumable; rows for tables."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from zoo.tasks.engine import Outcome
from zoo.video.errors import VideoError
from zoo.video.files import Found

_DIGITS = 6


def to_json(key: str, outcome: Outcome) -> dict[str, Any]:
    """An outcome as plain values, floats rounded to the sixth decimal.

    "video" is the key; "error" is there where something was wrong, and the tasks' results are
    under the names of the tasks where there are any.
    """
    record: dict[str, Any] = {"video": key}
    if outcome.error is not None:
        record["error"] = error(outcome.error)
    if outcome.results:
        record |= {"frames": outcome.frames, "duration": outcome.duration}
        record |= {name: _plain(result) for name, result in outcome.results.items()}
    return _rounded(record)


def error(error: VideoError) -> dict[str, str]:
    """A video's error as plain values."""
    return {"type": type(error).__name__, "reason": error.reason, "advice": error.advice}


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # pyright: ignore[reportArgumentType]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value


class Folder:
    """A folder with a JSON file for each video that is done: what a second run need not do again.

    A result counts as done when it was made with the same settings from a file of the same size
    and time of change. A reader never sees half of a file.
    """

    def __init__(self, path: str | os.PathLike, settings: Mapping[str, Any]) -> None:
        """Makes the folder; `settings` are plain values that the results depend on."""
        self.path = pathlib.Path(path)
        self._settings = json.loads(json.dumps(settings))
        self.path.mkdir(parents=True, exist_ok=True)

    def file(self, key: str) -> pathlib.Path:
        """Where the results of a video are."""
        return self.path / f"{key}.json"

    def done(self, video: Found) -> dict[str, Any] | None:
        """The results of an earlier run, or None."""
        try:
            record = json.loads(self.file(video.key).read_text("utf-8"))
            same = record["source"] == self._source(video.path)
            if not same or record.pop("settings") != self._settings:
                return None
            del record["source"]
            return record
        except (OSError, ValueError, KeyError, TypeError):
            return None  # There is none that can be used: the video is done again.

    def write(self, video: Found, record: Mapping[str, Any]) -> None:
        """Keeps the results of a video."""
        whole = {**record, "source": self._source(video.path), "settings": self._settings}
        write_text(self.file(video.key), json.dumps(whole, ensure_ascii=False, indent=1) + "\n")

    def forget(self, video: Found) -> None:
        """Removes results that are no longer true."""
        self.file(video.key).unlink(missing_ok=True)

    def _source(self, path: pathlib.Path) -> dict[str, int]:
        status = path.stat()
        return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file in one step: beside its final name, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
