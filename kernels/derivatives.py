"""Operators with a first derivative only say so, in place of an error from inside JAX."""

from collections.abc import Callable
from typing import Any

import jax


def once(function: Callable[..., Any], operator: str) -> Callable[..., Any]:
    """function, the derivative of `operator`; NotImplementedError where it is differentiated."""
    run = jax.custom_vjp(function)

    def refuse(kept: None, d: Any) -> Any:
        raise NotImplementedError(
            f"{operator} is differentiable once: use implementation='xla' for higher derivatives"
        )

    run.defvjp(lambda *arrays: (function(*arrays), None), refuse)
    return run
