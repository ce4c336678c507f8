"""python -m zoo analyze INPUT...: shots, key frames, motion and actions of videos."""

import argparse
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from zoo.commands import tasks

COLUMNS = ("video", "shot", "start", "end", "first_frame", "last_frame", "key_time", "key_frame",
           "motion", "luma", "pan", "tilt", "zoom", "flow", "ends_with")  # fmt: skip
FORMATS = ("csv", "edl", "otio", "vtt", "html")


def add_commands(commands: Any) -> None:
    """Adds it to a parser."""
    command = commands.add_parser("analyze", help="shots, key frames, motion and actions of videos")
    tasks.add_inputs(command)
    command.add_argument(
        "--formats", nargs="+", choices=FORMATS, default=[],
        help="with --out, also write for each video: a scene list (csv), an edit decision list "
        "(edl), an OpenTimelineIO timeline (otio), chapters (vtt), a page to look at (html)",
    )  # fmt: skip
    command.add_argument(
        "--complexity", action="store_true",
        help="also spatial and temporal information (ITU-T P.910), at the video's own size",
    )  # fmt: skip
    command.add_argument(
        "--actions", metavar="MODEL",
        help="also when each class of this model is seen, and change points of its classes",
    )  # fmt: skip
    command.add_argument("--every", type=float, help="with --actions: seconds between windows")
    command.add_argument("--high", type=float, default=0.5, help="probability that an action has")
    command.add_argument("--low", type=float, default=0.3, help="and above which it goes on")
    command.add_argument("--shortest", type=float, default=0.0, help="seconds of an action")
    command.set_defaults(run=_analyze)


def _analyze(chosen: argparse.Namespace) -> int:
    from zoo.tasks.shots import model

    if chosen.formats and chosen.out is None:
        raise ValueError("--formats writes files; say with --out DIR where they go")
    settings: dict[str, Any] = {"analyze": {"weights": model.SHA256}}
    if chosen.complexity:
        settings["complexity"] = {}
    if chosen.actions is not None:
        from zoo.weights.pretrained import require_weights

        require_weights(chosen.actions)
        names = ("actions", "every", "high", "low", "shortest")
        settings["actions"] = {name: getattr(chosen, name) for name in names}
    report = tasks.Report(chosen, COLUMNS, rows, lines)

    def make() -> list[Any]:
        from kernels import environment
        from zoo.tasks.analyze import Analyze

        environment.return_large_blocks()  # A long film has to need no more than a short one.
        made: list[Any] = [Analyze()]
        if chosen.complexity:
            from zoo.tasks.complexity import MeasureComplexity

            made.append(MeasureComplexity())
        if chosen.actions is not None:
            from zoo.tasks.actions import FindActions, Rule
            from zoo.weights.pretrained import load_pretrained

            rule = Rule(chosen.high, chosen.low, shortest=chosen.shortest)
            weights = load_pretrained(chosen.actions)
            made.append(FindActions(weights, rule=rule, every=chosen.every))
        return made

    def also(video: Any, record: Mapping[str, Any]) -> None:
        from zoo.tasks import editing, page, records
        from zoo.tasks.analyze import Analysis
        from zoo.tasks.complexity import Complexity
        from zoo.video.errors import VideoError

        analysis = Analysis.from_json(record["analyze"])
        detail = Complexity.from_json(record["complexity"]) if chosen.complexity else None
        for name in chosen.formats:
            path = chosen.out / f"{video.key}.{name}"
            if name != "html":
                editing.write(analysis, video.key, path)
                continue
            try:
                records.write_text(path, page.render(analysis, video.key, video.path, detail))
            except VideoError as error:
                print(f"no page: {error}", file=sys.stderr)

    return tasks.run(chosen, make, settings, report, also)


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
    from zoo.tasks.analyze import camera

    result = record["analyze"]
    rate = f"{result['rate']} frames per second{', variable' if result['variable_rate'] else ''}"
    count = len(result["shots"])
    shots = f"{count} shot{'' if count == 1 else 's'}"
    yield f"{record['video']}: {result['duration']:.2f} s, {rate}, {shots}"
    for _, number, start, end, _, _, key, *_, pan, tilt, zoom, _, ending in rows(record):
        yield (
            f"  {number:4}  {start:9.3f} - {end:9.3f} s  key frame {key:9.3f} s  {ending:7}"
            f"  {camera(pan, tilt, zoom)}"
        ).rstrip()
    yield f"  in short: {', '.join(f'shot {number}' for number in result['summary'])}"
    if "complexity" in record:
        values = record["complexity"]
        yield f"  spatial information {values['si']:.1f}, temporal {values['ti']:.1f}"
    if "actions" in record:
        for segment in record["actions"]["segments"]:
            yield (
                f"  {segment['start']:9.3f} - {segment['end']:9.3f} s  "
                f"{100 * segment['score']:5.1f} %  {segment['name']}"
            )
        for time in record["actions"]["changes"]:
            yield f"  {time:9.3f} s  change"
