"""Times every operator on the named shapes: python -m kernels.bench [NAME ...] [--against torch]

For each shape, the forward pass and the forward pass with all its gradients, once as XLA defines
them ("xla") and once as the dispatcher chooses (the names of what it chose); on a GPU also what
has a name there and waits for this measurement. Inputs are random and
rotated so that a call never finds its own in the cache; the order of the candidates is shuffled in
every round; a sample is a queue of calls long enough to hide its start. Reported are the median,
the quartiles and the share of the roofline: the time the device would need to read the inputs and
write the results once, or to do the multiplications, whichever is longer. The rates of a CPU are
measured first, by a copy and a matrix product.
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
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

import kernels
from kernels import devices, dispatch, members, specs
from kernels.windows import Windows

# What no platform chooses by itself until it has been timed there.
_NAMED = {("gpu", "depthwise_conv3d"): ("xla_shift", "pallas_gpu")}
# One set of inputs after the other until this much memory has been touched.
_ROTATE = 192 << 20
# A sample takes at least this long, in seconds.
_SAMPLE = 0.02


@dataclasses.dataclass(frozen=True)
class Result:
    """One candidate on one shape. seconds: of one call, in rising order."""

    operator: str
    shape: str
    passes: str
    candidate: str
    seconds: tuple[float, ...]
    floor: float

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def row(self) -> str:
        quarter = len(self.seconds) // 4
        low, high = self.seconds[quarter], self.seconds[-1 - quarter]
        share = self.floor / self.median
        return (
            f"{self.shape:24} {self.passes:9} {self.candidate:36} {self.median * 1e3:9.3f} ms  "
            f"({low * 1e3:.3f} to {high * 1e3:.3f})  {share:6.1%} of the roofline"
        )


def functions(
    operator: str, spec: specs.Spec, dtype: Any = jnp.float32, platform: str | None = None
) -> dict[str, Callable[..., Any]]:
    """The operator on one shape: a function of (x, w), or of (x), for each implementation name.

    platform: where it will run, "cpu", "gpu" or "tpu"; by default where jax runs.
    """

    def call(name: str | None) -> Callable[..., Any]:
        shared: dict[str, Any] = {"stride": spec.stride, "padding": spec.padding}
        if operator == "max_pool":
            return lambda x: kernels.max_pool(x, spec.window, implementation=name, **shared)
        return lambda x, w: kernels.conv(x, w, groups=spec.groups, implementation=name, **shared)

    found = {"xla": call("xla"), "chosen": call(None)}
    named = _NAMED.get((platform or jax.default_backend(), operator), ())
    w = (*spec.window, spec.x[-1] // spec.groups, spec.outputs)
    shapes = [jax.ShapeDtypeStruct(shape, dtype) for shape in (spec.x, w)]
    for name in named:
        with contextlib.suppress(NotImplementedError):  # not for this shape
            jax.eval_shape(call(name), *shapes)
            found[name] = call(name)
    return found


def with_gradients(function: Callable[..., Any]) -> Callable[..., Any]:
    """The value and the gradients by all arguments, for a gradient given as the first argument."""

    def run(dy: jax.Array, *arrays: jax.Array) -> Any:
        y, pull = jax.vjp(function, *arrays)
        return y, pull(dy)

    return run


def inputs(operator: str, spec: specs.Spec, dtype: Any, seed: int) -> tuple[jax.Array, ...]:
    """Random x, or x and w; after ReLU for a pool, which meets ties in practice."""
    keys = jax.random.split(jax.random.key(seed), 2)
    x = jax.random.normal(keys[0], spec.x, dtype)
    if operator == "max_pool":
        return (jax.nn.relu(x),)
    w = (*spec.window, spec.x[-1] // spec.groups, spec.outputs)
    return x, jax.random.normal(keys[1], w, dtype)


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


def floor(operator: str, spec: specs.Spec, dtype: Any, device: devices.Device) -> float:
    """Seconds that the forward pass needs at least."""
    windows = Windows.of(spec.x, spec.window, spec.stride, spec.padding)
    channels = spec.outputs or spec.x[-1]
    places = spec.x[0] * math.prod(windows.outputs)
    fan = math.prod(spec.window) * spec.x[-1] // spec.groups
    flops = 0 if operator == "max_pool" else 2 * places * channels * fan
    moved = (math.prod(spec.x) + places * channels) * jnp.dtype(dtype).itemsize
    return device.floor(flops, moved, jnp.dtype(dtype).name)


def torch_candidate(operator: str, spec: specs.Spec, gradients: bool) -> Callable[[int], Any]:
    """The same call in PyTorch, channels last, on as many threads as it takes by itself.

    Raises SystemExit where PyTorch is not installed or the padding is not symmetric.
    """
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise SystemExit("--against torch needs PyTorch: pip install torch") from None
    axes = len(spec.window)
    windows = Windows.of(spec.x, spec.window, spec.stride, spec.padding)
    if any(low != high for low, high in windows.padding):
        raise SystemExit(f"{spec.name} pads unevenly, which PyTorch does not: leave it out")
    padding = [low for low, _ in windows.padding]
    layout = torch.channels_last if axes == 2 else torch.channels_last_3d
    order = (0, axes + 1, *range(1, axes + 1))
    x = torch.randn(spec.x).permute(order).contiguous(memory_format=layout)
    arrays = [x]
    library = torch.nn.functional
    if operator == "max_pool":
        pool = library.max_pool2d if axes == 2 else library.max_pool3d

        def forward() -> Any:
            return pool(x, spec.window, spec.stride, padding)
    else:
        w = torch.randn(spec.outputs, spec.x[-1] // spec.groups, *spec.window)
        arrays.append(w.contiguous(memory_format=layout))
        conv = library.conv2d if axes == 2 else library.conv3d

        def forward() -> Any:
            return conv(*arrays, None, spec.stride, padding, 1, spec.groups)

    def run(number: int) -> tuple[()]:
        if not gradients:
            with torch.no_grad():
                forward()
            return ()
        y = forward()
        torch.autograd.grad(y, arrays, dy)
        return ()

    for array in arrays:
        array.requires_grad_(gradients)
    dy = torch.randn_like(forward())
    return run


def bench(
    operator: str,
    spec: specs.Spec,
    dtype: Any,
    device: devices.Device,
    rounds: int,
    limit: float,
    against: str | None,
) -> list[Result]:
    """All candidates on one shape, forward and with gradients."""
    size = math.prod(spec.x) * jnp.dtype(dtype).itemsize
    sets = min(8, max(1, math.ceil(_ROTATE / size)))
    data = [inputs(operator, spec, dtype, seed) for seed in range(sets)]
    results = []
    for passes in ("forward", "gradients"):
        candidates: dict[str, Callable[[int], Any]] = {}
        for name, function in functions(operator, spec, dtype).items():
            arrays = data
            if passes == "gradients":
                y = jax.eval_shape(function, *data[0])
                dy = jax.random.normal(jax.random.key(99), y.shape, dtype)
                arrays = [(dy, *a) for a in data]
                function = with_gradients(function)
            if name == "chosen":
                ran = dispatch.implementations(function, *arrays[0])
                name = "+".join(sorted({chosen for _, chosen in ran}))
            compiled = jax.jit(function)
            candidates[name] = lambda n, run=compiled, arrays=arrays: run(*arrays[n])
        if against == "torch":
            candidates["torch"] = torch_candidate(operator, spec, passes == "gradients")
        least = floor(operator, spec, dtype, device)
        if passes == "gradients":  # each of dx and dw costs what the forward pass costs
            least *= 2 if operator == "max_pool" else 3
        for name, seconds in measure(candidates, rounds, sets, limit).items():
            results.append(Result(operator, spec.name, passes, name, seconds, least))
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser("python -m kernels.bench", description="Times the operators.")
    known = {spec.name: (op, spec) for op, group in specs.ALL.items() for spec in group}
    parser.add_argument("names", nargs="*", help=f"shapes (default: all): {', '.join(known)}")
    parser.add_argument("--batch", type=int, help="in place of the shapes' own batch sizes")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=60, help="limit for one shape and pass")
    parser.add_argument("--against", choices=("torch",), help="a further baseline (CPU)")
    parser.add_argument(
        "--members",
        type=int,
        metavar="N",
        help="instead: a train step of N small CNNs under vmap against one by one",
    )
    parser.add_argument("--json", type=pathlib.Path, help="where to write the results")
    options = parser.parse_args(arguments)
    wrong = [name for name in options.names if name not in known]
    if wrong:
        parser.error(f"no shape is called {wrong[0]}: use {', '.join(known)}")
    if options.members is not None:
        if options.members < 1 or options.names:
            parser.error(f"--members {options.members}: give 1 or more, and no shapes")
        members.report(options.members, options.batch or 32, options.rounds)
        return
    if options.against and jax.default_backend() != "cpu":
        parser.error(f"--against {options.against} is for CPUs, this is {jax.default_backend()}")
    dtype = jnp.dtype(options.dtype)
    device = this_device(dtype)
    print(
        f"jax {jax.__version__}, {device.name}: {device.bytes_per_second / 1e9:.0f} GB/s, "
        f"{device.flops[options.dtype] / 1e9:.0f} GFLOP/s {options.dtype}",
        file=sys.stderr,
    )
    results = []
    for name in options.names or known:
        operator, spec = known[name]
        if options.batch:
            spec = spec.batch(options.batch)
        found = bench(
            operator, spec, dtype, device, options.rounds, options.seconds, options.against
        )
        results += found
        for result in found:
            print(result.row(), flush=True)
    if options.json:
        record = {
            "jax": jax.__version__,
            "device": dataclasses.asdict(device),
            "dtype": options.dtype,
            "results": [dataclasses.asdict(result) for result in results],
        }
        options.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
