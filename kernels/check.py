"""Whether a candidate computes what the definition does, on the device and at full size.

The measure is the candidate's distance from the definition computed in float32 with exact
products, as a share of the largest number in that result, beside the distance of the definition
itself in the candidate's type. A candidate passes if it is no further off than twice that, or than
one unit in the last place of its type (of float32 sums: of a thousand).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Check:
    """error, reference: the distances of a candidate and of the definition. limit: what passes."""

    error: float
    reference: float
    limit: float

    @property
    def passed(self) -> bool:
        return self.error <= self.limit  # False for NaN


def exact(definition: Callable[..., Any], arrays: Any) -> Any:
    """The definition's results in float32; arrays of integers stay what they are."""
    wide = jax.tree.map(
        lambda a: a.astype(jnp.float32) if jnp.issubdtype(a.dtype, jnp.floating) else a, arrays
    )
    with jax.default_matmul_precision("highest"):
        return jax.jit(definition)(*wide)


def distance(results: Any, expected: Any) -> float:
    """The largest error of any array of the results, as a share of that array's largest number."""
    worst = 0.0
    for ours, theirs in zip(jax.tree.leaves(results), jax.tree.leaves(expected), strict=True):
        difference = jnp.abs(ours.astype(jnp.float32) - theirs).max()
        share = float(difference / jnp.maximum(jnp.abs(theirs).max(), 1e-30))
        worst = share if not share <= worst else worst  # NaN is worst of all
    return worst


def compare(results: Any, reference: Any, expected: Any, dtypes: Sequence[Any]) -> Check:
    """results, reference: of the candidate and of the definition; expected: from `exact`."""
    unit = max(float(jnp.finfo(dtype).eps) for dtype in dtypes)
    least = unit if unit > 1e-4 else 1e3 * unit
    theirs = distance(reference, expected)
    return Check(distance(results, expected), theirs, max(2 * theirs, least))
