"""Depthwise convolution on a TPU: forward and both gradients, in Mosaic.

The kernels work on [t, h, w, n, c]: eight examples on the sublanes and channels on the lanes, the
layout that XLA itself gives a depthwise convolution. A shift along time, height or width is then
another address, never a rotation, and a block of channels needs no mask: lanes do not meet.

A program marches over the height for eight examples and 128 channels. The rows that a window
reaches stay in VMEM as float32, with their padding, so that each row is read and converted once;
a run of outputs along the width is summed in registers. The gradient by x is the same kernel over
dy, padded, with w reversed. The gradient by w keeps one sum for each element of the window in
registers, and one row of sums for each block of examples in the result; XLA adds those up.

All three are bound by the vector unit (54 operations an output for 3x3x3, four a bundle), so that
one pass for both gradients would not be shorter than two. XLA takes the matrix unit, and by the
count of bundles half to two thirds as many; the kernels run only where they are named.

Shapes: x [n, *spatial, c], w [*window, c], y [n, *outputs, c]; sums are kept in float32.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kernels.windows import Windows

_EXAMPLES, _LANES = 8, 128
# More sums than this for the gradient by w no longer fit into the 64 vector registers.
_MAX_TAPS = 27
# A chip of generation 5 or 6 has 64 to 128 MiB of VMEM; XLA keeps some of it for itself.
_VMEM = 48 << 20


def refuses(first: jax.Array, windows: Windows) -> str | None:
    """Why the kernels do not take these arguments; first: x or dy."""
    if first.dtype not in (jnp.float32, jnp.bfloat16):
        return "which takes float32 and bfloat16"
    if first.shape[0] % _EXAMPLES or first.shape[0] == 0:
        return f"which needs a batch that is a multiple of {_EXAMPLES}"
    if max(windows.stride) > 1 or max(windows.dilation) > 1:
        return "which has neither stride nor dilation"
    if math.prod(windows.window) > _MAX_TAPS:
        return f"which takes windows of at most {_MAX_TAPS} elements"
    if any(max(pair) >= k for pair, k in zip(windows.padding, windows.window, strict=True)):
        return "which needs less padding than the window is wide"
    windows = windows if len(windows.sizes) == 3 else windows.with_time()
    if max(_vmem(windows), _vmem(_over_gradient(windows))) > _VMEM:
        return f"which keeps the rows of a window in {_VMEM >> 20} MiB of VMEM: use smaller frames"
    return None


def forward(x: jax.Array, w: jax.Array, windows: Windows, interpret: bool = False) -> jax.Array:
    """y from x and w."""
    if x.ndim == 4:
        return forward(x[:, None], w[None], windows.with_time(), interpret)[:, 0]
    taps = w.astype(jnp.float32).reshape(-1, 1, w.shape[-1])
    taps = jnp.broadcast_to(taps, (taps.shape[0], _EXAMPLES, taps.shape[-1]))
    block, steps, scratch = _blocks(x, windows)
    c = x.shape[-1]
    y = pl.pallas_call(
        functools.partial(_forward_kernel, windows=windows),
        grid=steps,
        in_specs=[
            pl.BlockSpec(block(windows.sizes), _row_read(windows)),
            pl.BlockSpec((taps.shape[0], _EXAMPLES, min(c, _LANES)), lambda n, c, s: (0, 0, c)),
        ],
        out_specs=pl.BlockSpec(block(windows.outputs), _row_written(windows)),
        out_shape=jax.ShapeDtypeStruct((*windows.outputs, x.shape[0], c), x.dtype),
        scratch_shapes=[scratch],
        compiler_params=_parameters(),
        interpret=interpret,
        name="depthwise_conv",
    )(_to_kernel(x), taps)
    return _from_kernel(y)


def gradient_x(dy: jax.Array, w: jax.Array, windows: Windows, interpret: bool = False) -> jax.Array:
    """dx from dy and w: the forward pass over dy, padded, with w reversed."""
    return forward(dy, jnp.flip(w, range(w.ndim - 1)), _over_gradient(windows), interpret)


def gradient_w(x: jax.Array, dy: jax.Array, windows: Windows, interpret: bool = False) -> jax.Array:
    """dw [*window, c] from x and dy."""
    if x.ndim == 4:
        return gradient_w(x[:, None], dy[:, None], windows.with_time(), interpret)[0]
    count, c = math.prod(windows.window), x.shape[-1]
    block, steps, scratch = _blocks(x, windows)
    sums = pl.pallas_call(
        functools.partial(_gradient_w_kernel, windows=windows),
        grid=steps,
        in_specs=[
            pl.BlockSpec(block(windows.sizes), _row_read(windows)),
            pl.BlockSpec(block(windows.outputs), _row_written(windows)),
        ],
        out_specs=pl.BlockSpec((1, count, _EXAMPLES, min(c, _LANES)), lambda n, c, s: (n, 0, 0, c)),
        out_shape=jax.ShapeDtypeStruct((steps[0], count, _EXAMPLES, c), jnp.float32),
        scratch_shapes=[scratch],
        compiler_params=_parameters(),
        interpret=interpret,
        name="depthwise_conv_dw",
    )(_to_kernel(x), _to_kernel(dy))
    return sums.sum((0, 2)).reshape(*windows.window, c).astype(x.dtype)


def _over_gradient(windows: Windows) -> Windows:
    """The windows of the gradient by x over dy."""
    padding = tuple(
        (k - 1 - low, k - 1 - high)
        for k, (low, high) in zip(windows.window, windows.padding, strict=True)
    )
    return Windows(windows.outputs, windows.window, windows.stride, padding, windows.dilation)


def _ring(windows: Windows) -> tuple[int, int, int]:
    """Rows kept, and padded time and width of each."""
    sizes = [n + sum(pair) for n, pair in zip(windows.sizes, windows.padding, strict=True)]
    return windows.window[1], sizes[0], sizes[2]


def _vmem(windows: Windows) -> int:
    """Bytes: the rows kept, and two blocks each of input and output, counted as float32."""
    blocks = 2 * (math.prod(windows.sizes[::2]) + math.prod(windows.outputs[::2]))
    return 4 * _EXAMPLES * _LANES * (math.prod(_ring(windows)) + blocks)


def _blocks(x: jax.Array, windows: Windows) -> tuple[Callable[..., Any], tuple[int, ...], Any]:
    """The shape of one row as a function of the sizes, the grid, and the memory of the rows."""
    lanes = min(x.shape[-1], _LANES)
    rows = windows.sizes[1] + sum(windows.padding[1])
    steps = (x.shape[0] // _EXAMPLES, pl.cdiv(x.shape[-1], lanes), rows)
    scratch = pltpu.VMEM((*_ring(windows), _EXAMPLES, lanes), jnp.float32)
    return lambda sizes: (sizes[0], 1, sizes[2], _EXAMPLES, lanes), steps, scratch


def _row_read(windows: Windows) -> Callable[..., Any]:
    low, last = windows.padding[1][0], windows.sizes[1] - 1
    return lambda n, c, step: (0, jnp.clip(step - low, 0, last), 0, n, c)


def _row_written(windows: Windows) -> Callable[..., Any]:
    return lambda n, c, step: (0, jnp.maximum(step - (windows.window[1] - 1), 0), 0, n, c)


def _to_kernel(x: jax.Array) -> jax.Array:
    return jnp.transpose(x, (1, 2, 3, 0, 4))


def _from_kernel(x: jax.Array) -> jax.Array:
    return jnp.transpose(x, (3, 0, 1, 2, 4))


def _parameters() -> pltpu.CompilerParams:
    return pltpu.CompilerParams(
        dimension_semantics=("parallel", "parallel", "arbitrary"),
        vmem_limit_bytes=_VMEM + (8 << 20),
    )


def _load_row(x_ref: Any, ring_ref: Any, step: jax.Array, windows: Windows) -> None:
    """Takes this step's row, or padding, into its place among the rows kept."""
    low_t, low_h, low_w = (low for low, _ in windows.padding)
    times, height, width = windows.sizes
    slot = lax.rem(step, windows.window[1])

    def clear(time: Any, _: Any) -> None:
        ring_ref[slot, time] = jnp.zeros(ring_ref.shape[2:], jnp.float32)

    def take(time: Any, _: Any) -> None:
        ring_ref[slot, time + low_t, pl.ds(low_w, width)] = x_ref[time, 0].astype(jnp.float32)

    inside = (step >= low_h) & (step < low_h + height)

    @pl.when((step < windows.window[1]) | ~inside)
    def _() -> None:
        lax.fori_loop(0, ring_ref.shape[1], clear, None)

    @pl.when(inside)
    def _() -> None:
        lax.fori_loop(0, times, take, None)


