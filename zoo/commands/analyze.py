"""python -m zoo analyze INPUT...: shots, transitions and key frames of videos."""

import argparse
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from zoo.commands import tasks

COLUMNS = ("video", "shot", "start", "end", "first_frame", "last_frame", "key_time", "key_frame",
           "motion", "luma", "ends_with")  # fmt: skip
FORMATS = ("csv", "edl", "otio", "vtt", "html")


def add_commands(commands: Any) -> None:
    """Adds it to a parser."""
    command = commands.add_parser("analyze", help="shots, transitions and key frames of videos")
    tasks.add_inputs(command)
    command.add_argument(
        "--formats", nargs="+", choices=FORMATS, default=[],
        help="with --out, also write for each video: a scene list (csv), an edit decision list "
        "(edl), an OpenTimelineIO timeline (otio), chapters (vtt), a page to look at (html)",
    )  # fmt: skip
    command.set_defaults(run=_analyze)


def _analyze(chosen: argparse.Namespace) -> int:
    from zoo.tasks.shots import model

    if chosen.formats and chosen.out is None:
        raise ValueError("--formats writes files; say with --out DIR where they go")
    report = tasks.Report(chosen, COLUMNS, rows, lines)

    def make() -> list[Any]:
        from zoo.tasks.analyze import Analyze

        return [Analyze()]

    def also(video: Any, record: Mapping[str, Any]) -> None:
        from zoo.tasks import editing, page, records
        from zoo.tasks.analyze import Analysis
        from zoo.video.errors import VideoError

        for name in chosen.formats:
            analysis = Analysis.from_json(record["analyze"])
            path = chosen.out / f"{video.key}.{name}"
            if name != "html":
                editing.write(analysis, video.key, path)
                continue
            try:
                records.write_text(path, page.render(analysis, video.key, video.path))
            except VideoError as error:
                print(f"no page: {error}", file=sys.stderr)

    return tasks.run(chosen, make, {"analyze": {"weights": model.SHA256}}, report, also)


def rows(record: Mapping[str, Any]) -> Iterator[tasks.Row]:
    """The table's rows of one video: its shots."""
    result = record["analyze"]
    shots = result["shots"]
    for number, shot in enumerate(shots, start=1):
        ending = "end"
        for transition in result["transitions"]:
            if shot["first_frame"] <= transition["first_frame"] <= shot["last_frame"] + 1:
                ending = transition["kind"]
        if number == len(shots):
            ending = "end"
        yield (
            record["video"], number,
            *(shot[name] for name in COLUMNS[2:-1]),
            ending,
        )  # fmt: skip


def lines(record: Mapping[str, Any]) -> Iterator[str]:
    """What a person reads of one video."""
    result = record["analyze"]
    rate = f"{result['rate']} frames per second{', variable' if result['variable_rate'] else ''}"
    count = len(result["shots"])
    shots = f"{count} shot{'' if count == 1 else 's'}"
    yield f"{record['video']}: {result['duration']:.2f} s, {rate}, {shots}"
    for _, number, start, end, _, _, key, *_, ending in rows(record):
        yield f"  {number:4}  {start:9.3f} - {end:9.3f} s  key frame {key:9.3f} s  {ending}"
