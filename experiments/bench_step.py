"""`python -m experiments.bench step`: the train step here against PyTorch and Keras on one machine.

Each library runs in a process, and, where --torch-python or --keras-python says so, in an
environment of its own; PyTorch in both of its layouts and Keras with and without XLA. The processes
are started together and take turns, in an order that is shuffled in every round, so that a change
of the machine's load meets all alike. Compared are medians of the seconds of a step, and of the
processor time, which load hardly changes; a ratio above 1 means that this project is faster than
the fastest setting of the other library.

The ratio of the seconds holds for a machine that does nothing else. XLA's step is a chain of some
hundred small kernels whose threads wait for one another, so that other work slows it down more than
a step of few large ones: beside a load of 10 the same steps had a ratio of 0.58 by the clock and of
0.98 by processor time. So the share of the processors that others took is measured and shown.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import os
import pathlib
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from experiments import step_worker

# Steps in one turn take about this long, in seconds.
_TURN = 1.0
# The share of the processors that other processes may take before the table warns.
_BUSY = 0.05
_LIBRARIES = {"torch": ("torch", "torch_channels_last"), "keras": ("keras", "keras_compiled")}
CASES = ("cnn_base:224:32", "cnn_small:112:16", "cnn_small:64:16")


@dataclasses.dataclass(frozen=True)
class Case:
    """A network on `frames` frames of size x size."""

    model: str
    size: int
    frames: int

    @classmethod
    def parse(cls, text: str) -> "Case":
        """From MODEL:SIZE:FRAMES. Raises argparse.ArgumentTypeError."""
        model, *numbers = text.split(":")
        if model not in step_worker.HIDDEN or len(numbers) != 2:
            raise argparse.ArgumentTypeError(
                f"{text!r} is no case: write MODEL:SIZE:FRAMES, with one of "
                f"{', '.join(step_worker.HIDDEN)}, such as {CASES[0]}"
            )
        if not all(number.isdigit() and int(number) for number in numbers):
            raise argparse.ArgumentTypeError(f"{text!r}: size and frames must be 1 or more")
        return cls(model, *map(int, numbers))

    def __str__(self) -> str:
        return f"{self.model}:{self.size}:{self.frames}"


class Worker:
    """The process of one library."""

    def __init__(self, library: str, case: Case, python: str) -> None:
        self.library, self.python = library, python
        environment = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="2")
        if library == "zoo":
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        else:
            environment.pop("PYTHONPATH", None)
        what = [library, case.model, str(case.size), str(case.frames)]
        self._process = subprocess.Popen(
            [python, "-P", step_worker.__file__, *what],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def answer(self) -> dict[str, Any]:
        """The next answer. Raises SystemExit where the process has ended; it says why itself."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(step_worker.MARK):
                return json.loads(line.removeprefix(step_worker.MARK))
        raise SystemExit(
            f"{self.library} does not run with {self.python}: see the message above, and give a "
            "Python that has it (--torch-python, --keras-python) or leave it out"
        )

    def turn(self, steps: int) -> dict[str, Any]:
        """Seconds, processor seconds and loss of some steps."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()


def compare(case: Case, pythons: dict[str, str], rounds: int) -> dict[str, Any]:
    """Samples, medians and ratios of one case; pythons: the interpreter of each library."""
    with contextlib.ExitStack() as stack:
        workers, versions = [], {}
        for library, python in pythons.items():  # one after the other: each compiles on all cores
            worker = Worker(library, case, python)
            stack.callback(worker.close)
            versions[library] = worker.answer()["version"]
            workers.append(worker)
        steps = {
            worker.library: max(1, math.ceil(_TURN / worker.turn(1)["seconds"]))
            for worker in workers
        }
        load = [os.getloadavg()[0]]
        began, all_before = time.perf_counter(), _processor_seconds()
        samples: dict[str, dict[str, list[float]]] = {
            worker.library: {"seconds": [], "processor": []} for worker in workers
        }
        own = 0.0
        for _ in range(rounds):
            for worker in random.sample(workers, len(workers)):
                count = steps[worker.library]
                own += worker.turn(1)["processor"]  # not timed: its caches are another's
                answer = worker.turn(count)
                if not math.isfinite(answer["loss"]):
                    raise SystemExit(f"{worker.library}: the loss is {answer['loss']}")
                own += answer["processor"]
                for kind, values in samples[worker.library].items():
                    values.append(answer[kind] / count)
        load.append(os.getloadavg()[0])
        available = (time.perf_counter() - began) * (os.cpu_count() or 1)
        others = max(0.0, _processor_seconds() - all_before - own) / available
    medians = {
        library: {kind: statistics.median(values) for kind, values in kinds.items()}
        for library, kinds in samples.items()
    }
    return {
        "case": str(case),
        "versions": versions,
        "load": load,
        "others": others,
        "medians": medians,
        "ratios": ratios(medians),
        "samples": samples,
    }


def _processor_seconds() -> float:
    """What all processes of the machine have used so far; 0 where the system does not tell."""
    try:
        words = pathlib.Path("/proc/stat").read_text().split()
    except OSError:
        return 0.0
    user, nice, system, _, _, interrupts, software = map(int, words[1:8])
    return (user + nice + system + interrupts + software) / os.sysconf("SC_CLK_TCK")


def ratios(medians: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """For each other library the time of its fastest setting over the time of this project."""
    found: dict[str, dict[str, float]] = {}
    for name, settings in _LIBRARIES.items():
        present = [medians[setting] for setting in settings if setting in medians]
        if present:
            found[name] = {
                kind: min(median[kind] for median in present) / own
                for kind, own in medians["zoo"].items()
            }
    return found


def _table(found: dict[str, Any]) -> str:
    load = found["load"]
    lines = [f"{found['case']}  (load {load[0]:.1f} before, {load[1]:.1f} after)"]
    for library, median in found["medians"].items():
        low, *_, high = sorted(found["samples"][library]["seconds"])
        lines.append(
            f"  {library:20} {median['seconds'] * 1e3:9.1f} ms a step "
            f"({low * 1e3:.1f} to {high * 1e3:.1f})  {median['processor'] * 1e3:9.1f} processor ms"
            f"  {found['versions'][library]}"
        )
    if found["others"] > _BUSY:
        lines.append(
            f"  other processes took {found['others']:.0%} of the processors: "
            "compare the processor times, the seconds are not those of a quiet machine"
        )
    for name, ratio in found["ratios"].items():
        lines.append(
            f"  zoo runs {ratio['seconds']:.2f} times as fast as {name}, "
            f"{ratio['processor']:.2f} times by processor time"
        )
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "cases", nargs="*", type=Case.parse, help=f"MODEL:SIZE:FRAMES, default {' '.join(CASES)}"
    )
    parser.add_argument("--torch-python", help="a Python that has PyTorch; compared if given")
    parser.add_argument("--keras-python", help="a Python that has Keras and TensorFlow")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each")
    parser.add_argument("--json", type=pathlib.Path, help="where to write the results")


def run(options: argparse.Namespace) -> int:
    """Carries the command out; returns the exit status."""
    pythons = {"zoo": sys.executable}
    given: dict[str, str | None] = {"torch": options.torch_python, "keras": options.keras_python}
    for name, python in given.items():
        if python is not None:
            pythons.update((setting, python) for setting in _LIBRARIES[name])
    cases: Sequence[Case] = options.cases or [Case.parse(text) for text in CASES]
    results = []
    for case in cases:
        results.append(compare(case, pythons, options.rounds))
        print(_table(results[-1]), flush=True)
        if options.json:
            options.json.write_text(json.dumps(results, indent=1))
    return 0
