"""How a convolution and its two gradients are computed: the implementations that `conv` lists.

Each function takes two of x [n, *spatial, c], w [*window, c / groups, o] and dy [n, *outputs, o]
and gives the third. What they are for and when they are chosen is told in kernels/convolution.py.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from kernels import dispatch, parts, shifted, winograd
from kernels.materialize import materialized
from kernels.windows import Windows


@dataclasses.dataclass(frozen=True)
class Problem:
    """All that is fixed about one convolution; name: the implementation asked for."""

    windows: Windows
    groups: int
    name: str | None
    x_shape: tuple[int, ...]
    w_shape: tuple[int, ...]


def _definition(x: jax.Array, w: jax.Array, *, problem: Problem) -> jax.Array:
    return parts.plain(x, w, problem.windows, problem.groups)


def _sampled(x: jax.Array, windows: Windows) -> tuple[jax.Array, Windows]:
    """x and the windows over it, where an axis along which the window is 1 is only sampled."""
    step = [s if quiet else 1 for s, quiet in zip(windows.stride, windows.still, strict=True)]
    if max(step) == 1:
        return x, windows
    x = lax.slice(x, (0,) * x.ndim, x.shape, (1, *step, 1))
    stride = tuple(1 if q else s for s, q in zip(windows.stride, windows.still, strict=True))
    return x, dataclasses.replace(windows, sizes=x.shape[1:-1], stride=stride)


def _rewritten(x: jax.Array, w: jax.Array, *, problem: Problem) -> jax.Array:
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


def _on_gpu(x: jax.Array, w: jax.Array, *, problem: Problem) -> jax.Array:
    from kernels import depthwise_gpu  # only here: it takes 0.3 s to import Pallas

    return depthwise_gpu.forward(x, w[..., 0, :])


def _both_on_gpu(
    x: jax.Array, w: jax.Array, dy: jax.Array, *, problem: Problem
) -> tuple[jax.Array, jax.Array]:
    from kernels import depthwise_gpu

    dx, dw = depthwise_gpu.backward(x, w[..., 0, :], dy)
    return dx, dw[..., None, :]


def _not_on_gpu(x: jax.Array, w: jax.Array, *, problem: Problem) -> str | None:
    if problem.name != "pallas_gpu":
        return "which must be named"
    from kernels import depthwise_gpu

    reason = _not_depthwise(x, w, problem=problem)
    return reason or depthwise_gpu.refusal(problem.windows, problem.x_shape, x.dtype)


def _not_depthwise(*arrays: jax.Array, problem: Problem) -> str | None:
    if problem.w_shape[-2] == 1 and problem.w_shape[-1] == problem.groups > 1:
        return None
    return "which needs as many groups as input and output channels"


def _not_on_tpu(*arrays: jax.Array, problem: Problem) -> str | None:
    reason = _not_depthwise(*arrays, problem=problem)
    if reason is None:
        from kernels import depthwise_tpu  # Pallas is slow to import, and few programs need it

        reason = depthwise_tpu.refuses(arrays[0], problem.windows)
    return reason


def _forward_tpu(x: jax.Array, w: jax.Array, *, problem: Problem) -> jax.Array:
    from kernels import depthwise_tpu

    return depthwise_tpu.forward(x, w[..., 0, :], problem.windows)


def _dx_tpu(dy: jax.Array, w: jax.Array, *, problem: Problem) -> jax.Array:
    from kernels import depthwise_tpu

    return depthwise_tpu.gradient_x(dy, w[..., 0, :], problem.windows)


def _dw_tpu(x: jax.Array, dy: jax.Array, *, problem: Problem) -> jax.Array:
    from kernels import depthwise_tpu

    return depthwise_tpu.gradient_w(x, dy, problem.windows)[..., None, :]


def _rewritten_dx(dy: jax.Array, w: jax.Array, *, problem: Problem) -> jax.Array:
    x = jax.ShapeDtypeStruct((dy.shape[0], *problem.x_shape[1:]), dy.dtype)
    return jax.linear_transpose(lambda x: _rewritten(x, w, problem=problem), x)(dy)[0]


def _rewritten_dw(x: jax.Array, dy: jax.Array, *, problem: Problem) -> jax.Array:
    w = jax.ShapeDtypeStruct(problem.w_shape, dy.dtype)
    return jax.linear_transpose(lambda w: _rewritten(x, w, problem=problem), w)(dy)[0]


def _product_dw(x: jax.Array, dy: jax.Array, *, problem: Problem) -> jax.Array:
    """The same where the convolution is a matrix product, for a CPU.

    XLA's derivative of the product is a transposed one, for which it brings dy into another order,
    together with all that produced dy.
    """
    x, dy = materialized(_sampled(x, problem.windows)[0]), materialized(dy)
    x, dy = (a.reshape(-1, a.shape[-1]) for a in (x, dy))
    return lax.dot_general(x, dy, (((0,), (0,)), ((), ()))).reshape(problem.w_shape)


def _rewritten_dw_apart(x: jax.Array, dy: jax.Array, *, problem: Problem) -> jax.Array:
    """The same for a CPU, where XLA transposes x for this product.

    Left alone, XLA computes what produced x once more inside the transpose, element by element in
    an order in which it is many times slower.
    """
    if all(problem.windows.still) and problem.groups == 1:
        return _product_dw(x, dy, problem=problem)
    return _rewritten_dw(materialized(x), dy, problem=problem)


def _shifted(x: jax.Array, w: jax.Array, *, problem: Problem) -> jax.Array:
    """The sum of shifted products, written once: batch statistics, squeeze-excite and a product
    would each compute it anew, in the order of their own shapes."""
    return materialized(shifted.forward(x, w[..., 0, :], problem.windows))


def _not_few(*arrays: jax.Array, problem: Problem) -> str | None:
    *window, channels, _ = problem.w_shape
    if problem.groups == 1 < math.prod(window) and channels <= 3 and math.prod(window) <= 9:
        return None
    return "which needs a window of 2 to 9 elements over at most 3 channels, and no groups"


def _few(x: jax.Array, w: jax.Array, *, problem: Problem) -> jax.Array:
    """A sum of products, written once, as `_shifted`."""
    return materialized(shifted.dense_forward(x, w, problem.windows))


def _not_winograd(*arrays: jax.Array, problem: Problem) -> str | None:
    windows, a = problem.windows, arrays[0]
    over_time = len(windows.window) == 3 and not (windows.still[0] and windows.stride[0] == 1)
    if problem.groups > 1 or over_time:
        return "which needs a window over height and width, and no groups"
    if problem.name is None:
        inputs, outputs = problem.w_shape[-2:]
        frames = math.prod(a.shape[:-3])
        if not winograd.gains(frames, windows.along((-2, -1)), inputs, outputs):
            return "which does not gain from few channels or places"
    return winograd.refusal(windows.along((-2, -1)), a.dtype)


def _frames(a: jax.Array) -> jax.Array:
    """[n, h, w, c] or [n, t, h, w, c] to [frames, h, w, c]."""
    return a.reshape(-1, *a.shape[-3:])


def _winograd(x: jax.Array, w: jax.Array, *, problem: Problem) -> jax.Array:
    y = winograd.forward(_frames(x), w.reshape(w.shape[-4:]), problem.windows.padding[-2:])
    return y.reshape(*x.shape[:-3], *y.shape[1:])


def _winograd_dx(dy: jax.Array, w: jax.Array, *, problem: Problem) -> jax.Array:
    dx = winograd.gradient_x(_frames(dy), w.reshape(w.shape[-4:]), problem.windows.padding[-2:])
    return dx.reshape(*dy.shape[:-3], *dx.shape[1:])


def _not_taken_apart(*arrays: jax.Array, problem: Problem) -> str | None:
    return parts.refusal(problem.windows, problem.groups)


def _parts_dx(dy: jax.Array, w: jax.Array, *, problem: Problem) -> jax.Array:
    windows = problem.windows
    fits = all(max(pads) < k for k, pads in zip(windows.window, windows.padding, strict=True))
    if problem.groups == max(windows.stride) == max(windows.dilation) == 1 and fits:
        # The forward pass over dy with w turned around.
        axes = range(len(windows.window))
        around = [
            (k - 1 - low, k - 1 - high)
            for k, (low, high) in zip(windows.window, windows.padding, strict=True)
        ]
        over = Windows.of(dy.shape, windows.window, 1, around)
        return parts.forward(dy, jnp.flip(w, axes).swapaxes(-1, -2), over, 1)
    x = jax.ShapeDtypeStruct((dy.shape[0], *problem.x_shape[1:]), dy.dtype)

    def forward(x: jax.Array) -> jax.Array:
        return parts.forward(x, w, windows, problem.groups, linear=True)

    return jax.linear_transpose(forward, x)(dy)[0]


def _parts_dw(x: jax.Array, dy: jax.Array, *, problem: Problem) -> jax.Array:
    w = jax.ShapeDtypeStruct(problem.w_shape, dy.dtype)
    x, dy = materialized(x), materialized(dy)  # each part reads both

    def forward(w: jax.Array) -> jax.Array:
        return parts.forward(x, w, problem.windows, problem.groups, linear=True)

    return jax.linear_transpose(forward, w)(dy)[0]


XLA = dispatch.Implementation("xla", _definition)
_SHIFT = functools.partial(
    dispatch.Implementation, "xla_shift", platforms=("cpu",), refuses=_not_depthwise
)
_PARTS = functools.partial(
    dispatch.Implementation, "xla_parts", platforms=("cpu",), refuses=_not_taken_apart
)
_WINOGRAD = functools.partial(
    dispatch.Implementation, "xla_winograd", platforms=("cpu",), refuses=_not_winograd
)
_FEW = functools.partial(dispatch.Implementation, "xla_few", refuses=_not_few)
# By name only: it executes more instruction bundles than XLA's convolution, and no TPU was at hand.
_TPU = functools.partial(dispatch.Implementation, "pallas_tpu", platforms=(), refuses=_not_on_tpu)
FORWARD = (
    dispatch.Implementation("pallas_gpu", _on_gpu, platforms=(), refuses=_not_on_gpu),
    _TPU(_forward_tpu),
    _SHIFT(_shifted),
    _PARTS(lambda x, w, *, problem: parts.forward(x, w, problem.windows, problem.groups)),
    _FEW(_few, platforms=("cpu",)),
    _WINOGRAD(_winograd),
    dispatch.Implementation("xla_rewrite", _rewritten),
    XLA,
)
DX = (
    _TPU(_dx_tpu),
    _SHIFT(lambda dy, w, *, problem: shifted.gradient_x(dy, w[..., 0, :], problem.windows)),
    _PARTS(_parts_dx),
    _FEW(_rewritten_dx, platforms=()),
    _WINOGRAD(_winograd_dx),
    dispatch.Implementation("xla_rewrite", _rewritten_dx),
)
DW = (
    _TPU(_dw_tpu),
    _SHIFT(lambda x, dy, *, problem: shifted.gradient_w(x, dy, problem.windows)[..., None, :]),
    _PARTS(_parts_dw),
    _FEW(_rewritten_dw_apart, platforms=()),
    dispatch.Implementation(
        "xla_winograd", _rewritten_dw_apart, platforms=(), refuses=_not_winograd
    ),
    dispatch.Implementation("xla_rewrite", _rewritten_dw_apart, platforms=("cpu",)),
    dispatch.Implementation("xla_rewrite", _rewritten_dw),
)
BOTH = (dispatch.Implementation("pallas_gpu", _both_on_gpu, platforms=()),)
