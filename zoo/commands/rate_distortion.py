"""python -m zoo rd IN...: rate and quality of the learned codec beside those of others."""

import argparse
import dataclasses
import json
import pathlib
import sys
from typing import Any

_AXES = {
    "psnr_y": "PSNR of luma, dB",
    "psnr_yuv": "PSNR, Y:U:V 6:1:1, dB",
    "ms_ssim": "MS-SSIM of luma",
    "vmaf": "VMAF",
}


def add_command(commands: Any) -> None:
    """Adds it to a parser."""
    from zoo.codec import curves

    command = commands.add_parser(
        "rd",
        help="rate and quality beside x264, x265 and SVT-AV1",
        description="Finished points are kept in OUTPUT/points: a run that was ended goes on.",
    )
    command.add_argument("videos", type=pathlib.Path, nargs="+")
    command.add_argument("--output", type=pathlib.Path, default=pathlib.Path("rd"), help="folder")
    command.add_argument("--frames", type=int, help="only so many of each video")
    command.add_argument("--steps", type=int, default=0, help="of fitting each group's network")
    command.add_argument(
        "--codecs", nargs="+", choices=curves.CODECS, default=curves.CODECS, help="only these"
    )
    command.add_argument(
        "--qualities", nargs="+", type=float, default=curves.QUALITIES, help="of the learned codec"
    )
    command.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> None:
    from zoo.codec import chart, curves

    chosen.output.mkdir(parents=True, exist_ok=True)
    every: dict[str, dict[str, Any]] = {}
    for video in chosen.videos:
        try:
            bench = curves.Bench(
                video,
                chosen.output / "points",
                frames=chosen.frames,
                steps=chosen.steps,
                report=lambda line: print(line, flush=True),
            )
        except OSError as error:
            raise ValueError(f"{video}: {error.strerror}") from error
        found = bench.curves(chosen.codecs, chosen.qualities)
        every[video.name] = compared = curves.compared(found)
        for name, metrics in compared.items():
            for metric, entry in metrics.items():
                text = entry.get("reason", "")
                if entry["bd_rate"] is not None:
                    low, high = entry["interval"]
                    text = f"{entry['bd_rate']:+.1f} % over {low:.4g} to {high:.4g}"
                print(f"{video.name}: BD-rate of {name}, {metric}: {text}")
        points = {name: [dataclasses.asdict(p) for p in curve] for name, curve in found.items()}
        count = len(bench.pictures.ticks)
        record = {"video": video.name, "frames": count, "curves": points, "compared": compared}
        (chosen.output / f"{video.stem}.json").write_text(json.dumps(record, indent=2), "utf-8")
        height, width = bench.pictures.y.shape[1:]
        title = f"{video.name}, {width}x{height}, {count} frames"
        drawn = chart.picture(found, _AXES, title)
        (chosen.output / f"{video.stem}.svg").write_text(drawn, "utf-8")
        print(f"{video.name}: {chosen.output / video.stem}.json and .svg", file=sys.stderr)
    means = curves.means(every)
    for name, metrics in means.items():
        for metric, entry in metrics.items():
            if entry["bd_rate"] is not None:
                value, part = entry["bd_rate"], f"{entry['videos']} of {entry['of']} videos"
                print(f"mean BD-rate of {name}, {metric}: {value:+.1f} % ({part})")
    summary = json.dumps({"means": means, "videos": every}, indent=2)
    (chosen.output / "summary.json").write_text(summary, "utf-8")
