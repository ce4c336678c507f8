"""Times every operator on the named shapes: python -m kernels.bench [NAME ...] [--against torch]

For each shape, the forward pass and the forward pass with all its gradients, once as XLA defines
them ("xla") and once as the dispatcher chooses (the names of what it chose); on a GPU or a TPU also
what has a name there and waits for this measurement. Inputs are random and rotated so that a call
never finds its own in the cache; the order of the candidates is shuffled in every round; a sample
is a queue of calls long enough to hide its start. Reported are the median, the quartiles and the
share of the roofline: the time the device would need to read the inputs and write the results once,
or to do the arithmetic at the rate of a dense product, whichever is longer. The rates of a CPU are
measured first, by a copy and a matrix product.

    --json FILE     everything, samples included
    --plot FILE     a roofline plot as SVG
    --against torch PyTorch too, where it is installed (on a CPU)
    --check         compares each candidate with the definition first (kernels/check.py); the exit
                    status is 1 where one is wrong or does not run

For a GPU that nothing here has run on yet: python -m kernels.bench --check --dtype bfloat16 --json
FILE --plot FILE says of every shape and candidate whether it is right, its time and its memory.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import pathlib
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from kernels import calls, devices, dispatch, members, roofline, specs, torch_baseline
from kernels.check import Check, compare, exact

# What no platform chooses by itself until it has been timed there.
_NAMED = {"gpu": ("xla_shift", "pallas_gpu"), "tpu": ("xla_index", "pallas_tpu")}
# A baseline for convolutions on a GPU: XLA told to keep the channels last.
_NHWC = {"xla_gpu_force_conv_nhwc": True}
# One set of inputs after the other until this much memory has been touched.
_ROTATE = 192 << 20
# A sample takes at least this long, in seconds.
_SAMPLE = 0.02


@dataclasses.dataclass(frozen=True)
class Result:
    """One candidate on one shape.

    kind: "xla", "chosen" or "torch". seconds: of one call, in rising order. operations, moved
    (bytes): what a call has to do. floor: the seconds that the device needs for it at least.
    memory: bytes of temporary arrays, where XLA tells. check: against the definition, if asked for.
    """

    operator: str
    shape: str
    passes: str
    candidate: str
    kind: str
    seconds: tuple[float, ...]
    operations: float
    moved: float
    floor: float
    memory: int | None = None
    check: Check | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def share(self) -> float:
        """Of the roofline."""
        return self.floor / self.median

    def row(self) -> str:
        quarter = len(self.seconds) // 4
        low, high = self.seconds[quarter], self.seconds[-1 - quarter]
        return (
            f"{self.shape:26} {self.passes:9} {self.candidate:36} {self.median * 1e3:9.3f} ms  "
            f"({low * 1e3:.3f} to {high * 1e3:.3f})  {self.share:6.1%} of the roofline{self._rest}"
        )

    @property
    def _rest(self) -> str:
        text = "" if self.memory is None else f"  memory {self.memory >> 20} MiB"
        if self.check is not None:
            verdict = "right" if self.check.passed else "WRONG"
            text += f"  {verdict}: off by {self.check.error:.1e} of {self.check.limit:.1e}"
        return text

    def record(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "median": self.median, "share": self.share}

    def point(self) -> roofline.Point:
        label = f"{self.shape}, {self.passes}, {self.candidate}"
        hollow = self.passes == "gradients"
        return roofline.Point(label, self.kind, hollow, self.operations, self.moved, self.median)


def functions(
    operator: str, spec: specs.Spec, dtype: Any = jnp.float32, platform: str | None = None
) -> dict[str, Callable[..., Any]]:
    """The operator on one shape as a function of its arrays, for each implementation name.

    platform: where it will run, "cpu", "gpu" or "tpu"; by default where jax runs.
    """
    found = {
        "xla": calls.function_of(operator, spec, "xla"),
        "chosen": calls.function_of(operator, spec, None),
    }
    for name in _NAMED.get(platform or jax.default_backend(), ()):
        function = calls.function_of(operator, spec, name)
        # Not for this shape, or not a name of this operator.
        with contextlib.suppress(NotImplementedError, ValueError):
            jax.eval_shape(function, *calls.arrays_of(operator, spec, dtype))
            found[name] = function
    return found


def measure(
    candidates: dict[str, Callable[[int], Any]], rounds: int, sets: int, limit: float
) -> dict[str, tuple[float, ...]]:
    """Seconds of one call of each candidate, `rounds` samples each, at most `limit` seconds in all.

    A candidate is called with the number of the set of inputs to use and returns something that
    `jax.block_until_ready` waits for.
    """
    calls = {}
    for name, run in candidates.items():
        jax.block_until_ready(run(0))
        start = time.perf_counter()
        jax.block_until_ready(run(1 % sets))
        calls[name] = max(1, math.ceil(_SAMPLE / (time.perf_counter() - start)))
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    begun = time.perf_counter()
    for done in range(rounds):
        for name in random.sample(list(candidates), len(candidates)):
            start = time.perf_counter()
            for number in range(calls[name]):
                last = candidates[name](number % sets)
            jax.block_until_ready(last)
            samples[name].append((time.perf_counter() - start) / calls[name])
        if done >= 2 and time.perf_counter() - begun > limit:
            break
    return {name: tuple(sorted(values)) for name, values in samples.items()}


def this_device(dtype: Any) -> devices.Device:
    """The record of the device in use; where there is none, one measured now."""
    device = jax.devices()[0]
    record = devices.known(device.device_kind)
    if record is not None:
        return record
    flat = jnp.ones((1 << 26,), jnp.float32)
    square = jax.random.normal(jax.random.key(0), (2048, 2048), dtype)
    copy, product = jax.jit(lambda a: a + 1), jax.jit(jnp.dot)
    found = measure(
        {"copy": lambda _: copy(flat), "dot": lambda _: product(square, square)}, 7, 1, 9
    )
    rate = 2 * flat.nbytes / found["copy"][0]
    flops = 2 * 2048**3 / found["dot"][0]
    return devices.Device(device.device_kind, rate, {jnp.dtype(dtype).name: flops}, True)


def _slopes(function: Callable[..., Any], arrays: Sequence[jax.Array]) -> Any:
    """Random numbers in the shape of the function's results."""
    return jax.tree.map(
        lambda y: jax.random.normal(jax.random.key(99), y.shape, y.dtype),
        jax.eval_shape(function, *arrays),
    )


