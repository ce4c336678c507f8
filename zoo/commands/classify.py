"""python -m zoo classify INPUT...: what is seen in videos."""

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from zoo.commands import tasks

DEFAULT = "x3d_s.k400"
COLUMNS = ("video", "window", "start", "end", "rank", "class", "probability")


def add_commands(commands: Any) -> None:
    """Adds it to a parser."""
    command = commands.add_parser("classify", help="the most probable classes of videos")
    tasks.add_inputs(command)
    command.add_argument(
        "--model", default=DEFAULT, help=f"trained weights that list shows (default: {DEFAULT})"
    )
    command.add_argument("--top", type=int, default=5, help="classes to name")
    command.add_argument("--crops", type=int, default=1, choices=(1, 3), help="places in a frame")
    command.add_argument(
        "--seconds", type=float, default=2.0, help="a window's, of models without a frame rate"
    )
    command.add_argument("--every", type=float, help="seconds from window to window")
    command.add_argument("--batch", type=int, default=8, help="windows of one call of the model")
    command.set_defaults(run=_classify)


def _classify(chosen: argparse.Namespace) -> int:
    from zoo import registry

    registry.require_name("weights", chosen.model, registry.list_weights())
    names = ("model", "top", "crops", "seconds", "every")
    settings = {"classify": {name: getattr(chosen, name) for name in names}}
    report = tasks.Report(chosen, COLUMNS, rows, lines)

    def make() -> list[Any]:
        from zoo.tasks.classify import Classify
        from zoo.weights.pretrained import load_pretrained

        options = {name: getattr(chosen, name) for name in (*names[1:], "batch")}
        return [Classify(load_pretrained(chosen.model), **options)]

    return tasks.run(chosen, make, settings, report)


def rows(record: Mapping[str, Any]) -> Iterator[tasks.Row]:
    """The table's rows of one video: of the whole (window empty), then of each window."""
    result = record["classify"]
    spans = [(None, 0.0, record["duration"], result["top"])]
    spans += [(k, w["start"], w["end"], w["top"]) for k, w in enumerate(result["windows"])]
    for number, start, end, top in spans:
        for rank, guess in enumerate(top, start=1):
            yield record["video"], number, start, end, rank, guess["name"], guess["probability"]


def lines(record: Mapping[str, Any]) -> Iterator[str]:
    """What a person reads of one video."""
    result = record["classify"]
    count = len(result["windows"])
    windows = f"{count} window{'' if count == 1 else 's'}"
    yield f"{record['video']}: {record['duration']:.1f} s, {windows}"
    for guess in result["top"]:
        yield f"  {100 * guess['probability']:5.1f} %  {guess['name']}"
