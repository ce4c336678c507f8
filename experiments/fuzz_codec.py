"""Damages compressed files many times and decodes them: python -m experiments.fuzz_codec.

Half of the files are damaged as they lie on a disk, which the checksums must notice. In the other
half the checksums are made right again afterwards, so that the parser of fields and the entropy
decoder read what no encoder wrote. Every outcome must be whole groups (the right pictures, where no
checksum was made right) or a typed error, within --limit seconds, --memory MiB and the header's
sizes. Exit status 1 if one was not; `--first N --count 1 --verbose` repeats file N.

Files are decoded in processes of their own, so that a crash, a hang or an exhausted memory ends one
of them, is counted, and the next goes on behind it.
"""

import argparse
import collections
import concurrent.futures
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

from experiments import fuzz_damage
from zoo import codec
from zoo.video import encode

_SECONDS = "seconds"


def main() -> int:
    """Runs it and prints counts; 1 if a file did what none may."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="files")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for one file")
    parser.add_argument("--memory", type=int, default=1024, help="MiB beside the program itself")
    parser.add_argument("--verbose", action="store_true", help="print every file's outcome")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _samples(pathlib.Path(folder))
        team = [_Worker(chosen, folder, k) for k in range(chosen.processes)]
        with concurrent.futures.ThreadPoolExecutor(len(team)) as threads:
            list(threads.map(_Worker.follow, team))
    return _report([record for worker in team for record in worker.records], chosen)


def _samples(folder: pathlib.Path) -> None:
    """Files with one and with several frames and groups, odd sizes, ten bits, a fitted network."""
    y, x = np.mgrid[:33, :32]
    frames = np.stack(
        [
            np.stack([3 * x + y + 9 * k, 255 - 2 * x, 4 * y + 20 * (x + k > 16)], -1)
            for k in range(6)
        ]
    ).astype(np.uint8)
    even = encode(frames[:, :32], crf=4)
    odd = encode(frames[:, :, :31], timestamps=[0, 0.1, 0.15, 0.3, 1.0, 1.1], crf=4)
    codec.compress(even, folder / "0.zvc", quality=60, steps=2, group_frames=3)
    codec.compress(odd, folder / "1.zvc", quality=40, steps=0, group_frames=2)
    codec.compress(even, folder / "2.zvc", quality=90, steps=0, frames=1)
    codec.compress(odd, folder / "3.zvc", quality=20, steps=2, frames=3)


class _Worker:
    """One process after the other that decodes every n-th file."""

    def __init__(self, chosen: argparse.Namespace, folder: str, number: int) -> None:
        self._chosen, self._folder = chosen, folder
        self._next = chosen.first + number
        self.records: list[dict] = []

    def _start(self) -> subprocess.Popen:
        """Begins at the next file."""
        c = self._chosen
        end = c.first + c.count
        span = (self._next, end, c.processes, c.seed, c.limit, c.memory)
        command = [sys.executable, "-m", "experiments.fuzz_worker", self._folder, *map(str, span)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def follow(self) -> None:
        """Takes its records to the end; a process that died is followed by another."""
        c = self._chosen
        while True:
            process = self._start()
            assert process.stdout is not None
            for line in process.stdout:
                record = json.loads(line)
                self.records.append(record)
                self._next = record["number"] + c.processes
                if c.verbose:
                    print(line, end="", flush=True)
                elif len(self.records) % 500 == 0:
                    print(f"{len(self.records)} files of this process", file=sys.stderr)
            status = process.wait()
            if status == 0:
                return
            outcome = f"FAILED: the process ended with status {status}"
            self.records.append(
                {"number": self._next, "kind": "?", "outcome": outcome, _SECONDS: 0.0, "memory": 0}
            )
            self._next += c.processes


def _report(records: list[dict], chosen: argparse.Namespace) -> int:
    table = collections.Counter((record["kind"], record["outcome"]) for record in records)
    for (kind, outcome), count in sorted(table.items()):
        print(f"{count:6} {kind}: {outcome}")
    seconds = [record[_SECONDS] for record in records]
    repaired = sum(record["kind"].startswith(fuzz_damage.REPAIRED) for record in records)
    failed = [record["number"] for record in records if record["outcome"].startswith("FAILED")]
    print(
        f"{len(records)} files, {repaired} with checksums made right, {len(failed)} failed "
        f"{failed[:20]}; {np.mean(seconds):.4f} s a file, slowest {max(seconds):.2f} s, "
        f"{max(record['memory'] for record in records)} MiB at most"
    )
    return int(bool(failed) or len(records) != chosen.count)


if __name__ == "__main__":
    begin = time.monotonic()
    status = main()
    print(f"{time.monotonic() - begin:.0f} s in all")
    sys.exit(status)