_FAILURES = (jax.errors.JaxRuntimeError, NotImplementedError, ValueError)


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """A compiled program on some sets of arrays, with what Result says of it."""

    name: str
    kind: str
    run: Callable[[int], Any]
    function: Any = None
    compiled: Any = None
    memory: int | None = None
    check: Check | None = None


def _ours(
    operator: str, spec: specs.Spec, dtype: Any, data: list[Any], gradients: bool
) -> list[tuple[_Candidate, Any]]:
    """Every implementation with its first arguments, the definition first."""
    found = []
    known = functions(operator, spec, dtype)
    programs: list[tuple[str, Callable[..., Any], Any]]
    programs = [(name, function, None) for name, function in known.items()]
    if jax.default_backend() == "gpu" and spec.outputs:
        programs.insert(1, ("xla, channels last", known["xla"], _NHWC))
    for name, function, options in programs:
        kind, arrays = "xla" if name.split(",")[0] == "xla" else "chosen", data
        if gradients:
            dy = _slopes(function, data[0])
            arrays = [(dy, *a) for a in data]
            function = calls.with_gradients(function)
        if name == "chosen":
            ran = dispatch.implementations(function, *arrays[0])
            name = "+".join(sorted({chosen for _, chosen in ran}))
            name = "xla, chosen" if name == "xla" else name
        compiled = jax.jit(function, compiler_options=options)
        found.append(
            (
                _Candidate(
                    name,
                    kind,
                    lambda n, run=compiled, arrays=arrays: run(*arrays[n]),
                    function,
                    compiled,
                ),
                arrays[0],
            )
        )
    return found


def _checked(
    candidates: list[tuple[_Candidate, Any]], dtype: Any, failures: list[str]
) -> Iterator[_Candidate]:
    """Those that run, compared with the definition; the others are added to the failures."""
    definition, arrays = candidates[0]
    expected = exact(definition.function, arrays)
    reference = definition.compiled(*arrays)
    for candidate, arrays in candidates:
        try:
            analysis = candidate.compiled.lower(*arrays).compile().memory_analysis()
            compared = compare(candidate.run(0), reference, expected, [dtype])
        except _FAILURES as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            failures.append(f"{candidate.name} does not run: {reason}")
            continue
        memory = analysis.temp_size_in_bytes if analysis else None
        yield dataclasses.replace(candidate, memory=memory, check=compared)
        if not compared.passed:
            failures.append(f"{candidate.name} is wrong: off by {compared.error:.1e}")


