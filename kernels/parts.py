"""Convolution taken apart into dense 2D convolutions, for CPUs.

XLA's fast convolutions on a CPU are the dense 2D ones. Its 3D convolution is slower, and the
gradients of a 3D one with a stride are out of all proportion; so are groups. Here a 3D window is a
sum over its frames, and each group a convolution of its own.

Shapes: x [n, *spatial, c], w [*window, c / groups, o], 2 or 3 spatial axes.
"""

import jax
import jax.numpy as jnp
from jax import lax

from kernels import winograd
from kernels.windows import Windows

# Beyond this many groups the program would become too long.
_GROUPS = 64


def plain(x: jax.Array, w: jax.Array, windows: Windows, groups: int) -> jax.Array:
    """XLA's convolution, [n, *outputs, o]."""
    letters = "DHW"[-(x.ndim - 2) :]
    return lax.conv_general_dilated(
        x,
        w,
        windows.stride,
        windows.padding,
        rhs_dilation=windows.dilation,
        dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
        feature_group_count=groups,
    )


def refusal(windows: Windows, groups: int) -> str | None:
    """Why a convolution is not taken apart: there is nothing to gain, or it is too much."""
    if groups > _GROUPS:
        return f"which takes at most {_GROUPS} groups, not {groups}"
    window = windows.window
    if groups == 1 and (len(window) == 2 or window[0] == 1 or max(window[1:]) == 1):
        return "which needs groups or a window over time, height and width"
    return None


def forward(
    x: jax.Array, w: jax.Array, windows: Windows, groups: int, *, linear: bool = False
) -> jax.Array:
    """[n, *outputs, o] in the type of x, summed in float32 or better.

    Each part by Winograd's method where that gains, but not if the whole is to be transposed, for
    which it must be `linear` in the eyes of jax.
    """
    wide = jnp.promote_types(x.dtype, jnp.float32)
    inputs, outputs = w.shape[-2], w.shape[-1] // groups
    results = []
    for group in range(groups):
        part = lax.slice_in_dim(x, group * inputs, (group + 1) * inputs, axis=-1)
        weights = lax.slice_in_dim(w, group * outputs, (group + 1) * outputs, axis=-1)
        results.append(_sum_of_frames(part.astype(wide), weights.astype(wide), windows, linear))
    return jnp.concatenate(results, -1).astype(x.dtype)


def _flat(x: jax.Array, w: jax.Array, windows: Windows, linear: bool) -> jax.Array:
    """A convolution over height and width alone."""
    if (
        not linear
        and winograd.refusal(windows, x.dtype) is None
        and winograd.gains(x.shape[0], windows, *w.shape[-2:])
    ):
        return winograd.forward(x, w, windows.padding)
    return plain(x, w, windows, 1)


def _sum_of_frames(x: jax.Array, w: jax.Array, windows: Windows, linear: bool) -> jax.Array:
    """[n, *spatial, c] and [*window, c, o], 2 or 3 spatial axes, to [n, *outputs, o]."""
    if x.ndim == 4:
        return _flat(x, w, windows, linear)
    low, high = windows.padding[0]
    frames, times = x.shape[1], windows.outputs[0]
    step, flat = windows.stride[0], windows.along((1, 2))
    padded = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (low, high, 0), *[(0, 0, 0)] * 3])
    total = jnp.zeros((), x.dtype)
    for tap in range(w.shape[0]):
        first = tap * windows.dilation[0]
        last = first + (times - 1) * step
        if last < low or first >= low + frames:
            continue  # reads nothing but padding
        part = lax.slice_in_dim(padded, first, last + 1, step, axis=1)
        y = _flat(part.reshape(-1, *x.shape[2:]), w[tap], flat, linear)
        total = total + y.reshape(-1, times, *y.shape[1:])
    shape = (x.shape[0], *windows.outputs, w.shape[-1])
    return jnp.broadcast_to(total, shape)  # where every tap reads padding alone
