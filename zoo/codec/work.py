"""Multiply-accumulates of decoding, counted in the compiled programs that it really calls."""

import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

_Compiled: type = type(jax.jit(lambda: None))


@contextlib.contextmanager
def counted() -> Iterator[Callable[[], int]]:
    """While it lasts, calls of compiled functions of zoo.codec are noted.

    Gives a function that says how many multiply-accumulates they were: each multiplication of
    floats counts, in products, in convolutions and alone; what the entropy decoder does in
    integers on the host does not.
    """
    calls: list[tuple[Any, tuple, dict]] = []
    undo = []
    for name, module in list(sys.modules.items()):
        if name.startswith("zoo.codec."):
            for key, value in list(vars(module).items()):
                if isinstance(value, _Compiled):
                    undo.append((module, key, value))
                    setattr(module, key, _noting(value, calls))
    try:
        yield lambda: _total(calls)
    finally:
        for module, key, value in undo:
            setattr(module, key, value)


def _noting(function: Any, calls: list[tuple[Any, tuple, dict]]) -> Callable[..., Any]:
    def noted(*arguments: Any, **keywords: Any) -> Any:
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype) if hasattr(x, "shape") else x,
            (arguments, keywords),
        )
        calls.append((function, *shapes))
        return function(*arguments, **keywords)

    return noted


def _total(calls: list[tuple[Any, tuple, dict]]) -> int:
    known: dict[str, int] = {}
    total = 0
    for function, arguments, keywords in calls:
        key = f"{id(function)} {arguments} {keywords}"
        if key not in known:
            known[key] = _multiplications(function.trace(*arguments, **keywords).jaxpr.jaxpr)
        total += known[key]
    return total


def _multiplications(program: Any) -> int:
    total = 0
    for equation in program.eqns:
        operator, parameters = equation.primitive.name, equation.params
        output = equation.outvars[0].aval
        if operator == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            features = parameters["dimension_numbers"].rhs_spec[0]
            total += math.prod(output.shape) * math.prod(kernel) // kernel[features]
        elif operator == "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            terms = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += math.prod(output.shape) * terms
        elif operator == "mul" and np.issubdtype(output.dtype, np.floating):
            total += math.prod(output.shape)
        elif operator == "cond":
            total += max(_multiplications(branch.jaxpr) for branch in parameters["branches"])
        else:
            inner = sum(_multiplications(inside) for inside in _inside(parameters))
            total += inner * (parameters["length"] if operator == "scan" else 1)
    return total


def _inside(parameters: dict[str, Any]) -> Iterator[Any]:
    for value in parameters.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            part = getattr(part, "jaxpr", part)
            if hasattr(part, "eqns"):
                yield part
