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
    smaller = commands.add_parser(
        "compress", help="a video to a .zvc file of the learned codec, or to an MP4 with a filter"
    )
    smaller.add_argument("video", type=pathlib.Path)
    smaller.add_argument("output", type=pathlib.Path, help="file to write")
    smaller.add_argument(
        "--mode",
        choices=("learned", "filter"),
        default="learned",
        help="filter: an MP4 by x264 that plays everywhere, and a small filter where it pays",
    )
    target = smaller.add_mutually_exclusive_group()
    target.add_argument("--quality", type=float, default=60, help="0 to 100 (default: 60)")
    target.add_argument("--bitrate", type=float, help="bits per second to stay below")
    smaller.add_argument(
        "--time-budget", type=float, help="seconds for all of it: what is left over fits weights"
    )
    smaller.add_argument(
        "--steps",
        type=int,
        help="of fitting each group's network: none, or 60 with --time-budget; it seldom pays",
    )
    smaller.add_argument("--group", type=int, default=100, help="most frames of a group")
    smaller.set_defaults(run=_compress)
    back = commands.add_parser(
        "decompress",
        help="a .zvc file, or an MP4 with a filter, to a lossless .mkv or .mp4",
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
    from zoo.codec.errors import CodecWarning
    from zoo.codec.passes import Progress

    def report(progress: Progress) -> None:
        text = f"\r{progress.frames} of {progress.of} frames"
        if progress.rate is not None and progress.psnr is not None:
            text += f", best so far {progress.rate / 1000:.1f} kbit/s at {progress.psnr:.2f} dB"
        text += f", {progress.seconds:.0f} s "
        print(text, end="", file=sys.stderr, flush=True)

    if chosen.mode == "filter":
        _filtered(chosen)
        return
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", CodecWarning)
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
    _print_warnings(caught)
    size = f"{result.bytes:,} bytes, {result.frames} frames, {result.seconds:.0f} s"
    print(f"{chosen.output}: {size}")


def _filtered(chosen: argparse.Namespace) -> None:
    from zoo.codec import hybrid

    if chosen.bitrate is not None or chosen.time_budget is not None:
        raise ValueError("--bitrate and --time-budget are of --mode learned; give --quality")
    if chosen.output.suffix.lower() != ".mp4":
        raise ValueError(f"{chosen.output} is no .mp4, which --mode filter writes; name it so")
    try:
        result = hybrid.compress(chosen.video, chosen.output, quality=chosen.quality)
    except OSError as error:
        raise ValueError(f"{error.filename}: {error.strerror}") from error
    text = "no filter: none pays for its bytes"
    if result.filter_bytes:
        text = f"filter of {result.filter_bytes} bytes gains {result.gain:.2f} dB, for which x264 "
        text += f"needs {result.saved:,} bytes"
    size = f"{result.bytes:,} bytes, {result.frames} frames, {result.seconds:.0f} s"
    print(f"{chosen.output}: {size}; {text}")


def _print_warnings(caught: list[warnings.WarningMessage]) -> None:
    for warning in caught:
        print(f"python -m zoo: {warning.message}", file=sys.stderr)


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
    _print_warnings(caught)
    print(f"{chosen.output}: {len(decoded.pictures.ticks)} frames")
    return 3 if decoded.problems else 0


def describe(path: pathlib.Path) -> None:
    """Prints what `info` says of a compressed file."""
    from zoo import codec

    try:
        print(json.dumps(codec.info(path), indent=2))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