def _runs(windows: Windows) -> tuple[int, int]:
    """How many outputs along the width are computed together, and how often in a frame's row."""
    width = windows.outputs[2]
    run = max(n for n in range(1, 9) if width % n == 0)
    return run, width // run


def _place(run: jax.Array, windows: Windows) -> tuple[jax.Array, Any]:
    """The frame of one run of outputs, and its place along the width."""
    size, number = _runs(windows)
    return lax.div(run, number), pl.ds(lax.rem(run, number) * size, size)


def _parts(ring_ref: Any, run: jax.Array, step: jax.Array, windows: Windows) -> Iterator[jax.Array]:
    """For each element of the window that element of one run of windows, [run, examples, lanes]."""
    kt, kh, kw = windows.window
    time, place = _place(run, windows)
    for t in range(kt):
        for h in range(kh):
            # The oldest of the rows kept is the one that the next step replaces.
            slot = lax.rem(step + h + 1, kh)
            line = ring_ref[slot, time + t, pl.ds(place.start, place.size + kw - 1)]
            for w in range(kw):
                yield line[w : w + place.size]


def _forward_kernel(x_ref: Any, w_ref: Any, y_ref: Any, ring_ref: Any, *, windows: Windows) -> None:
    step = pl.program_id(2)
    _load_row(x_ref, ring_ref, step, windows)
    size, number = _runs(windows)

    def one(run: Any, _: Any) -> None:
        total = jnp.zeros((size, *y_ref.shape[-2:]), jnp.float32)
        for tap, part in enumerate(_parts(ring_ref, run, step, windows)):
            total = total + part * w_ref[tap]
        time, place = _place(run, windows)
        y_ref[time, 0, place] = total.astype(y_ref.dtype)

    @pl.when(step >= windows.window[1] - 1)
    def _() -> None:
        lax.fori_loop(0, windows.outputs[0] * number, one, None)


def _gradient_w_kernel(
    x_ref: Any, dy_ref: Any, sums_ref: Any, ring_ref: Any, *, windows: Windows
) -> None:
    step = pl.program_id(2)
    _load_row(x_ref, ring_ref, step, windows)
    number = _runs(windows)[1]

    @pl.when(step == 0)
    def _() -> None:
        sums_ref[...] = jnp.zeros_like(sums_ref)

    def one(run: Any, sums: list[jax.Array]) -> list[jax.Array]:
        time, place = _place(run, windows)
        dy = dy_ref[time, 0, place].astype(jnp.float32)
        parts = _parts(ring_ref, run, step, windows)
        return [total + (part * dy).sum(0) for total, part in zip(sums, parts, strict=True)]

    @pl.when(step >= windows.window[1] - 1)
    def _() -> None:
        empty = jnp.zeros(sums_ref.shape[-2:], jnp.float32)
        count = sums_ref.shape[1]
        sums = lax.fori_loop(0, windows.outputs[0] * number, one, [empty] * count)
        for tap, total in enumerate(sums):
            sums_ref[0, tap] += total
