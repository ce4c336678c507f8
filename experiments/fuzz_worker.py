"""Decodes damaged files and prints a line of JSON for each; `experiments.fuzz_codec` starts it."""

import faulthandler
import json
import pathlib
import resource
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments import fuzz_damage
from zoo import cache, codec
from zoo.codec import container, decoding
from zoo.codec.container import Group, Header
from zoo.codec.errors import CodecError
from zoo.codec.source import Pictures

# Frames of a damaged file may take this much: a few times what the samples take.
MAX_BYTES = 1 << 15
_MODES: tuple[container.OnError, ...] = ("raise", "skip", "freeze")


def main(arguments: Sequence[str]) -> None:
    """FOLDER FIRST END EVERY SEED LIMIT MEMORY."""
    folder, first, end, every, seed = arguments[0], *map(int, arguments[1:5])
    limit, memory = float(arguments[5]), int(arguments[6])
    cache.keep_compiled()
    _remember_groups()
    samples = [path.read_bytes() for path in sorted(pathlib.Path(folder).glob("*.zvc"))]
    truths = [codec.decode(sample).pictures for sample in samples]
    # What the compiler took is no decoder's: the peak starts again here.
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = _memory()
    size = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most = size + (memory << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for number in range(first, end, every):
        rng = np.random.default_rng([seed, number])
        chosen = rng.integers(len(samples))
        kind, broken = fuzz_damage.damaged(samples[chosen], rng)
        repaired = kind.startswith(fuzz_damage.REPAIRED)
        truth = None if repaired else truths[chosen]
        begin = time.monotonic()
        # Ends the process from a thread of its own, whatever the decoder hangs in.
        faulthandler.dump_traceback_later(limit, exit=True)
        outcome = judged(broken, _MODES[rng.integers(3)], truth)
        faulthandler.cancel_dump_traceback_later()
        seconds = time.monotonic() - begin
        record = {"number": number, "kind": kind, "outcome": outcome, "seconds": round(seconds, 5)}
        print(json.dumps(record | {"memory": _memory() - before}), flush=True)


def judged(broken: bytes, on_error: container.OnError, truth: Pictures | None) -> str:
    """What became of a damaged file; begins with FAILED where it may not be.

    truth: the pictures of the file before it was damaged; None where any pictures will do.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            codec.info(broken)
            decoded = codec.decode(broken, on_error=on_error, max_bytes=MAX_BYTES)
        except CodecError as error:
            return f"{type(error).__name__} ({on_error})"
        except BaseException as error:  # A panic of the range coder's is no Exception.
            if isinstance(error, KeyboardInterrupt):
                raise
            return f"FAILED: {type(error).__name__}: {str(error)[:200]}"
    pictures = decoded.pictures
    count = len(pictures.ticks)
    if not count or not count == len(pictures.y) == len(pictures.uv):
        return f"FAILED: {count} times for {len(pictures.y)} frames"
    if pictures.y.nbytes + pictures.uv.nbytes > MAX_BYTES:
        return f"FAILED: {pictures.y.nbytes + pictures.uv.nbytes} bytes of frames"
    if truth is not None and on_error != "freeze" and not _part_of(pictures, truth):
        return "FAILED: other pictures than before the damage"
    return f"pictures ({on_error})" if decoded.problems else f"all pictures ({on_error})"


def _part_of(pictures: Pictures, truth: Pictures) -> bool:
    places = {tick: place for place, tick in enumerate(truth.ticks)}
    return all(
        tick in places
        and np.array_equal(pictures.y[k], truth.y[places[tick]])
        and np.array_equal(pictures.uv[k], truth.uv[places[tick]])
        for k, tick in enumerate(pictures.ticks)
    )


def _remember_groups() -> None:
    """A group that was not damaged is decoded once: what is new of a file is what takes time."""
    decode: Callable[..., Any] = decoding._decoded
    known: dict[tuple, Any] = {}

    def remembered(group: Group, header: Header, name: str) -> Any:
        key = group.data, len(group.ticks), header.width, header.height, header.depth
        if key not in known:
            if len(known) > 64:
                known.clear()
            known[key] = decode(group, header, name)
        return known[key]._replace(ticks=list(group.ticks))

    decoding._decoded = remembered


def _memory() -> int:
    """MiB in memory, the most since the peak was last cleared."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024


if __name__ == "__main__":
    main(sys.argv[1:])
