"""Dense convolutions with windows of three columns in half the multiplications, for CPUs.

Winograd's F(4, 3) along the width: four neighbouring outputs depend on six columns of x, and with
fixed matrices A, B and G (Lavin and Gray, 2016)

    y = A m,  m[v] = (B d)[v] * (G w)[v],  v = 0 ... 5

takes 6 products in place of 12. Here each product is a convolution by a window of one column and
all rows of w, over tiles of four columns, and runs nearly as fast as XLA's 3x3 convolution. Along
the width alone, and not along both axes (36 products in place of 144): the arrays between the steps
are then 1.5 times as large as x and y and not 2.25 times, every step is one plain loop,
and the rounding error is 7e-7 to 1.1e-6 of the result in quadratic mean, in place of 3e-7.

The gradient by w stays XLA's: with half the products it took as long, since bringing x and dy into
the order of that product is what costs there.

Shapes: x [n, h, w, c], w [rows, 3, c, o], y [n, outputs, outputs, o].
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kernels.materialize import materialized
from kernels.windows import Windows

# Outputs of a tile, and the columns of x that it reads.
_TILE, _READS = 4, 6
_B = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_G = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_A = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


def refusal(windows: Windows, dtype: jnp.dtype) -> str | None:
    """Why a convolution over height and width, without groups, cannot be computed so."""
    if windows.window[-1] != 3 or dtype != jnp.float32:
        return "which needs float32 and a window 3 wide"
    if max(windows.stride) > 1 or max(windows.dilation) > 1:
        return "which needs stride and dilation 1"
    if any(max(pads) >= k for k, pads in zip(windows.window, windows.padding, strict=True)):
        return "which needs less padding than the window is large"
    return None


def gains(frames: int, windows: Windows, inputs: int, outputs: int) -> bool:
    """Whether it is worth while to bring x, w and y into form: not for few channels or places.

    frames: n; inputs, outputs: channels.
    """
    places = frames * math.prod(windows.outputs)
    return min(inputs, outputs) >= 32 and places >= 1024 and windows.outputs[-1] >= 7


def forward(x: jax.Array, w: jax.Array, padding: Sequence[tuple[int, int]]) -> jax.Array:
    """y from x and w with stride 1; padding: (low, high) of height and width, zeros."""
    y = materialized(_tiles(x, w, padding))
    return lax.slice_in_dim(y, 0, x.shape[2] + sum(padding[1]) - 2, axis=2)


def gradient_x(dy: jax.Array, w: jax.Array, padding: Sequence[tuple[int, int]]) -> jax.Array:
    """dx from dy and w: the forward pass over dy with w turned around."""
    reach = [size - 1 for size in w.shape[:2]]
    around = [(r - low, r - high) for r, (low, high) in zip(reach, padding, strict=True)]
    dx = _tiles(dy, jnp.flip(w, (0, 1)).swapaxes(2, 3), around)
    # Cut before it is written: sums over dx, for a bias, read it as one long row.
    return materialized(lax.slice_in_dim(dx, 0, dy.shape[2] + sum(around[1]) - 2, axis=2))


def _tiles(x: jax.Array, w: jax.Array, padding: Sequence[tuple[int, int]]) -> jax.Array:
    """The convolution with its width filled up to whole tiles.

    To be written once: what follows, such as a pool, would combine the products for each read anew.
    """
    tiles = -(-(x.shape[2] + sum(padding[1]) - 2) // _TILE)
    columns = (tiles + 1) * _TILE  # the last tile reads two columns of one more
    low = padding[1][0]
    pads = [(0, 0, 0), (*padding[0], 0), (low, columns - low - x.shape[2], 0), (0, 0, 0)]
    padded = lax.pad(x, np.zeros((), x.dtype), pads)
    blocks = padded.reshape(*padded.shape[:2], tiles + 1, _TILE, x.shape[-1])
    reads = [
        blocks[:, :, place // _TILE : place // _TILE + tiles, place % _TILE]
        for place in range(_READS)
    ]
    weights = [w[:, place] for place in range(3)]
    products = [
        lax.conv_general_dilated(
            _combined(b, reads),
            _combined(g, weights)[:, None],
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        for b, g in zip(_B, _G, strict=True)
    ]
    # Not four sums side by side: XLA would choose between them anew for each number it writes.
    terms = [
        m[:, :, :, None] * np.asarray(factors, x.dtype)[:, None]
        for m, factors in zip(products, zip(*_A, strict=True), strict=True)
    ]
    y = functools.reduce(jnp.add, terms)
    return y.reshape(*y.shape[:2], tiles * _TILE, y.shape[-1])


def _combined(factors: Sequence[float], arrays: Sequence[jax.Array]) -> jax.Array:
    """The sum of factors times arrays, without the products by 0 and 1."""
    total = None
    for factor, a in zip(factors, arrays, strict=True):
        if factor == 0:
            continue
        term = a if factor == 1 else -a if factor == -1 else a * np.asarray(factor, a.dtype)
        total = term if total is None else total + term
    assert total is not None
    return total
