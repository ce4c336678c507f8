"""Keeps XLA from computing an array anew inside each of its consumers."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax


def materialized(
    a: jax.Array, unchanged: Callable[[jax.Array], jax.Array] | None = None
) -> jax.Array:
    """a, written to memory once where consumers read it at several places.

    XLA puts cheap producers into the loops of their consumers; read at the 27 places of a window,
    or in a transposed order, they cost many times what they save. lax.optimization_barrier is the
    means against it, but XLA's CPU compiler drops barriers before it fuses. There the array passes
    a branch, both sides of which return it in different forms, or the branch would go as well.

    unchanged: a function that returns its argument and that XLA does not see through; by default
    one for floating types.
    """
    if a.size == 0:
        return a

    def nan_is_nan(a: jax.Array) -> jax.Array:
        return jnp.where(a == a, a, jnp.full_like(a, jnp.nan))

    def branch(a: jax.Array) -> jax.Array:
        first = lax.slice(a, (0,) * a.ndim, (1,) * a.ndim).reshape(())
        return lax.cond(first == 0, unchanged or nan_is_nan, lambda a: a, a)

    return lax.platform_dependent(a, cpu=branch, default=lax.optimization_barrier)
