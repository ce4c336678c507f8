"""Max-pooling with a derivative that needs neither a scatter nor atomics.

    max_pool(x, window) == lax.reduce_window(x, -inf, lax.max, (1, *window, 1), ...)

The forward pass keeps, beside the maximum, which element of its window it was (one byte an
output). The backward pass is then a sum over the elements k of the window of "the gradients whose
index is k, spread out by the stride", which XLA compiles to one fusion that reads the index and
the gradient and writes the result once. XLA's own derivative looks for the maximum a second time
and scatters: on two CPU cores 272 ms against 5 for 8x222x222x32, 2x2, and 204 against 5 for
8x112x112x64, 3x3 with stride 2.

Semantics. Padding never wins, not even against -inf; a window of nothing but padding is -inf and
passes no gradient. Among equal maxima the first in row-major order takes the whole gradient, as in
XLA's select_and_scatter. NaN counts as larger than every number: the first NaN of a window is the
result and takes the gradient (select_and_scatter goes on comparing after a NaN, so that its choice
depends on what follows). Where windows overlap, gradients of half-precision types are summed in
float32, always in the same order.

On a TPU the derivative is XLA's ("xla_scatter"): its TPU compiler does not fuse the interior pads.
For 512x112x112x64, 3x3 with stride 2, on a v5e it writes 7.5 GB of temporaries in nine pads of 18 M
instruction bundles each (compiled with libtpu 0.0.52, never run). "pallas_tpu"
(kernels/pooling_tpu.py) keeps the index there too and executes 11 to 26 percent fewer bundles than
XLA, forward and backward together. No TPU was at hand to time it, and a Pallas kernel stops XLA
from dividing a program over several chips by itself, so nothing chooses it but its name.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap

from kernels import dispatch
from kernels.derivatives import once
from kernels.materialize import materialized
from kernels.windows import Padding, Windows

# Beyond this many elements in a window an unrolled loop over them is no longer reasonable.
_MAX_TAPS = 128


def max_pool(
    x: jax.Array,
    window: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    implementation: str | None = None,
) -> jax.Array:
    """The maximum of each window.

    x: [n, *spatial, c] with one to three spatial axes. stride: the window where None.
    padding: "VALID", "SAME" or a (low, high) pair for each spatial axis.
    implementation: "xla" (definition, XLA's derivative), "xla_index", "xla_scatter" (as "xla", but
    differentiable once), "pallas_tpu" (windows over height and width) or None.
    Returns [n, *outputs, c]. Differentiable once, in reverse ("xla" as often as XLA allows).
    Raises ValueError for a window that does not fit.
    """
    if not 3 <= x.ndim <= 5:
        raise ValueError(f"x has shape {x.shape}: max_pool takes [n, *spatial, c] with 1-3 spatial")
    windows = Windows.of(x.shape, window, window if stride is None else stride, padding)
    name = dispatch.requested(implementation)
    differentiable = jnp.issubdtype(x.dtype, jnp.floating)
    many = math.prod(windows.window) > _MAX_TAPS
    if name == "xla" or (name is None and (many or not differentiable)):
        return dispatch.call("max_pool", [_XLA], "xla", x, windows=windows)
    return _max_pool(windows, name, x)


def _merging(function: Callable[..., Any]) -> Callable[..., Any]:
    """function of arrays [n, ...] such that vmap only makes n larger."""
    run = custom_vmap(function)

    @run.def_vmap
    def rule(size: int, batched: list[bool], *arrays: jax.Array) -> tuple[Any, Any]:
        merged = [
            (a if b else jnp.broadcast_to(a, (size, *a.shape))).reshape(-1, *a.shape[1 + b :])
            for a, b in zip(arrays, batched, strict=True)
        ]
        results = run(*merged)
        split = jax.tree.map(lambda a: a.reshape(size, -1, *a.shape[1:]), results)
        return split, jax.tree.map(lambda _: True, results)

    return run


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _max_pool(windows: Windows, name: str | None, x: jax.Array) -> jax.Array:
    return dispatch.call("max_pool", _VALUE, name, x, windows=windows)


def value_and_index(
    x: jax.Array, windows: Windows, name: str | None = None
) -> tuple[jax.Array, jax.Array]:
    """The maximum of each window and which of its elements, counted in row-major order, it is.

    The index is uint8, or uint16 for large windows, and `nothing` where a window is all padding.
    """

    def run(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return dispatch.call("max_pool", _VALUE_AND_INDEX, name, x, windows=windows)

    return _merging(run)(x)


def gradient_from_index(
    index: jax.Array, dy: jax.Array, windows: Windows, name: str | None = None
) -> jax.Array:
    """The gradient by x, given the index and the gradient dy by the maxima."""

    def run(index: jax.Array, dy: jax.Array) -> jax.Array:
        return dispatch.call("max_pool_dx", _GRADIENT, name, index, dy, windows=windows)

    return _merging(run)(index, dy)


def index_type(windows: Windows) -> jnp.dtype:
    """The type of the index."""
    return jnp.dtype(jnp.uint8 if math.prod(windows.window) < 255 else jnp.uint16)


def nothing(index: jnp.dtype) -> np.ndarray:
    """The index, of this type, of no element at all: no gradient passes."""
    return np.array(jnp.iinfo(index).max, index)


def _forward(
    windows: Windows, name: str | None, x: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    def run(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return dispatch.call("max_pool", _POOL_FORWARD, name, x, windows=windows)

    y, index = once(_merging(run), "max_pool")(x)
    return y, (x, index)


def _backward(
    windows: Windows, name: str | None, residuals: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array]:
    def run(x: jax.Array, index: jax.Array, dy: jax.Array) -> jax.Array:
        return dispatch.call("max_pool_dx", _POOL_BACKWARD, name, x, index, dy, windows=windows)

    return (once(_merging(run), "max_pool")(*residuals, dy),)


_max_pool.defvjp(_forward, _backward)


def _lowest(dtype: jnp.dtype) -> np.ndarray:
    floating = jnp.issubdtype(dtype, jnp.floating)
    return np.array(-np.inf if floating else jnp.iinfo(dtype).min, dtype)


def _reduce_window(x: jax.Array, *, windows: Windows) -> jax.Array:
    return lax.reduce_window(
        x,
        _lowest(x.dtype),
        lax.max,
        (1, *windows.window, 1),
        (1, *windows.stride, 1),
        ((0, 0), *windows.padding, (0, 0)),
    )


def _elements(x: jax.Array, windows: Windows) -> list[jax.Array]:
    """For each element of the window the array [n, *outputs, c] of that element of all windows."""
    padding = [(0, 0, 0), *[(low, high, 0) for low, high in windows.padding], (0, 0, 0)]
    return list(windows.elements(lax.pad(x, _lowest(x.dtype), padding)))


def _inside(tap: tuple[int, ...], windows: Windows) -> np.ndarray:
    """Whether this element of the window lies in the input, not in padding.

    [1, *outputs, 1], or 1 in place of an output along an axis without padding. It is a constant of
    the program: computed by it, XLA starts a kernel on a GPU for each of these small arrays.
    """
    inside = np.ones((1,) * (len(tap) + 2), bool)
    for axis, (offset, size) in enumerate(zip(tap, windows.sizes, strict=True)):
        low, high = windows.padding[axis]
        if low or high:
            place = np.arange(windows.outputs[axis]) * windows.stride[axis] + offset - low
            shape = [1] * inside.ndim
            shape[axis + 1] = -1
            inside = inside & ((place >= 0) & (place < size)).reshape(shape)
    return inside


def _value(x: jax.Array, *, windows: Windows) -> jax.Array:
    return functools.reduce(jnp.maximum, _elements(x, windows))


def find(x: jax.Array, *, windows: Windows) -> tuple[jax.Array, jax.Array]:
    """As `value_and_index`, for callers that change the index before they call `kept`."""
    dtype = index_type(windows)
    elements = _elements(x, windows)
    y = elements[0]
    index = jnp.zeros(y.shape, dtype)
    if windows.padded:
        first = next(windows.taps())
        index = jnp.where(_inside(first, windows), index, nothing(dtype))
    for number, (tap, element) in enumerate(zip(windows.taps(), elements, strict=True)):
        if number == 0:
            continue
        better = ~(element <= y) & (y == y)  # larger, or the first NaN
        if windows.padded:
            better = (better | (index == nothing(dtype))) & _inside(tap, windows)
        index = jnp.where(better, np.array(number, dtype), index)
        y = jnp.where(better, element, y)
    return y, index


def kept(index: jax.Array, windows: Windows) -> jax.Array:
    """index, written once, and not found again at each place where the backward pass reads it."""
    count = math.prod(windows.window)
    return materialized(index, lambda index: jnp.where(index < count, index, nothing(index.dtype)))


def _value_and_index(x: jax.Array, *, windows: Windows) -> tuple[jax.Array, jax.Array]:
    y, index = find(x, windows=windows)
    return y, kept(index, windows)


def _not_on_tpu(array: jax.Array, *rest: jax.Array, windows: Windows) -> str | None:
    from kernels import pooling_tpu  # only here: Pallas is slow to import, and few programs need it

    return pooling_tpu.refuses(array, windows)


def _forward_tpu(x: jax.Array, *, windows: Windows) -> tuple[jax.Array, jax.Array]:
    from kernels import pooling_tpu

    return pooling_tpu.value_and_index(x, windows)


def _gradient_tpu(index: jax.Array, dy: jax.Array, *, windows: Windows) -> jax.Array:
    from kernels import pooling_tpu

    return pooling_tpu.gradient(index, dy, windows)


def _value_alone(x: jax.Array, *, windows: Windows) -> tuple[jax.Array, jax.Array]:
    """The value, and in place of the index what costs nothing: XLA's derivative looks at x."""
    y = _reduce_window(x, windows=windows)
    return y, jnp.zeros(y.shape, index_type(windows))


