"""A scale and a bias for each channel, with their gradients in one pass: batch normalisation.

    channel_affine(x, scale, bias) == (float32(x) * scale + bias).astype(dtype)

scale and bias are one number a channel, or one a channel of each example: squeeze-excite's gate is
such a scale. The gradient by x is again a scale; those by scale and bias are the sums of dy * x and
of dy, which `kernels.moments` takes in one pass. XLA on a CPU takes each sum in a pass of its own,
with another for the product.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from kernels import dispatch
from kernels.materialize import materialized
from kernels.moments import product_sums


def channel_affine(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array | None = None,
    *,
    dtype: jax.typing.DTypeLike | None = None,
    implementation: str | None = None,
) -> jax.Array:
    """x times scale plus bias, computed in float32 (float64 for float64).

    x: [n, ..., c]. scale, bias: [c] or [n, c], both of one shape; bias may be None.
    dtype: of the result, by default that of x.
    implementation: "xla" (definition, XLA's derivatives), "xla_rewrite" or None.
    Differentiable in reverse, any number of times. Raises ValueError where shapes do not fit.
    """
    shapes = [(x.shape[-1],), (x.shape[0], x.shape[-1])]
    if scale.shape not in shapes or (bias is not None and bias.shape != scale.shape):
        given = "None" if bias is None else bias.shape
        raise ValueError(
            f"x has shape {x.shape}, scale {scale.shape} and bias {given}: "
            f"give scale and bias of one shape, {shapes[0]} or {shapes[1]}"
        )
    result = jnp.dtype(x.dtype if dtype is None else dtype)
    name = dispatch.requested(implementation)
    if name == "xla":
        return _run([_XLA], result, name, x, scale, bias)
    return _affine(result, name, x, scale, bias)


def _wide(a: jax.Array) -> jax.Array:
    return a.astype(jnp.promote_types(a.dtype, jnp.float32))


def _across(a: jax.Array, x: jax.Array) -> jax.Array:
    """[c] or [n, c] in the shape of x [n, ..., c]."""
    return a if a.ndim == 1 else a.reshape(a.shape[0], *(1,) * (x.ndim - 2), a.shape[-1])


def _definition(
    x: jax.Array, scale: jax.Array, bias: jax.Array | None = None, *, dtype: jnp.dtype
) -> jax.Array:
    y = _wide(x) * _across(scale, x)
    return (y if bias is None else y + _across(bias, x)).astype(dtype)


def _run(
    candidates: Sequence[dispatch.Implementation],
    dtype: jnp.dtype,
    name: str | None,
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array | None,
) -> jax.Array:
    arrays = (x, scale) if bias is None else (x, scale, bias)
    return dispatch.call("channel_affine", candidates, name, *arrays, dtype=dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _affine(
    dtype: jnp.dtype, name: str | None, x: jax.Array, scale: jax.Array, bias: jax.Array | None
) -> jax.Array:
    return _run([_REWRITE, _XLA], dtype, name, x, scale, bias)


def _forward(
    dtype: jnp.dtype, name: str | None, x: jax.Array, scale: jax.Array, bias: jax.Array | None
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array | None]]:
    return _affine(dtype, name, x, scale, bias), (x, scale, bias)


def _backward(
    dtype: jnp.dtype,
    name: str | None,
    saved: tuple[jax.Array, jax.Array, jax.Array | None],
    dy: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    x, scale, bias = saved
    dy = materialized(dy)  # read by the sums and by dx
    dx = channel_affine(dy, scale, dtype=x.dtype, implementation=name)
    sums = product_sums(dy[None], x[None]) if scale.ndim == 1 else product_sums(dy, x)
    total, product = (part.reshape(scale.shape) for part in sums)
    return dx, product.astype(scale.dtype), None if bias is None else total.astype(bias.dtype)


_affine.defvjp(_forward, _backward)

_REWRITE = dispatch.Implementation("xla_rewrite", _definition)
_XLA = dispatch.Implementation("xla", _definition)