def bench(
    operator: str,
    spec: specs.Spec,
    dtype: Any,
    device: devices.Device,
    rounds: int,
    limit: float,
    against: str | None,
    failures: list[str] | None = None,
) -> list[Result]:
    """All candidates on one shape, forward and with gradients.

    failures: where given, candidates are compared with the definition, and what is wrong or does
    not run is added to it.
    """
    size = math.prod(spec.x) * jnp.dtype(dtype).itemsize
    sets = min(8, max(1, math.ceil(_ROTATE / size)))
    data = [calls.random_arrays(operator, spec, dtype, seed) for seed in range(sets)]
    results = []
    for passes in ("forward", "gradients"):
        gradients = passes == "gradients"
        ours = _ours(operator, spec, dtype, data, gradients)
        if failures is None:
            candidates = {candidate.name: candidate for candidate, _ in ours}
        else:
            new: list[str] = []
            candidates = {c.name: c for c in _checked(ours, dtype, new)}
            failures += [f"{spec.name}, {passes}, {text}" for text in new]
        if against == "torch":
            for name, run in torch_baseline.candidates(operator, spec, gradients, sets).items():
                candidates[name] = _Candidate(name, "torch", run)
        operations, moved = calls.work(operator, spec, dtype, gradients)
        least = device.floor(operations, moved, jnp.dtype(dtype).name)
        runs = {name: candidate.run for name, candidate in candidates.items()}
        for name, seconds in measure(runs, rounds, sets, limit).items():
            found = candidates[name]
            results.append(
                Result(
                    operator,
                    spec.name,
                    passes,
                    name,
                    found.kind,
                    seconds,
                    operations,
                    moved,
                    least,
                    found.memory,
                    found.check,
                )
            )
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser("python -m kernels.bench", description="Times the operators.")
    known = calls.known()
    parser.add_argument("names", nargs="*", help=f"shapes (default: all): {', '.join(known)}")
    parser.add_argument("--batch", type=int, help="in place of the shapes' own batch sizes")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=60, help="limit for one shape and pass")
    parser.add_argument("--against", choices=("torch",), help="a further baseline (CPU)")
    parser.add_argument("--check", action="store_true", help="compare with the definition first")
    parser.add_argument(
        "--members",
        type=int,
        metavar="N",
        help="instead: a train step of N small CNNs under vmap against one by one",
    )
    parser.add_argument("--json", type=pathlib.Path, help="where to write the results")
    parser.add_argument("--plot", type=pathlib.Path, help="where to draw the roofline plot (SVG)")
    options = parser.parse_args(arguments)
    wrong = [name for name in options.names if name not in known]
    if wrong:
        parser.error(f"no shape is called {wrong[0]}: use {', '.join(known)}")
    if options.members is not None:
        if options.members < 1 or options.names:
            parser.error(f"--members {options.members}: give 1 or more, and no shapes")
        members.report(options.members, options.batch or 32, options.rounds)
        return 0
    if options.against and jax.default_backend() != "cpu":
        parser.error(f"--against {options.against} is for CPUs, this is {jax.default_backend()}")
    dtype = jnp.dtype(options.dtype)
    device = this_device(dtype)
    print(
        f"jax {jax.__version__}, {device.name}: {device.bytes_per_second / 1e9:.0f} GB/s, "
        f"{device.flops[options.dtype] / 1e9:.0f} GFLOP/s {options.dtype}",
        file=sys.stderr,
    )
    results: list[Result] = []
    failures: list[str] | None = [] if options.check else None
    for name in options.names or known:
        operator, spec = known[name]
        if options.batch:
            spec = spec.batch(options.batch)
        limits = options.rounds, options.seconds
        found = bench(operator, spec, dtype, device, *limits, options.against, failures)
        results += found
        for result in found:
            print(result.row(), flush=True)
    if options.json:
        record = {
            "jax": jax.__version__,
            "device": dataclasses.asdict(device),
            "dtype": options.dtype,
            "failures": failures,
            "results": [result.record() for result in results],
        }
        options.json.write_text(json.dumps(record, indent=1))
    if options.plot:
        title = f"{device.name}, {options.dtype}, jax {jax.__version__}"
        points = [result.point() for result in results]
        rates = device.flops[options.dtype], device.bytes_per_second
        options.plot.write_text(roofline.picture(title, *rates, points))
    for failure in failures or ():
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