def _scattered(x: jax.Array, index: jax.Array, dy: jax.Array, *, windows: Windows) -> jax.Array:
    _, pull = jax.vjp(functools.partial(_reduce_window, windows=windows), x)
    return pull(dy)[0]


def _gradient(index: jax.Array, dy: jax.Array, *, windows: Windows) -> jax.Array:
    overlap = any(k > s for k, s in zip(windows.window, windows.stride, strict=True))
    half = dy.dtype.itemsize < 4
    total = None
    for number, spread in enumerate(windows.spread()):
        part = jnp.where(index == number, dy, jnp.zeros((), dy.dtype))
        if overlap and half:
            part = part.astype(jnp.float32)
        part = lax.pad(part, np.zeros((), part.dtype), [(0, 0, 0), *spread, (0, 0, 0)])
        total = part if total is None else total + part
    assert total is not None
    return total.astype(dy.dtype)


def _gradient_in_blocks(index: jax.Array, dy: jax.Array, *, windows: Windows) -> jax.Array:
    """The same for a CPU: where the windows neither overlap nor leave gaps, without pads inside.

    Each place of x belongs to one window, so it compares its number in the window with the index.
    XLA writes the spread-out parts of `_gradient` one by one where the sum has several readers.
    """
    if windows.window != windows.stride:
        return _gradient(index, dy, windows=windows)
    window, outputs = windows.window, windows.outputs
    places = range(2, 2 * len(window) + 1, 2)  # [n, outputs, window, outputs, window, ..., c]
    numbers = np.arange(math.prod(window), dtype=index.dtype)
    shape = [1] * (2 * len(window) + 2)
    for axis, size in zip(places, window, strict=True):
        shape[axis] = size
    chosen = jnp.expand_dims(index, places) == numbers.reshape(shape)
    dx = jnp.where(chosen, jnp.expand_dims(dy, places), jnp.zeros((), dy.dtype))
    covered = [o * k for o, k in zip(outputs, window, strict=True)]
    edges = [
        (-low, size - reach + low, 0)
        for (low, _), size, reach in zip(windows.padding, windows.sizes, covered, strict=True)
    ]
    dx = dx.reshape(dy.shape[0], *covered, dy.shape[-1])
    return lax.pad(dx, np.zeros((), dy.dtype), [(0, 0, 0), *edges, (0, 0, 0)])


