"""Multiply-accumulates of decoding, counted in the compiled programs that it really calls."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax

from zoo import cost

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
            program = function.trace(*arguments, **keywords).jaxpr.jaxpr
            known[key] = cost.multiply_accumulates(program, alone=True)
        total += known[key]
    return total
