"""python -m zoo bench MODEL: how fast a model runs here."""

import argparse
import functools
import resource
import statistics
import sys
import time
from typing import Any

from zoo import registry


def add_commands(commands: Any) -> None:
    """Adds it to a parser."""
    bench = commands.add_parser("bench", help="clips a second, latency and memory on this machine")
    bench.add_argument("model", help="a model that list shows; its weights are random")
    bench.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="clips of a call")
    bench.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    bench.add_argument("--seconds", type=float, default=5.0, help="for each batch size")
    bench.set_defaults(run=_bench)


def _bench(chosen: argparse.Namespace) -> None:
    registry.require_name("model", chosen.model, registry.MODELS)
    if min(chosen.batch) < 1 or not chosen.seconds > 0:
        raise ValueError("--batch and --seconds must be greater than 0")
    import jax
    import jax.numpy as jnp

    from zoo import cost

    family = registry.MODELS[chosen.model]()
    config, classes = family.presets[chosen.model], family.num_classes or 400
    model = registry.create_model(chosen.model, num_classes=classes, dtype=chosen.dtype)
    height, width = (config.size, config.size) if isinstance(config.size, int) else config.size
    clip = (config.frames, height, width, 3)
    device = jax.devices()[0]
    print(f"{chosen.model}, {chosen.dtype}, {config.frames} frames of {height}x{width}")
    print(f"jax {jax.__version__} on {device.device_kind} ({device.platform})")
    print("batch compile s  clips/s median ms   p90 ms memory MB")
    dtype = cost.input_dtype(model)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *clip), dtype))
    for batch in chosen.batch:
        clips = jnp.ones((batch, *clip), dtype)
        started = time.perf_counter()
        run = jax.jit(model.apply).lower(variables, clips).compile()
        compiled = time.perf_counter() - started
        call = functools.partial(run, variables, clips)
        times = _times(lambda call=call: jax.block_until_ready(call()), chosen.seconds)
        rate = batch * len(times) / sum(times)
        print(
            f"{batch:5} {compiled:9.1f} {rate:8.2f} {1e3 * statistics.median(times):9.1f} "
            f"{1e3 * _p90(times):8.1f} {_memory(run) / 1e6:9.1f}",
            flush=True,
        )
    print(
        f"memory: parameters, clips and intermediate arrays; {_resident()} of the process at most"
    )


def _times(call: Any, seconds: float) -> list[float]:
    """Durations of calls until `seconds` have passed, at least three, after one to warm up."""
    call()
    times: list[float] = []
    while sum(times) < seconds or len(times) < 3:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return times


def _p90(times: list[float]) -> float:
    return sorted(times)[round(0.9 * (len(times) - 1))]


def _memory(run: Any) -> int:
    """Bytes that the compiled program needs on its device."""
    analysis = run.memory_analysis()
    return sum(
        getattr(analysis, f"{kind}_size_in_bytes") for kind in ("argument", "output", "temp")
    )


def _resident() -> str:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"{peak * (1 if sys.platform == 'darwin' else 1024) / 1e6:.0f} MB"