_XLA = dispatch.Implementation("xla", _reduce_window)
_TPU = functools.partial(dispatch.Implementation, "pallas_tpu", platforms=(), refuses=_not_on_tpu)
_SCATTER = functools.partial(dispatch.Implementation, "xla_scatter", platforms=("tpu",))
# Without a derivative XLA's window reduction is as good off the CPU; there the unrolled maximum
# takes 0.4 to 0.8 of its time.
_VALUE = (
    dispatch.Implementation("xla_index", _value, platforms=("cpu",)),
    dispatch.Implementation("xla_scatter", _reduce_window, platforms=()),
    _TPU(lambda x, *, windows: _forward_tpu(x, windows=windows)[0]),
    _XLA,
)
_VALUE_AND_INDEX = (_TPU(_forward_tpu), dispatch.Implementation("xla_index", _value_and_index))
_GRADIENT = (
    _TPU(_gradient_tpu, refuses=lambda index, dy, *, windows: _not_on_tpu(dy, windows=windows)),
    dispatch.Implementation("xla_index", _gradient_in_blocks, platforms=("cpu",)),
    dispatch.Implementation("xla_index", _gradient),
)
_POOL_FORWARD = (_TPU(_forward_tpu), _SCATTER(_value_alone), _VALUE_AND_INDEX[-1])
_POOL_BACKWARD = (
    _TPU(lambda x, index, dy, *, windows: _gradient_tpu(index, dy, windows=windows)),
    _SCATTER(_scattered),
    dispatch.Implementation(
        "xla_index",
        lambda x, index, dy, *, windows: _gradient_in_blocks(index, dy, windows=windows),
        platforms=("cpu",),
    ),
    dispatch.Implementation(
        "xla_index", lambda x, index, dy, *, windows: _gradient(index, dy, windows=windows)
    ),
)
