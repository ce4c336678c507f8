"""Convolution over 2 or 3 spatial axes, channels last.

    conv(x, w) == lax.conv_general_dilated(x, w, ..., dimension_numbers=("N...C", "...IO", "N...C"))

Rewrites. XLA brings 3D convolutions into its own layout with transposes of whole tensors around
them. A window that is 1 along time is a 2D convolution over n*t frames, one that is 1 along height
and width is a 2D convolution over (t, h*w), and a single element is a matrix product: in this form
("xla_rewrite") no transpose is left.

On a CPU, depthwise convolutions run as sums of shifted products ("xla_shift", kernels/shifted.py).
XLA's fast convolutions there are the dense 2D ones: 3D windows take 1.5 to 5 times as long, their
gradients up to 190 times (3x7x7 over 3 channels, stride (1, 2, 2)), and so do groups. So a 3D
window becomes a sum over its frames, and groups one convolution each ("xla_parts").
"pallas_gpu" (kernels/depthwise_gpu.py) is a kernel for depthwise 3x3x3 that has both gradients from
one pass. No GPU was at hand to time it, so nothing chooses it but its name.
"pallas_tpu" (kernels/depthwise_tpu.py) is one for TPUs, likewise by name only.

Derivatives. With T(x, w, dy) = <dy, conv(x, w)>, the convolution, its gradient by x and its
gradient by w are each the derivative of T by one argument, and the derivatives of any of them are
the other two. So the three functions below are differentiable in reverse as often as wanted.

Batching. vmap of XLA's convolution over the weights gives a grouped convolution with transposes.
Here vmap over x alone makes a larger batch, over w alone more output channels, and over both one
call after the other.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from kernels import dispatch, parts, shifted
from kernels.materialize import materialized
from kernels.windows import Padding, Windows

# Calls under vmap that are written out one after the other on a CPU.
WRITTEN_OUT = 64


def conv(
    x: jax.Array,
    w: jax.Array,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    implementation: str | None = None,
) -> jax.Array:
    """Cross-correlation of x with the weights w, in the type of x.

    x: [n, *spatial, c], 2 or 3 spatial axes. w: [*window, c / groups, o], same type as x.
    stride, dilation: one integer or one for each spatial axis.
    padding: "VALID", "SAME" or a (low, high) pair for each spatial axis; padded with zeros.
    implementation: "xla" (definition, XLA's derivatives and batching), "xla_rewrite",
    "xla_shift" (depthwise only), "xla_parts" (3D windows and groups), "pallas_gpu" (depthwise
    3x3x3 only, differentiable once), "pallas_tpu" (depthwise only) or None.
    Returns [n, *outputs, o]. Raises ValueError where the shapes or types do not fit together.
    """
    if x.ndim not in (4, 5) or w.ndim != x.ndim:
        raise ValueError(
            f"x has shape {x.shape} and w {w.shape}: "
            "conv takes [n, *spatial, c] and [*window, c / groups, o] with 2 or 3 spatial axes"
        )
    if w.shape[-2] * groups != x.shape[-1] or w.shape[-1] % groups:
        raise ValueError(
            f"x has {x.shape[-1]} channels, w has shape {w.shape} and groups is {groups}: "
            "w needs c / groups inputs and a multiple of groups outputs"
        )
    if x.dtype != w.dtype:
        raise ValueError(f"x is {x.dtype} and w is {w.dtype}: convert one of them")
    windows = Windows.of(x.shape, w.shape[:-2], stride, padding, dilation)
    problem = _Problem(windows, groups, dispatch.requested(implementation), x.shape, w.shape)
    if problem.name == "xla":
        return dispatch.call("conv", [_XLA], "xla", x, w, problem=problem)
    return _conv(problem, x, w)


@dataclasses.dataclass(frozen=True)
class _Problem:
    """All that is fixed about one convolution; name: the implementation asked for."""

    windows: Windows
    groups: int
    name: str | None
    x_shape: tuple[int, ...]
    w_shape: tuple[int, ...]


def _definition(x: jax.Array, w: jax.Array, *, problem: _Problem) -> jax.Array:
    return parts.plain(x, w, problem.windows, problem.groups)


def _sampled(x: jax.Array, windows: Windows) -> tuple[jax.Array, Windows]:
    """x and the windows over it, where an axis along which the window is 1 is only sampled."""
    step = [s if quiet else 1 for s, quiet in zip(windows.stride, windows.still, strict=True)]
    if max(step) == 1:
        return x, windows
    x = lax.slice(x, (0,) * x.ndim, x.shape, (1, *step, 1))
    stride = tuple(1 if q else s for s, q in zip(windows.stride, windows.still, strict=True))
    return x, dataclasses.replace(windows, sizes=x.shape[1:-1], stride=stride)


def _rewritten(x: jax.Array, w: jax.Array, *, problem: _Problem) -> jax.Array:
    """The same convolution with as few spatial axes as possible."""
    windows, groups = problem.windows, problem.groups
    n, *_, c = x.shape
    x, windows = _sampled(x, windows)
    still = windows.still
    outputs = (n, *windows.outputs, w.shape[-1])
    if all(still) and groups == 1:
        return jnp.dot(x, w.reshape(w.shape[-2:])).reshape(outputs)
    if x.ndim == 5 and still[0]:
        frames = x.reshape(-1, *x.shape[2:])
        return parts.plain(frames, w[0], windows.along((1, 2)), groups).reshape(outputs)
    if x.ndim == 5 and still[1] and still[2]:
        time = x.reshape(n, x.shape[1], -1, c)
        flat = dataclasses.replace(windows.along((0, 1)), sizes=time.shape[1:3])
        return parts.plain(time, w[:, :, 0], flat, groups).reshape(outputs)
    return parts.plain(x, w, windows, groups)


def _on_gpu(x: jax.Array, w: jax.Array, *, problem: _Problem) -> jax.Array:
    from kernels import depthwise_gpu  # only here: it takes 0.3 s to import Pallas

    return depthwise_gpu.forward(x, w[..., 0, :])


def _both_on_gpu(
    x: jax.Array, w: jax.Array, dy: jax.Array, *, problem: _Problem
) -> tuple[jax.Array, jax.Array]:
    from kernels import depthwise_gpu

    dx, dw = depthwise_gpu.backward(x, w[..., 0, :], dy)
    return dx, dw[..., None, :]


def _not_on_gpu(x: jax.Array, w: jax.Array, *, problem: _Problem) -> str | None:
    if problem.name != "pallas_gpu":
        return "which must be named"
    from kernels import depthwise_gpu

    reason = _not_depthwise(x, w, problem=problem)
    return reason or depthwise_gpu.refusal(problem.windows, problem.x_shape, x.dtype)


def _not_depthwise(*arrays: jax.Array, problem: _Problem) -> str | None:
    if problem.w_shape[-2] == 1 and problem.w_shape[-1] == problem.groups > 1:
        return None
    return "which needs as many groups as input and output channels"


def _not_on_tpu(*arrays: jax.Array, problem: _Problem) -> str | None:
    reason = _not_depthwise(*arrays, problem=problem)
    if reason is None:
        from kernels import depthwise_tpu  # Pallas is slow to import, and few programs need it

        reason = depthwise_tpu.refuses(arrays[0], problem.windows)
    return reason


def _forward_tpu(x: jax.Array, w: jax.Array, *, problem: _Problem) -> jax.Array:
    from kernels import depthwise_tpu

    return depthwise_tpu.forward(x, w[..., 0, :], problem.windows)


def _dx_tpu(dy: jax.Array, w: jax.Array, *, problem: _Problem) -> jax.Array:
    from kernels import depthwise_tpu

    return depthwise_tpu.gradient_x(dy, w[..., 0, :], problem.windows)


def _dw_tpu(x: jax.Array, dy: jax.Array, *, problem: _Problem) -> jax.Array:
    from kernels import depthwise_tpu

    return depthwise_tpu.gradient_w(x, dy, problem.windows)[..., None, :]


def _rewritten_dx(dy: jax.Array, w: jax.Array, *, problem: _Problem) -> jax.Array:
    x = jax.ShapeDtypeStruct((dy.shape[0], *problem.x_shape[1:]), dy.dtype)
    return jax.linear_transpose(lambda x: _rewritten(x, w, problem=problem), x)(dy)[0]


def _rewritten_dw(x: jax.Array, dy: jax.Array, *, problem: _Problem) -> jax.Array:
    w = jax.ShapeDtypeStruct(problem.w_shape, dy.dtype)
    return jax.linear_transpose(lambda w: _rewritten(x, w, problem=problem), w)(dy)[0]


def _product_dw(x: jax.Array, dy: jax.Array, *, problem: _Problem) -> jax.Array:
    """The same where the convolution is a matrix product, for a CPU.

    XLA's derivative of the product is a transposed one, for which it brings dy into another order,
    together with all that produced dy.
    """
    x, dy = materialized(_sampled(x, problem.windows)[0]), materialized(dy)
    x, dy = (a.reshape(-1, a.shape[-1]) for a in (x, dy))
    return lax.dot_general(x, dy, (((0,), (0,)), ((), ()))).reshape(problem.w_shape)


def _rewritten_dw_apart(x: jax.Array, dy: jax.Array, *, problem: _Problem) -> jax.Array:
    """The same for a CPU, where XLA transposes x for this product.

    Left alone, XLA computes what produced x once more inside the transpose, element by element in
    an order in which it is many times slower.
    """
    if all(problem.windows.still) and problem.groups == 1:
        return _product_dw(x, dy, problem=problem)
    return _rewritten_dw(materialized(x), dy, problem=problem)


def _shifted(x: jax.Array, w: jax.Array, *, problem: _Problem) -> jax.Array:
    """The sum of shifted products, written once: batch statistics, squeeze-excite and a product
    would each compute it anew, in the order of their own shapes."""
    return materialized(shifted.forward(x, w[..., 0, :], problem.windows))


def _not_taken_apart(*arrays: jax.Array, problem: _Problem) -> str | None:
    return parts.refusal(problem.windows, problem.groups)


def _parts_dx(dy: jax.Array, w: jax.Array, *, problem: _Problem) -> jax.Array:
    x = jax.ShapeDtypeStruct((dy.shape[0], *problem.x_shape[1:]), dy.dtype)
    return jax.linear_transpose(lambda x: parts.forward(x, w, problem.windows, problem.groups), x)(
        dy
    )[0]


def _parts_dw(x: jax.Array, dy: jax.Array, *, problem: _Problem) -> jax.Array:
    w = jax.ShapeDtypeStruct(problem.w_shape, dy.dtype)
    x, dy = materialized(x), materialized(dy)  # each part reads both
    return jax.linear_transpose(lambda w: parts.forward(x, w, problem.windows, problem.groups), w)(
        dy
    )[0]


def _merge(a: jax.Array) -> jax.Array:
    return a.reshape(-1, *a.shape[2:])


def _split(a: jax.Array, size: int) -> jax.Array:
    return a.reshape(size, -1, *a.shape[1:])


def _loop(
    run: Callable[..., Any],
    plain: Callable[..., Any],
    size: int,
    batched: list[bool],
    *arrays: jax.Array,
) -> jax.Array:
    """vmap as `size` calls one after the other.

    On a CPU they are written out: inside a loop XLA does not use its fast convolutions. Beyond 64
    the program would become too long, and XLA's own batching takes over.
    run has the batching rule that calls this, plain has none.
    """

    def one(parts: list[jax.Array], call: Callable[..., Any] = run) -> jax.Array:
        queue = iter(parts)
        return call(*(next(queue) if b else a for a, b in zip(arrays, batched, strict=True)))

    def written_out(*parts: jax.Array) -> jax.Array:
        return jnp.stack([one([part[number] for part in parts]) for number in range(size)])

    def by_xla(*parts: jax.Array) -> jax.Array:
        return jax.vmap(lambda *parts: one(list(parts), plain))(*parts)

    def looped(*parts: jax.Array) -> jax.Array:
        return lax.map(one, list(parts))

    mapped = [a for a, b in zip(arrays, batched, strict=True) if b]
    on_cpu = written_out if size <= WRITTEN_OUT else by_xla
    return lax.platform_dependent(*mapped, cpu=on_cpu, default=looped)


def _many_weights(problem: _Problem, size: int, x: jax.Array, w: jax.Array) -> jax.Array:
    """vmap over w alone: [size, *window, c, o] is one convolution with size * o outputs."""
    wide = jnp.moveaxis(w, 0, -2)
    y = _conv_of(dataclasses.replace(problem, w_shape=(*w.shape[1:-1], size * w.shape[-1])))(
        x, wide.reshape(*w.shape[1:-1], -1)
    )
    return jnp.moveaxis(y.reshape(*y.shape[:-1], size, -1), -2, 0)


@functools.cache
def _conv_of(problem: _Problem) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """conv(x, w) of one problem with its batching rule."""

    def plain(x: jax.Array, w: jax.Array) -> jax.Array:
        return dispatch.call("conv", _FORWARD, problem.name, x, w, problem=problem)

    run = custom_vmap(plain)

    @run.def_vmap
    def rule(size: int, batched: list[bool], x: jax.Array, w: jax.Array) -> tuple[jax.Array, bool]:
        if not batched[1]:
            return _split(run(_merge(x), w), size), True
        if not batched[0] and problem.groups == 1:
            return _many_weights(problem, size, x, w), True
        return _loop(run, plain, size, batched, x, w), True

    return run


@functools.cache
def _dx_of(problem: _Problem) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The gradient by x as a function of (dy, w), with its batching rule."""

    def plain(dy: jax.Array, w: jax.Array) -> jax.Array:
        return dispatch.call("conv_dx", _DX, problem.name, dy, w, problem=problem)

    run = custom_vmap(plain)

    @run.def_vmap
    def rule(size: int, batched: list[bool], dy: jax.Array, w: jax.Array) -> tuple[jax.Array, bool]:
        if not batched[1]:
            return _split(run(_merge(dy), w), size), True
        return _loop(run, plain, size, batched, dy, w), True

    return run


@functools.cache
def _dw_of(problem: _Problem) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The gradient by w as a function of (x, dy), with its batching rule."""

    def plain(x: jax.Array, dy: jax.Array) -> jax.Array:
        return dispatch.call("conv_dw", _DW, problem.name, x, dy, problem=problem)

    run = custom_vmap(plain)

    @run.def_vmap
    def rule(size: int, batched: list[bool], x: jax.Array, dy: jax.Array) -> tuple[jax.Array, bool]:
        return _loop(run, plain, size, batched, x, dy), True

    return run


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv(problem: _Problem, x: jax.Array, w: jax.Array) -> jax.Array:
    return _conv_of(problem)(x, w)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _dx(problem: _Problem, dy: jax.Array, w: jax.Array) -> jax.Array:
    return _dx_of(problem)(dy, w)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _dw(problem: _Problem, x: jax.Array, dy: jax.Array) -> jax.Array:
    return _dw_of(problem)(x, dy)


def _keep(function: Callable[..., Any]) -> Callable[..., Any]:
    """The forward rule of a bilinear function: both arguments are kept."""
    return lambda problem, a, b: (function(problem, a, b), (a, b))


def _conv_backward(
    problem: _Problem, saved: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, w = saved
    if problem.name == "pallas_gpu":
        return _both(problem, x, w, dy)
    return _dx(problem, dy, w), _dw(problem, x, dy)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _both(
    problem: _Problem, x: jax.Array, w: jax.Array, dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Both gradients from the one pass of "pallas_gpu"; vmap calls it one after the other."""

    def plain(x: jax.Array, w: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
        return dispatch.call("conv_gradients", _BOTH, problem.name, x, w, dy, problem=problem)

    run = custom_vmap(plain)

    @run.def_vmap
    def rule(size: int, batched: list[bool], *arrays: jax.Array) -> tuple[Any, Any]:
        full = [
            a if b else jnp.broadcast_to(a, (size, *a.shape))
            for a, b in zip(arrays, batched, strict=True)
        ]
        return lax.map(lambda parts: run(*parts), tuple(full)), (True, True)

    return run(x, w, dy)


def _twice(problem: _Problem, saved: None, d: Any) -> Any:
    raise NotImplementedError(
        "conv is differentiable once as 'pallas_gpu': use 'xla_rewrite' for higher derivatives"
    )


_both.defvjp(lambda p, x, w, dy: (_both(p, x, w, dy), None), _twice)
_conv.defvjp(_keep(_conv), _conv_backward)
_dx.defvjp(_keep(_dx), lambda p, saved, x: (_conv(p, x, saved[1]), _dw(p, x, saved[0])))
_dw.defvjp(_keep(_dw), lambda p, saved, w: (_dx(p, saved[1], w), _conv(p, saved[0], w)))

_XLA = dispatch.Implementation("xla", _definition)
_SHIFT = functools.partial(
    dispatch.Implementation, "xla_shift", platforms=("cpu",), refuses=_not_depthwise
)
_PARTS = functools.partial(
    dispatch.Implementation, "xla_parts", platforms=("cpu",), refuses=_not_taken_apart
)
# By name only: it executes more instruction bundles than XLA's convolution, and no TPU was at hand.
_TPU = functools.partial(dispatch.Implementation, "pallas_tpu", platforms=(), refuses=_not_on_tpu)
_FORWARD = (
    dispatch.Implementation("pallas_gpu", _on_gpu, platforms=(), refuses=_not_on_gpu),
    _TPU(_forward_tpu),
    _SHIFT(_shifted),
    _PARTS(lambda x, w, *, problem: parts.forward(x, w, problem.windows, problem.groups)),
    dispatch.Implementation("xla_rewrite", _rewritten),
    _XLA,
)
_DX = (
    _TPU(_dx_tpu),
    _SHIFT(lambda dy, w, *, problem: shifted.gradient_x(dy, w[..., 0, :], problem.windows)),
    _PARTS(_parts_dx),
    dispatch.Implementation("xla_rewrite", _rewritten_dx),
)
_DW = (
    _TPU(_dw_tpu),
    _SHIFT(lambda x, dy, *, problem: shifted.gradient_w(x, dy, problem.windows)[..., None, :]),
    _PARTS(_parts_dw),
    dispatch.Implementation("xla_rewrite", _rewritten_dw_apart, platforms=("cpu",)),
    dispatch.Implementation("xla_rewrite", _rewritten_dw),
)
_BOTH = (dispatch.Implementation("pallas_gpu", _both_on_gpu, platforms=()),)
