"""Depthwise convolution as sums of shifted products: forward and both gradients, for CPUs.

XLA runs a depthwise convolution on a CPU as a grouped one, a channel at a time. As a sum over the
window of "the input shifted by the element's place, times one weight a channel" the forward pass
and the gradient by x are each one vectorised loop.

The gradient by w needs, for each element of the window, a sum over all places of a product. Written
so, XLA walks down the array for each channel. Here the sum runs over rows in the outer loop and is
kept for each (width, channel) place of a row, so that the inner loop is long and contiguous; the
width is summed at the end.

A dense convolution over three channels, the first of most networks, has a forward pass of the same
kind (`dense_forward`).

Shapes: x [n, *spatial, c], w [*window, c], y [n, *outputs, c]; sums are kept in float32 or better.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kernels.materialize import materialized
from kernels.windows import Windows

# Rows of the output that one step of the loop for the weights' gradient takes.
_ROWS = 4


def _accumulate(dtype: jnp.dtype) -> jnp.dtype:
    return jnp.promote_types(dtype, jnp.float32)


def _zero(dtype: jnp.dtype) -> np.ndarray:
    return np.zeros((), dtype)


def forward(x: jax.Array, w: jax.Array, windows: Windows) -> jax.Array:
    """y from x and w."""
    wide = _accumulate(x.dtype)
    padded = lax.pad(x, _zero(x.dtype), [(0, 0, 0), *((*p, 0) for p in windows.padding), (0, 0, 0)])
    padded = materialized(padded)  # or its producers run once for each element of the window
    weights = w.reshape(-1, w.shape[-1]).astype(wide)
    total = jnp.zeros((), wide)
    for number, part in enumerate(windows.elements(padded)):
        total = total + part.astype(wide) * weights[number]
    return total.astype(x.dtype)


def dense_forward(x: jax.Array, w: jax.Array, windows: Windows) -> jax.Array:
    """A convolution over all, but few, channels: w is [*window, c, o].

    For each element of the window and each channel one number of x times a row of w. With three
    channels the products of matrices, to which XLA turns a convolution, are too narrow to be fast.
    """
    wide = _accumulate(x.dtype)
    padded = lax.pad(x, _zero(x.dtype), [(0, 0, 0), *((*p, 0) for p in windows.padding), (0, 0, 0)])
    padded = materialized(padded)
    weights = w.reshape(-1, *w.shape[-2:]).astype(wide)
    total = jnp.zeros((), wide)
    for number, part in enumerate(windows.elements(padded)):
        for channel in range(w.shape[-2]):
            one = lax.slice_in_dim(part, channel, channel + 1, axis=-1).astype(wide)
            total = total + one * weights[number, channel]
    return total.astype(x.dtype)


def gradient_x(dy: jax.Array, w: jax.Array, windows: Windows) -> jax.Array:
    """dx from dy and w: the forward pass over dy, spread out by the stride, with w reversed."""
    config = []
    for axis, (low, _) in enumerate(windows.padding):
        reach = (windows.window[axis] - 1) * windows.dilation[axis]
        spread = (windows.outputs[axis] - 1) * windows.stride[axis] + 1
        before = reach - low
        after = windows.sizes[axis] + reach - spread - before
        config.append((before, after, windows.stride[axis] - 1))
    dy = lax.pad(dy, _zero(dy.dtype), [(0, 0, 0), *config, (0, 0, 0)])
    over = Windows.of(dy.shape, windows.window, 1, "VALID", windows.dilation)
    return forward(dy, jnp.flip(w, range(w.ndim - 1)), over)


def gradient_w(x: jax.Array, dy: jax.Array, windows: Windows) -> jax.Array:
    """dw [*window, c] from x and dy."""
    if x.ndim == 4:  # one frame
        x, dy, windows = x[:, None], dy[:, None], windows.with_time()
        return gradient_w(x, dy, windows)[0]
    (kt, kh, kw), (st, sh, sw) = windows.window, windows.stride
    dt, dh, dw = windows.dilation
    n, c = x.shape[0], x.shape[-1]
    t, h, width = windows.outputs
    rows = min(_ROWS, h)
    blocks = math.ceil(h / rows)
    extra = blocks * rows - h  # rows of zeros that fill the last block
    pads = [(low, high, 0) for low, high in windows.padding]
    pads[1] = (pads[1][0], pads[1][1] + extra * sh, 0)
    x = lax.pad(x, _zero(x.dtype), [(0, 0, 0), *pads, (0, 0, 0)])
    dy = lax.pad(dy, _zero(dy.dtype), [(0, 0, 0), (0, 0, 0), (0, extra, 0), (0, 0, 0), (0, 0, 0)])
    dy = dy.reshape(n, t, blocks * rows, width * c)
    # For each place along the window's width the rows that start there, as [.., width * c].
    if sw == 1:
        flat = x.reshape(*x.shape[:3], -1)
        starts = [(flat, place * dw * c) for place in range(kw)]
    else:
        ends = [place * dw + (width - 1) * sw + 1 for place in range(kw)]
        parts = [
            x[:, :, :, p * dw : end : sw].reshape(*x.shape[:3], -1) for p, end in enumerate(ends)
        ]
        starts = [(part, 0) for part in parts]
    wide = _accumulate(x.dtype)
    reach = ((kt - 1) * dt + 1, (kh - 1) * dh + 1)

    def step(number: jax.Array, sums: list[jax.Array]) -> list[jax.Array]:
        image, rest = number // (t * blocks), number % (t * blocks)
        time, row = rest // blocks, rest % blocks * rows
        new = []
        for total, (source, offset) in zip(sums, starts, strict=True):
            for r in range(rows):
                corner = (image, time * st, (row + r) * sh, offset)
                read = lax.dynamic_slice(source, corner, (1, *reach, width * c))[0, ::dt, ::dh]
                line = lax.dynamic_slice(dy, (image, time, row + r, 0), (1, 1, 1, width * c))[0]
                total = total + read.astype(wide) * line.astype(wide)
            new.append(total)
        return new

    empty = [jnp.zeros((kt, kh, width * c), wide)] * kw
    sums = jnp.stack(lax.fori_loop(0, n * t * blocks, step, empty), 2)
    return sums.reshape(kt, kh, kw, width, c).sum(3).astype(x.dtype)
