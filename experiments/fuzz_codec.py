"""Damages a compressed file many times and decodes it: python -m experiments.fuzz_codec FILE.zvc.

Every outcome must be whole groups or a typed error, in little time and memory. With --symbols the
checksums of damaged groups are made right again, so that wrong symbols reach the decoder.
"""

import argparse
import pathlib
import resource
import time
import warnings

import numpy as np

from zoo import codec
from zoo.codec import container
from zoo.codec.errors import CodecError


def main() -> None:
    """Runs it and prints counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--symbols", action="store_true")
    chosen = parser.parse_args()
    data = chosen.file.read_bytes()
    rng = np.random.default_rng(chosen.seed)
    counts: dict[str, int] = {}
    slowest = 0.0
    for _ in range(chosen.count):
        broken = _resealed(data, rng) if chosen.symbols else _damaged(data, rng)
        begin = time.monotonic()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                outcome = f"{len(codec.decode(broken, on_error='skip').pictures.ticks)} frames"
        except CodecError as error:
            outcome = type(error).__name__
        slowest = max(slowest, time.monotonic() - begin)
        counts[outcome] = counts.get(outcome, 0) + 1
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{chosen.count} files: {dict(sorted(counts.items()))}")
    print(f"slowest {slowest:.2f} s, {memory} MiB at most")


def _damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut short, or with bytes changed, taken out or put in."""
    broken = bytearray(data[: rng.integers(len(data) + 1)] if rng.random() < 0.3 else data)
    for _ in range(rng.integers(0, 5)):
        place = int(rng.integers(len(broken) + 1))
        kind = rng.integers(3)
        if kind == 0:
            broken[place : place + 1] = rng.bytes(1)
        elif kind == 1:
            del broken[place : place + int(rng.integers(1, 50))]
        else:
            broken[place:place] = rng.bytes(int(rng.integers(1, 50)))
    return bytes(broken)


def _resealed(data: bytes, rng: np.random.Generator) -> bytes:
    """With bytes of groups' data changed under checksums that are right."""
    read = container.parse(data, "original")
    parts = [read.header.pack()]
    for group in read.groups:
        content = bytearray(group.data)
        for _ in range(rng.integers(0, 4)):
            content[rng.integers(len(content))] = rng.integers(256)
        content = content[: rng.integers(len(content) + 1)] if rng.random() < 0.2 else content
        changed = container.Group(
            group.number, group.first, group.ticks, group.last, bytes(content)
        )
        parts.append(changed.pack())
    return b"".join(parts)


if __name__ == "__main__":
    main()
