"""Sums over everything but the channels: batch statistics, squeeze-excite, bias gradients.

    channel_sums(x) == (x.sum(axes), (x * x).sum(axes)), axes: all but the last

    product_sums(a, b) == (a.sum(spatial), (a * b).sum(spatial))

Both sums come from one pass, in float32. On a CPU, XLA walks down the array once for each
channel; "xla_rows" adds whole rows of (width, channel) places in a loop and folds the width at the
end: 5 ms in place of 31 for one sum over 16x222x222x32 on two cores. Elsewhere XLA's reduction is
the choice.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from kernels import dispatch

# A row has at least this many numbers, and a step of the loop takes this many rows.
_ROW, _ROWS = 1024, 8


def channel_sums(x: jax.Array, *, implementation: str | None = None) -> tuple[jax.Array, jax.Array]:
    """The sum of x and of its square for each channel.

    x: [..., c]. implementation: "xla" (definition), "xla_rows" or None.
    Returns two float32 [c] (float64 for float64). Differentiable in reverse, any number of times.
    """
    return _channel_sums(dispatch.requested(implementation), x)


def spatial_sum(x: jax.Array, *, implementation: str | None = None) -> jax.Array:
    """The sum over the spatial axes of each example, for global average pooling and squeeze-excite.

    x: [n, *spatial, c]. implementation: as above. Returns float32 [n, c].
    """
    return _spatial_sum(dispatch.requested(implementation), x.shape[1:-1], x)


def product_sums(
    a: jax.Array, b: jax.Array, *, implementation: str | None = None
) -> tuple[jax.Array, jax.Array]:
    """The sums of a and of a * b over the spatial axes of each example.

    a, b: [n, *spatial, c]. implementation: as above. Returns two float32 [n, c] (float64 for
    float64): with a = dy and b = x the gradients of bias and scale. Differentiable in reverse, any
    number of times.
    """
    return _product_sums(dispatch.requested(implementation), a, b)


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _terms(squares: bool, a: jax.Array, *b: jax.Array) -> tuple[jax.Array, ...]:
    """What is summed: a, and with it a * b where there is a b, or its square where wanted."""
    a = _wide(a)
    if b:
        return a, a * _wide(b[0])
    return (a, a * a) if squares else (a,)


def _sums(*arrays: jax.Array, squares: bool) -> tuple[jax.Array, ...]:
    """Terms of [n, *spatial, c] to sums [n, c]: the definition."""
    axes = tuple(range(1, arrays[0].ndim - 1))
    return tuple(term.sum(axes) for term in _terms(squares, *arrays))


def _row_sums(*arrays: jax.Array, squares: bool) -> tuple[jax.Array, ...]:
    """The same in a loop over rows."""
    n, *spatial, c = arrays[0].shape
    width = 1
    while spatial and width * c < _ROW:
        width *= spatial.pop()
    count = math.prod(spatial)
    rows = [a.reshape(n, count, width * c) for a in arrays]

    def add(sums: tuple[jax.Array, ...], number: jax.Array | int) -> tuple[jax.Array, ...]:
        parts = [lax.dynamic_slice_in_dim(a, number, 1, axis=1)[:, 0] for a in rows]
        return tuple(s + term for s, term in zip(sums, _terms(squares, *parts), strict=True))

    def step(number: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        for r in range(_ROWS):
            sums = add(sums, number * _ROWS + r)
        return sums

    wide = jnp.promote_types(arrays[0].dtype, jnp.float32)
    empty = (jnp.zeros((n, width * c), wide),) * (2 if squares or len(arrays) == 2 else 1)
    sums = lax.fori_loop(0, count // _ROWS, step, empty)
    for number in range(count // _ROWS * _ROWS, count):
        sums = add(sums, number)
    return tuple(s.reshape(n, width, c).sum(1) for s in sums)


_IMPLEMENTATIONS = (
    dispatch.Implementation("xla_rows", _row_sums, platforms=("cpu",)),
    dispatch.Implementation("xla", _sums),
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _channel_sums(name: str | None, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    sums = dispatch.call("channel_sums", _IMPLEMENTATIONS, name, x[None], squares=True)
    return sums[0][0], sums[1][0]


def _channel_sums_backward(
    name: str | None, x: jax.Array, d: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array]:
    return ((d[0] + 2 * _wide(x) * d[1]).astype(x.dtype),)


_channel_sums.defvjp(lambda name, x: (_channel_sums(name, x), x), _channel_sums_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _spatial_sum(name: str | None, spatial: tuple[int, ...], x: jax.Array) -> jax.Array:
    return dispatch.call("spatial_sum", _IMPLEMENTATIONS, name, x, squares=False)[0]


def _spatial_sum_backward(
    name: str | None, spatial: tuple[int, ...], like: jax.Array, d: jax.Array
) -> tuple[jax.Array]:
    n, c = d.shape
    d = d.reshape(n, *(1,) * len(spatial), c).astype(like.dtype)
    return (jnp.broadcast_to(d, (n, *spatial, c)),)


_spatial_sum.defvjp(
    lambda name, spatial, x: (_spatial_sum(name, spatial, x), jnp.zeros((), x.dtype)),
    _spatial_sum_backward,
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product_sums(name: str | None, a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    return dispatch.call("product_sums", _IMPLEMENTATIONS, name, a, b, squares=False)


def _product_sums_backward(
    name: str | None, arrays: tuple[jax.Array, jax.Array], d: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    a, b = arrays
    total, product = (part.reshape(part.shape[0], *(1,) * (a.ndim - 2), -1) for part in d)
    by_a = total + product * _wide(b)
    return by_a.astype(a.dtype), (product * _wide(a)).astype(b.dtype)


_product_sums.defvjp(lambda name, a, b: (_product_sums(name, a, b), (a, b)), _product_sums_backward)


def bias_gradient(dy: jax.Array) -> jax.Array:
    """The sum of dy [..., c] for each channel, [c] in the type of dy: a bias's gradient."""
    (db,) = dispatch.call(
        "bias_gradient", _IMPLEMENTATIONS, dispatch.requested(None), dy[None], squares=False
    )
    return db[0].astype(dy.dtype)
