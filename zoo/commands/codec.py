"""python -m zoo compress IN OUT.zvc and decompress OUT.zvc BACK.mp4."""

import argparse
import json
import pathlib
import sys
import warnings
from typing import Any

from zoo.commands import rate_distortion


def add_commands(commands: Any) -> None:
    """Adds them to a parser."""
    smaller = commands.add_parser("compress", help="a video to a .zvc file of the learned codec")
    smaller.add_argument("video", type=pathlib.Path)
    smaller.add_argument("output", type=pathlib.Path, help="file to write")
    target = smaller.add_mutually_exclusive_group()
    target.add_argument("--quality", type=float, default=60, help="0 to 100 (default: 60)")
    target.add_argument("--bitrate", type=float, help="bits per second to stay below")
    smaller.add_argument(
        "--time-budget", type=float, help="seconds after which no more weights are fitted"
    )
    smaller.add_argument("--steps", type=int, default=60, help="of fitting each network")
    smaller.add_argument("--group", type=int, default=100, help="most frames of a group")
    smaller.set_defaults(run=_compress)
    back = commands.add_parser(
        "decompress",
        help="a .zvc file to a lossless .mkv or .mp4",
        description="Exit status 3: something was missing, and the rest was written.",
    )
    back.add_argument("file", type=pathlib.Path)
    back.add_argument("output", type=pathlib.Path, help="file to write")
    back.add_argument("--start", type=float, default=0.0, help="seconds")
    back.add_argument("--end", type=float, help="seconds")
    back.add_argument(
        "--on-error",
        choices=("raise", "skip", "freeze"),
        default="raise",
        help="of a damaged group; a file cut short gives its whole groups in any case",
    )
    back.add_argument("--max-bytes", type=int, default=2**31, help="most bytes of frames")
    back.set_defaults(run=_decompress)
    rate_distortion.add_command(commands)


def _compress(chosen: argparse.Namespace) -> None:
    from zoo import codec
    from zoo.codec.encoding import Progress

    def report(progress: Progress) -> None:
        share = f"{progress.frames} of {progress.of} frames"
        quality = "" if progress.psnr is None else f" at {progress.psnr:.2f} dB"
        size = f"{progress.bytes:,} bytes of whole groups{quality}"
        text = f"\r{share}, {size}, {progress.seconds:.0f} s"
        print(text, end="", file=sys.stderr, flush=True)

    try:
        result = codec.compress(
            chosen.video,
            chosen.output,
            quality=chosen.quality,
            bitrate=chosen.bitrate,
            time_budget=chosen.time_budget,
            steps=chosen.steps,
            group_frames=chosen.group,
            report=report,
        )
    except OSError as error:
        raise ValueError(f"{error.filename}: {error.strerror}") from error
    finally:
        print(file=sys.stderr)
    print(f"{chosen.output}: {result.bytes:,} bytes, {result.frames} frames")


def _decompress(chosen: argparse.Namespace) -> int:
    from zoo import codec

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            decoded = codec.decompress(
                chosen.file,
                chosen.output,
                start=chosen.start,
                end=chosen.end,
                on_error=chosen.on_error,
                max_bytes=chosen.max_bytes,
            )
    except OSError as error:
        raise ValueError(f"{error.filename}: {error.strerror}") from error
    for warning in caught:
        print(f"python -m zoo: {warning.message}", file=sys.stderr)
    print(f"{chosen.output}: {len(decoded.pictures.ticks)} frames")
    return 3 if decoded.problems else 0


def describe(path: pathlib.Path) -> None:
    """Prints what `info` says of a compressed file."""
    from zoo import codec

    try:
        print(json.dumps(codec.info(path), indent=2))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
