"""python -m zoo classify INPUT...: what is seen in videos."""

import argparse
import csv
import dataclasses
import functools
import json
import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from zoo.commands import tasks

DEFAULT = "x3d_s.k400"
COLUMNS = ("video", "window", "start", "end", "rank", "class", "probability")
LIVE_COLUMNS = ("frame", "time", "latency", "rank", "class", "probability")


def add_commands(commands: Any) -> None:
    """Adds it to a parser."""
    command = commands.add_parser("classify", help="the most probable classes of videos")
    tasks.add_inputs(command)
    command.add_argument(
        "--model",
        default=DEFAULT,
        help=f"trained weights that list shows, or a run's folder (default: {DEFAULT})",
    )
    command.add_argument("--top", type=int, default=5, help="classes to name")
    command.add_argument("--crops", type=int, default=1, choices=(1, 3), help="places in a frame")
    command.add_argument(
        "--seconds", type=float, default=2.0, help="a window's, of models without a frame rate"
    )
    command.add_argument("--every", type=float, help="seconds from window to window")
    command.add_argument("--batch", type=int, default=8, help="windows of one call of the model")
    command.add_argument(
        "--cam", action="store_true",
        help="with --out, also a film of each video's surest window and where the model looks",
    )  # fmt: skip
    live = command.add_argument_group("live", "INPUT - reads a video from standard input")
    live.add_argument(
        "--fps", type=float,
        help="frames a second that the model sees, 0 for all (default: those it was trained on)",
    )  # fmt: skip
    live.add_argument(
        "--drop", action="store_true",
        help="drop frames that come while the model is busy, instead of making the source wait",
    )  # fmt: skip
    live.add_argument(
        "--restart", type=float, metavar="SECONDS",
        help="forget all frames this often (models that stream judge all frames since the start)",
    )  # fmt: skip
    command.set_defaults(run=_classify)


def _classify(chosen: argparse.Namespace) -> int:
    from zoo.weights.pretrained import require_weights

    require_weights(chosen.model)
    if "-" in chosen.inputs:
        return _live(chosen)
    if chosen.fps is not None or chosen.restart is not None or chosen.drop:
        raise ValueError("--fps, --restart and --drop are for a video from standard input: -")
    if chosen.cam and chosen.out is None:
        raise ValueError("--cam writes films; say with --out DIR where they go")
    names = ("model", "top", "crops", "seconds", "every")
    settings = {"classify": {name: getattr(chosen, name) for name in names}}
    report = tasks.Report(chosen, COLUMNS, rows, lines)

    def make() -> list[Any]:
        from zoo.tasks.classify import Classify
        from zoo.weights.pretrained import load_pretrained

        options = {name: getattr(chosen, name) for name in (*names[1:], "batch")}
        return [Classify(load_pretrained(chosen.model), **options)]

    @functools.cache
    def cam() -> Any:
        from zoo.tasks.cam import GradCam
        from zoo.weights.pretrained import load_pretrained

        return GradCam(load_pretrained(chosen.model))

    def also(video: Any, record: Mapping[str, Any]) -> None:
        from zoo.tasks.cam import write_film
        from zoo.video.errors import VideoError

        path = chosen.out / f"{video.key}.cam.mp4"
        options = {"seconds": chosen.seconds, "every": chosen.every}
        try:
            write_film(cam(), video.path, record["classify"], path, **options)
        except VideoError as error:
            print(f"no film: {error}", file=sys.stderr)

    if chosen.cam:
        cam()  # That a model has no map to look at is said before anything else is done.
    return tasks.run(chosen, make, settings, report, also if chosen.cam else None)


def _live(chosen: argparse.Namespace) -> int:
    """Classes of a video from standard input, as it comes."""
    from zoo.tasks.live import Live, LiveClassifier
    from zoo.video.errors import VideoError
    from zoo.video.ffmpeg import Pipe
    from zoo.weights.pretrained import load_pretrained

    given = {"--out": chosen.out, "--parquet": chosen.parquet, "--partial": chosen.partial,
             "--every": chosen.every, "--cam": chosen.cam, "other inputs": len(chosen.inputs) > 1,
             "--crops 3": chosen.crops > 1, "--shard": chosen.shard != (0, 1)}  # fmt: skip
    if unfit := [name for name, value in given.items() if value]:
        raise ValueError(f"a video from standard input goes without {', '.join(unfit)}")
    options = {name: getattr(chosen, name) for name in ("fps", "seconds", "restart", "top")}
    classifier = LiveClassifier(load_pretrained(chosen.model), **options)
    classifier.warm_up()
    status, said = 0, -math.inf
    if chosen.csv:
        print(",".join(LIVE_COLUMNS))
    with Live(Pipe(sys.stdin.fileno()), classifier, drop=chosen.drop) as live:
        try:
            for moment in live:
                if chosen.json:
                    print(json.dumps(dataclasses.asdict(moment), ensure_ascii=False))
                elif chosen.csv:
                    table = csv.writer(sys.stdout, lineterminator="\n")
                    for rank, guess in enumerate(moment.top, start=1):
                        start = moment.number, round(moment.time, 6), round(moment.latency, 6)
                        table.writerow((*start, rank, guess.name, guess.probability))
                elif moment.time >= said + 1:
                    said = moment.time
                    seen = ", ".join(f"{100 * g.probability:.1f} % {g.name}" for g in moment.top)
                    print(f"{moment.time:9.2f} s  {seen}")
                sys.stdout.flush()
        except VideoError as error:
            print(f"it ended early: {error}", file=sys.stderr)
            status = 3
        finally:
            median, late = (1000 * live.latencies.quantile(share) for share in (0.5, 0.99))
            print(
                f"{live.latencies.count} frames, {live.dropped} dropped; from decoded to "
                f"classified {median:.1f} ms (median), {late:.1f} ms (99 of 100)",
                file=sys.stderr,
            )
    return status


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
