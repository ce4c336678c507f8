"""Compiles every operator for a chip that is not here: python -m kernels.aot --target v5e:2x4

For each shape of specs.py the forward pass and the forward pass with all its gradients, as XLA
defines them ("xla"), as the dispatcher chooses, and with the platform's Pallas kernels by name
where they take the shape. Printed is what the compiler tells (kernels/targets.py), with the ratio
of the definition's figure to the candidate's. These are estimates of a compiler, not times. The
exit status is 1 where something did not compile, 2 where the compiler is not installed.
"""

import argparse
import dataclasses
import importlib
import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from kernels import calls, dispatch, specs
from kernels.targets import Report, Target, TargetError

_PALLAS = {"tpu": "pallas_tpu", "cuda": "pallas_gpu"}
_COMPILERS = {"tpu": "targets_tpu", "cuda": "targets_cuda"}
_FAILURES = (jax.errors.JaxRuntimeError, NotImplementedError, ValueError)


@dataclasses.dataclass(frozen=True)
class Row:
    """One candidate on one shape: its report, or in one sentence why there is none."""

    operator: str
    shape: str
    passes: str
    candidate: str
    report: Report | None
    failure: str | None = None


def _names(operator: str, spec: specs.Spec, dtype: Any, platform: str) -> list[str | None]:
    """ "xla", the dispatcher's choice, and the platform's kernels by name where they fit."""
    names: list[str | None] = ["xla", None]
    name = _PALLAS[platform]
    try:
        jax.eval_shape(
            calls.function_of(operator, spec, name), *calls.arrays_of(operator, spec, dtype)
        )
    except (NotImplementedError, ValueError):  # the operator or the shape has no such kernel
        return names
    return [*names, name]


def rows(
    operator: str, spec: specs.Spec, dtype: Any, target: Target, compiler: Callable[..., Report]
) -> Iterator[Row]:
    """Every candidate on one shape, forward and with gradients.

    compiler: compile_report of the target's platform. Raises TargetError.
    """
    for passes in ("forward", "gradients"):
        done: set[frozenset[tuple[str, str]]] = set()
        for name in _names(operator, spec, dtype, target.platform):
            function = calls.function_of(operator, spec, name)
            arrays = calls.arrays_of(operator, spec, dtype)
            if passes == "gradients":
                arrays = [jax.eval_shape(function, *arrays), *arrays]
                function = calls.with_gradients(function)
            label = name or "chosen"
            try:
                ran = dispatch.implementations(function, *arrays, platform=target.platform)
                if frozenset(ran) in done:
                    continue
                done.add(frozenset(ran))
                label = "+".join(sorted({chosen for _, chosen in ran}))
                report = compiler(function, arrays, target)
            except _FAILURES as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                yield Row(operator, spec.name, passes, label, None, reason)
            else:
                yield Row(operator, spec.name, passes, label, report)


def line(row: Row, xla: Report | None) -> str:
    """One row of the table; xla: the report of the definition on the same shape."""
    head = f"{row.operator:20} {row.shape:22} {row.passes:9} {row.candidate:24}"
    if row.report is None:
        return f"{head} does not compile: {row.failure}"
    report, parts = row.report, []
    for field in ("cycles", "bundles"):
        value, base = getattr(report, field), getattr(xla, field, None)
        # Against a figure that is itself a lower bound, nothing can be said.
        ratio, least = " " * 9, field == "bundles" and report.exact is False
        if value and base and not least:
            ratio = f" ({base / value:5.2f}x)"
        sign = ">=" if least else "  "
        parts.append(f"{sign}{value / 1e6:8.3f} M{field}{ratio}" if value else " " * 28)
    parts.append(f"{report.copies:2} copies of {report.copied >> 20:5} MiB")
    if report.memory is not None:
        parts.append(f"memory {report.memory >> 20:6} MiB")
    if report.vmem is not None:
        parts.append(f"VMEM {report.vmem >> 10:6} KiB")
    for field in ("registers", "spills", "shared", "kernels"):
        if getattr(report, field) is not None:
            parts.append(f"{field} {getattr(report, field)}")
    return f"{head} {'  '.join(parts)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    known = calls.known()
    parser = argparse.ArgumentParser(
        "python -m kernels.aot", description="Compiles the operators for a chip that is not here."
    )
    parser.add_argument("names", nargs="*", help=f"shapes (default: all): {', '.join(known)}")
    parser.add_argument("--target", required=True, help="v5e:2x4, v6e:2x4, ..., h200")
    parser.add_argument("--batch", type=int, help="in place of the shapes' own batch sizes")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--json", type=pathlib.Path, help="where to write the reports")
    options = parser.parse_args(arguments)
    try:
        target = Target.parse(options.target)
    except ValueError as error:
        parser.error(str(error))
    wrong = [name for name in options.names if name not in known]
    if wrong:
        parser.error(f"no shape is called {wrong[0]}: use {', '.join(known)}")
    # What is compiled runs nowhere; with libtpu installed jax would look for a TPU.
    jax.config.update("jax_platforms", "cpu")
    found: list[Row] = []
    try:
        compiler = importlib.import_module(f"kernels.{_COMPILERS[target.platform]}").compile_report
        for name in options.names or known:
            operator, spec = known[name]
            spec = spec.batch(options.batch) if options.batch else spec
            xla: dict[str, Report | None] = {}
            for row in rows(operator, spec, jnp.dtype(options.dtype), target, compiler):
                xla.setdefault(row.passes, row.report)
                print(line(row, xla[row.passes]), flush=True)
                found.append(row)
    except TargetError as error:
        print(f"python -m kernels.aot: {error}", file=sys.stderr)
        return 2
    if options.json:
        record = {
            "jax": jax.__version__,
            "target": str(target),
            "batch": options.batch,
            "dtype": options.dtype,
            "rows": [dataclasses.asdict(row) for row in found],
        }
        options.json.write_text(json.dumps(record, indent=1))
    return 1 if any(row.report is None for row in found) else 0


if __name__ == "__main__":
    sys.exit(main())
