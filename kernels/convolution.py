"""Convolution over 2 or 3 spatial axes, channels last.

    conv(x, w) == lax.conv_general_dilated(x, w, ..., dimension_numbers=("N...C", "...IO", "N...C"))

Rewrites. XLA brings 3D convolutions into its own layout with transposes of whole tensors around
them. A window that is 1 along time is a 2D convolution over n*t frames, one that is 1 along height
and width is a 2D convolution over (t, h*w), and a single element is a matrix product: in this form
("xla_rewrite") no transpose is left.

On a CPU, depthwise convolutions run as sums of shifted products ("xla_shift", kernels/shifted.py).
XLA's fast convolutions there are the dense 2D ones: 3D windows take 1.5 to 5 times as long, their
gradients up to 190 times (3x7x7 over 3 channels, stride (1, 2, 2)), and so do groups. So a 3D
window becomes a sum over its frames, and groups one convolution each ("xla_parts"). Over three
channels, as in the first layer of most networks, the products of matrices are too narrow: a window
of at most 9 elements is written out as products of numbers with rows of w ("xla_few").
Windows 3 wide with stride 1 over 32 channels or more take half the products in the form of Winograd
("xla_winograd", kernels/winograd.py), forward and for the gradient by x; so do the frames of a 3D
window. Its rounding error is three to four times that of a plain sum: 1e-6 of the results in
quadratic mean. A NaN or an infinity in x reaches up to three more columns of y than it would.
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

from kernels import dispatch
from kernels.convolution_forms import BOTH, DW, DX, FORWARD, XLA, Problem
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
    "xla_shift" (depthwise only), "xla_parts" (3D windows and groups), "xla_few" (small windows over
    few channels; its gradients are those of "xla_rewrite"), "xla_winograd" (float32, windows over
    height and width, 3 wide, stride 1), "pallas_gpu" (depthwise 3x3x3 only,
    differentiable once), "pallas_tpu" (depthwise only) or None.
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
    problem = Problem(windows, groups, dispatch.requested(implementation), x.shape, w.shape)
    if problem.name == "xla":
        return dispatch.call("conv", [XLA], "xla", x, w, problem=problem)
    return _conv(problem, x, w)


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


def _many_weights(problem: Problem, size: int, x: jax.Array, w: jax.Array) -> jax.Array:
    """vmap over w alone: [size, *window, c, o] is one convolution with size * o outputs."""
    wide = jnp.moveaxis(w, 0, -2)
    y = _conv_of(dataclasses.replace(problem, w_shape=(*w.shape[1:-1], size * w.shape[-1])))(
        x, wide.reshape(*w.shape[1:-1], -1)
    )
    return jnp.moveaxis(y.reshape(*y.shape[:-1], size, -1), -2, 0)


@functools.cache
def _conv_of(problem: Problem) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """conv(x, w) of one problem with its batching rule."""

    def plain(x: jax.Array, w: jax.Array) -> jax.Array:
        return dispatch.call("conv", FORWARD, problem.name, x, w, problem=problem)

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
def _dx_of(problem: Problem) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The gradient by x as a function of (dy, w), with its batching rule."""

    def plain(dy: jax.Array, w: jax.Array) -> jax.Array:
        return dispatch.call("conv_dx", DX, problem.name, dy, w, problem=problem)

    run = custom_vmap(plain)

    @run.def_vmap
    def rule(size: int, batched: list[bool], dy: jax.Array, w: jax.Array) -> tuple[jax.Array, bool]:
        if not batched[1]:
            return _split(run(_merge(dy), w), size), True
        return _loop(run, plain, size, batched, dy, w), True

    return run


@functools.cache
def _dw_of(problem: Problem) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The gradient by w as a function of (x, dy), with its batching rule."""

    def plain(x: jax.Array, dy: jax.Array) -> jax.Array:
        return dispatch.call("conv_dw", DW, problem.name, x, dy, problem=problem)

    run = custom_vmap(plain)

    @run.def_vmap
    def rule(size: int, batched: list[bool], x: jax.Array, dy: jax.Array) -> tuple[jax.Array, bool]:
        return _loop(run, plain, size, batched, x, dy), True

    return run


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv(problem: Problem, x: jax.Array, w: jax.Array) -> jax.Array:
    return _conv_of(problem)(x, w)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _dx(problem: Problem, dy: jax.Array, w: jax.Array) -> jax.Array:
    return _dx_of(problem)(dy, w)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _dw(problem: Problem, x: jax.Array, dy: jax.Array) -> jax.Array:
    return _dw_of(problem)(x, dy)


def _keep(function: Callable[..., Any]) -> Callable[..., Any]:
    """The forward rule of a bilinear function: both arguments are kept."""
    return lambda problem, a, b: (function(problem, a, b), (a, b))


def _conv_backward(
    problem: Problem, saved: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, w = saved
    if problem.name == "pallas_gpu":
        return _both(problem, x, w, dy)
    return _dx(problem, dy, w), _dw(problem, x, dy)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _both(
    problem: Problem, x: jax.Array, w: jax.Array, dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Both gradients from the one pass of "pallas_gpu"; vmap calls it one after the other."""

    def plain(x: jax.Array, w: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
        return dispatch.call("conv_gradients", BOTH, problem.name, x, w, dy, problem=problem)

    run = custom_vmap(plain)

    @run.def_vmap
    def rule(size: int, batched: list[bool], *arrays: jax.Array) -> tuple[Any, Any]:
        full = [
            a if b else jnp.broadcast_to(a, (size, *a.shape))
            for a, b in zip(arrays, batched, strict=True)
        ]
        return lax.map(lambda parts: run(*parts), tuple(full)), (True, True)

    return run(x, w, dy)


def _twice(problem: Problem, saved: None, d: Any) -> Any:
    raise NotImplementedError(
        "conv is differentiable once as 'pallas_gpu': use 'xla_rewrite' for higher derivatives"
    )


_both.defvjp(lambda p, x, w, dy: (_both(p, x, w, dy), None), _twice)
_conv.defvjp(_keep(_conv), _conv_backward)
_dx.defvjp(_keep(_dx), lambda p, saved, x: (_conv(p, x, saved[1]), _dw(p, x, saved[0])))
_dw.defvjp(_keep(_dw), lambda p, saved, w: (_dx(p, saved[1], w), _conv(p, saved[0], w)))
