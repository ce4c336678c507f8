"""Convolution 3x3, bias, ReLU and 2x2 max-pool on a TPU in one pass, in Mosaic.

The kernel works on [h, w, c, n], channels on the sublanes and examples on the lanes, the layout
that XLA gives convolutions with fewer channels than lanes. Four neighbours of a row, [4 * c, n],
are then a matrix as they lie, and hold all that two neighbouring outputs need of that row. Their
product with a matrix [2 * o, 4 * c], which has the three weights of a row of the window once for
each of the two outputs and zeros elsewhere, is one sixth of one pooled result: three quarters of
the matrix unit's work is of use, where nine products of c channels would fill a quarter of it for
32 channels. The two outputs lie below one another, so that the pool is elementwise.

A program takes 128 examples and marches over the height, two rows a step; the two rows before stay
in VMEM. The convolution's result is never written. The sums are float32, and are compared before
they are rounded. The index is that of kernels/conv_block.py, which has the gradients too.

Shapes: x [n, h, w, c], w [3, 3, c, o], b [o], y and index [n, h', w', o].
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kernels.windows import Windows

_LANES = 128
# Rows of a tile in VMEM by the size of a number: whole tiles may be put below one another.
_TILE = {2: 16, 4: 8}
_NOTHING = 255
_VMEM = 48 << 20


def refuses(x: jax.Array, w: jax.Array, stride: Any, padding: Any, pool: Windows) -> str | None:
    """Why the kernel does not take these arguments."""
    if x.dtype not in (jnp.float32, jnp.bfloat16):
        return "which takes float32 and bfloat16"
    if x.ndim != 4 or w.shape[:2] != (3, 3) or stride not in (1, (1, 1)):
        return "which takes windows of 3x3 over images with stride 1"
    if padding not in ("VALID", ((0, 0), (0, 0))):
        return "which takes no padding"
    if pool.window != (2, 2) or pool.stride != (2, 2):
        return "which takes a pool of 2x2 with stride 2"
    tile = _TILE[x.dtype.itemsize]
    if x.size == 0 or w.shape[2] % tile or w.shape[3] % tile:
        return f"which needs channels in multiples of {tile} and no empty arrays"
    if _vmem(x.shape, w.shape) > _VMEM:
        return f"which keeps rows and weights in {_VMEM >> 20} MiB of VMEM: use narrower frames"
    return None


def _vmem(x: tuple[int, ...], w: tuple[int, ...]) -> int:
    """Bytes: rows read and kept, results, and twice the weights, counted as float32."""
    rows = 6 * x[2] * x[3] + 2 * 2 * (x[2] // 2) * w[3]
    return 4 * (rows * _LANES + 2 * 3 * 8 * w[2] * w[3])


def _for_two_outputs(w: jax.Array) -> jax.Array:
    """[3, 2 * o, 4 * c]: for each row of the window the weights of four inputs for two outputs."""
    rows, width, c, o = w.shape
    two = [jnp.pad(w, ((0, 0), (p, 1 - p), (0, 0), (0, 0))) for p in range(2)]
    return (
        jnp.stack(two, 1)
        .reshape(rows, 2, (width + 1) * c, o)
        .swapaxes(2, 3)
        .reshape(rows, 2 * o, (width + 1) * c)
    )


def forward(
    x: jax.Array, w: jax.Array, b: jax.Array, interpret: bool = False
) -> tuple[jax.Array, jax.Array]:
    """y in the type of x, and the index as uint8 with 255 where ReLU lets nothing through."""
    n, height, width, c = x.shape
    o, lanes = w.shape[-1], min(n, _LANES)
    rows, columns = (height - 2) // 2, (width - 2) // 2
    weights = _for_two_outputs(w)
    written = pl.BlockSpec(
        (1, columns, o, lanes), lambda n, step: (jnp.maximum(step - 1, 0), 0, 0, n)
    )
    y, index = pl.pallas_call(
        _kernel,
        grid=(pl.cdiv(n, lanes), rows + 1),
        in_specs=[
            pl.BlockSpec((2, width, c, lanes), lambda n, step: (step, 0, 0, n)),
            pl.BlockSpec(weights.shape, lambda n, step: (0, 0, 0)),
            pl.BlockSpec((o, lanes), lambda n, step: (0, 0)),
        ],
        out_specs=[written, written],
        out_shape=[
            jax.ShapeDtypeStruct((rows, columns, o, n), dtype) for dtype in (x.dtype, jnp.uint8)
        ],
        scratch_shapes=[pltpu.VMEM((2, width, c, lanes), x.dtype)],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=_VMEM + (8 << 20)
        ),
        interpret=interpret,
        name="conv_bias_relu_pool",
    )(
        jnp.transpose(x, (1, 2, 3, 0)),
        weights,
        jnp.broadcast_to(b.astype(jnp.float32)[:, None], (o, lanes)),
    )
    return jnp.transpose(y, (3, 0, 1, 2)), jnp.transpose(index, (3, 0, 1, 2))


def _kernel(x_ref: Any, w_ref: Any, b_ref: Any, y_ref: Any, index_ref: Any, kept: Any) -> None:
    step = pl.program_id(1)
    o = y_ref.shape[2]

    def one(column: Any, _: Any) -> None:
        near = []
        for ref in (kept, x_ref):
            for row in range(2):
                line = ref[row, pl.ds(2 * column, 4)]
                near.append(line.reshape(-1, line.shape[-1]))
        taps = []
        for row in range(2):
            sums = functools.reduce(
                jnp.add,
                [
                    jnp.dot(w_ref[k], near[row + k], preferred_element_type=jnp.float32)
                    for k in range(3)
                ],
            )
            taps += [sums[:o], sums[o:]]
        y, index = taps[0], jnp.zeros(taps[0].shape, jnp.int32)
        for tap, value in enumerate(taps[1:], 1):
            better = ~(value <= y) & (y == y)  # larger, or the first NaN
            y, index = jnp.where(better, value, y), jnp.where(better, tap, index)
        y = y + b_ref[...]
        index_ref[0, column] = jnp.where(y > 0, index, _NOTHING).astype(jnp.uint8)
        y_ref[0, column] = jnp.where(y <= 0, 0, y).astype(y_ref.dtype)

    @pl.when(step >= 1)
    def _() -> None:
        lax.fori_loop(0, y_ref.shape[1], one, None)

    def keep(column: Any, _: Any) -> None:
        for row in range(2):
            kept[row, column] = x_ref[row, column]

    lax.fori_loop(0, kept.shape[1], keep, None)
