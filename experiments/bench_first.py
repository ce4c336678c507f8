"""`python -m experiments.bench first`: from `import zoo` to the first logits, in new processes.

The weights are random ones in the publisher's own form, imported as a user would import them. The
first process compiles and fills a compilation cache; the later ones are what a user waits for at
every start, and their medians are printed. Wall times: run it on a quiet machine.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any


def add_command(commands: Any) -> None:
    """Adds it to a parser."""
    command = commands.add_parser("first", help="import to first logits", description=__doc__)
    command.add_argument("--weights", nargs="+", default=["x3d_m.k400"])
    command.add_argument("--rounds", type=int, default=5, help="processes with a warm cache")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measures and prints.

    Raises ValueError for unknown weights, or where a process ended early.
    """
    from zoo import registry
    from zoo.weights.published import PUBLISHED

    for name in options.weights:
        registry.require_name("published weights", name, PUBLISHED)
    print("weights               process  total s  imported  loaded  logits  next call")
    for name in options.weights:
        with tempfile.TemporaryDirectory() as folder:
            env = {
                **os.environ,
                "ZOO_CACHE": folder,
                "JAX_COMPILATION_CACHE_DIR": str(pathlib.Path(folder, "compiled")),
            }
            _import_random(name, folder)
            print(_line(name, "cold", _once(name, env)), flush=True)
            warm = [_once(name, env) for _ in range(options.rounds)]
            medians = {key: statistics.median(times[key] for times in warm) for key in warm[0]}
            print(_line(name, "warm", medians), flush=True)
    return 0


def _import_random(name: str, folder: str) -> None:
    """Puts random weights where `load_pretrained` looks for those of that name."""
    import jax
    import numpy as np
    import safetensors.numpy

    from zoo import cost, registry
    from zoo.weights import convert, originals
    from zoo.weights.published import PUBLISHED

    spec = PUBLISHED[name].spec()
    model = registry.create_model(spec.model, num_classes=len(spec.classes), **spec.overrides)
    shapes = cost.variable_shapes(model, (spec.frames, spec.size, spec.size, spec.channels))
    random = np.random.default_rng(0)
    values = jax.tree.map(lambda leaf: 1e-2 * random.standard_normal(leaf.shape), shapes)
    values["batch_stats"] = jax.tree.map(np.abs, values.get("batch_stats", {}))
    table = registry.MODELS[spec.model]().table
    assert table is not None  # of every published model
    state = convert.to_state_dict(table(model.config), values)
    path = pathlib.Path(folder, "published.safetensors")
    arrays = {key: np.asarray(value, np.float32) for key, value in state.items()}
    path.write_bytes(safetensors.numpy.save(arrays))
    os.environ["ZOO_CACHE"] = folder
    originals.import_file(name, path)


def _once(name: str, env: dict[str, str]) -> dict[str, float]:
    """The seconds of one process, from its start to its end and inside."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "experiments.first_worker", name]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    total = time.perf_counter() - began
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise ValueError(f"the process of {name} ended: {reason[0]}")
    return {"total": total, **json.loads(done.stdout)}


def _line(name: str, which: str, seconds: dict[str, float]) -> str:
    total, imported, loaded, logits, following = seconds.values()
    parts = f"{imported:9.2f} {loaded:7.2f} {logits:7.2f} {following:10.2f}"
    return f"{name:21} {which:7} {total:8.2f} {parts}"
