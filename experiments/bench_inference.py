"""`python -m experiments.bench inference`: forward passes against the original implementations.

Each model runs here and, with `--torch-python`, in a PyTorch environment of its own, which builds
the original network (experiments/opponents/torch_models.py) in both layouts. Turns alternate
between the two processes, so that a change of the machine's load meets both alike; while one
computes the other waits for its input. Compared are the medians of single calls.
"""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

MODELS = ("x3d_s", "movinet_a0_base", "movinet_a0_stream", "r2plus1d_18", "slow_r50")
OPPONENT = pathlib.Path(__file__).parent / "opponents" / "torch_models.py"

# Calls for about so many seconds; returns the seconds of each.
Turn = Callable[[float], list[float]]


def add_command(commands: Any) -> None:
    """Adds it to a parser."""
    command = commands.add_parser("inference", help="forward passes against PyTorch")
    command.add_argument("--models", nargs="+", default=list(MODELS))
    command.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="clips of a call")
    command.add_argument("--torch-python", help="interpreter of an environment with PyTorch")
    command.add_argument("--rounds", type=int, default=5, help="turns of each")
    command.add_argument("--seconds", type=float, default=3.0, help="of a turn")
    command.add_argument("--json", type=pathlib.Path, help="file for the results")
    command.set_defaults(run=run)


@dataclasses.dataclass(frozen=True)
class Measured:
    """One model at one batch size: the seconds of every call, by implementation."""

    model: str
    batch: int
    clip: tuple[int, ...]
    seconds: dict[str, list[float]]

    def medians(self) -> dict[str, float]:
        """Seconds of a call, by implementation."""
        return {name: statistics.median(times) for name, times in self.seconds.items()}

    def ratio(self) -> float | None:
        """How many times as fast as the faster of PyTorch's layouts; None without PyTorch."""
        medians = self.medians()
        others = [seconds for name, seconds in medians.items() if name != "zoo"]
        return min(others) / medians["zoo"] if others else None


def run(options: argparse.Namespace) -> int:
    """Measures and prints; writes the JSON file where one is asked for.

    Raises:
        ValueError: an unknown model, or the PyTorch process ended; the message holds its reason.
    """
    from zoo import registry

    for name in options.models:
        registry.require_name("model", name, registry.MODELS)
    found = []
    print("model batch  ms of a call (median)")
    for name in options.models:
        for batch in options.batch:
            found.append(measure(name, batch, options))
            print(_line(found[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(_report(found), indent=1) + "\n", "utf-8")
    return 0


def measure(name: str, batch: int, options: argparse.Namespace) -> Measured:
    """One model at one batch size, in alternating turns."""
    clip, own = _own(name, batch)
    seconds: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        turns = {"zoo": own}
        if options.torch_python:
            turns |= stack.enter_context(_torch(options.torch_python, name, batch, clip))
        for number in range(options.rounds):
            order = list(turns.items())
            for label, turn in order if number % 2 else reversed(order):
                seconds.setdefault(label, []).extend(turn(options.seconds))
    return Measured(name, batch, clip, seconds)


def _own(name: str, batch: int) -> tuple[tuple[int, ...], Turn]:
    """The shape of a clip [t h w c] and the turn of this project's model."""
    import jax
    import jax.numpy as jnp

    from zoo import registry

    config = registry.MODELS[name]().presets[name]
    height, width = (config.size, config.size) if isinstance(config.size, int) else config.size
    clip = (config.frames, height, width, 3)
    model = registry.create_model(name, num_classes=400)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *clip), jnp.float32))
    clips = jax.random.normal(jax.random.key(1), (batch, *clip))
    apply = jax.jit(model.apply).lower(variables, clips).compile()
    jax.block_until_ready(apply(variables, clips))

    def turn(seconds: float) -> list[float]:
        times: list[float] = []
        while sum(times) < seconds or len(times) < 2:
            began = time.perf_counter()
            jax.block_until_ready(apply(variables, clips))
            times.append(time.perf_counter() - began)
        return times

    return clip, turn


@contextlib.contextmanager
def _torch(python: str, name: str, batch: int, clip: tuple[int, ...]) -> Iterator[dict[str, Turn]]:
    """The turns of the original in a process of PyTorch's, by layout."""
    process = subprocess.Popen(
        [python, str(OPPONENT), name, str(batch), *map(str, clip)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def ask(text: str | None) -> Any:
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            if text is not None:
                process.stdin.write(text + "\n")
                process.stdin.flush()
        answer = process.stdout.readline()
        if answer:
            return json.loads(answer)
        assert process.stderr is not None
        reason = process.stderr.read().strip().splitlines()[-1:] or ["it said nothing"]
        raise ValueError(f"PyTorch's {name} in {python} ended: {reason[0]}")

    try:
        layouts = ask(None)
        yield {
            f"torch {layout}": lambda seconds, layout=layout: ask(f"{layout} {seconds}")
            for layout in layouts
        }
    finally:
        process.kill()
        process.communicate()


def _line(measured: Measured) -> str:
    parts = [f"{name} {1e3 * t:.1f}" for name, t in measured.medians().items()]
    ratio = measured.ratio()
    if ratio is not None:
        parts.append(f"{ratio:.2f} times as fast")
    return f"{measured.model} {measured.batch}  " + ", ".join(parts)


def _report(found: list[Measured]) -> dict[str, Any]:
    import jax

    device = jax.devices()[0]
    return {
        "jax": jax.__version__,
        "python": sys.version.split()[0],
        "device": f"{device.device_kind} ({device.platform})",
        "results": [
            dataclasses.asdict(m) | {"medians": m.medians(), "ratio": m.ratio()} for m in found
        ],
    }
