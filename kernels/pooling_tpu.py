"""Max-pooling on a TPU: the maximum with its index, and the gradient from the index, in Mosaic.

The kernels work on [h, w, a, b] with channels on the sublanes and examples on the lanes, or the
other way round: the layouts that XLA gives the convolutions beside a pool, so that the transposes
are bitcasts. Height and width are plain addresses there. What other libraries do with strided reads
and interior padding is a choice of addresses at compile time, and every operation is elementwise.

A program takes a block of examples and channels and marches over the height, as many rows a step
as the stride. Where windows overlap, the rows that the next step needs again stay in VMEM, so that
each array is read once and written once. The gradient of an element is the sum, in float32 and in
the order of the window's elements, of the gradients whose index names it: no scatter, and no array
that is spread out with zeros first.

Shapes: x [n, h, w, c], y, index and dy [n, *outputs, c]. Semantics: those of kernels/pooling.py.
"""

import dataclasses
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

_SUBLANES, _LANES = 32, 128
# Elements of a window that are written out one after the other.
_MAX_TAPS = 25
# Columns that a step of the loop along the width handles, so that loads and arithmetic overlap.
_RUN = 4
# A chip of generation 5 or 6 has 64 to 128 MiB of VMEM; XLA keeps some of it for itself.
_VMEM = 48 << 20
# The index of no element at all.
_NOTHING = 255


def refuses(array: jax.Array, windows: Windows) -> str | None:
    """Why the kernels do not take these arguments; array: x or dy."""
    if array.dtype not in (jnp.float32, jnp.bfloat16):
        return "which takes float32 and bfloat16"
    if array.size == 0:
        return "which takes no empty arrays"
    windows, _ = _flat(windows, 1)
    if len(windows.sizes) != 2:
        return "which takes windows over height and width alone"
    if math.prod(windows.window) > _MAX_TAPS:
        return f"which takes windows of at most {_MAX_TAPS} elements"
    if _Plan(windows).vmem > _VMEM:
        return f"which keeps rows of the image in {_VMEM >> 20} MiB of VMEM: use narrower frames"
    return None


def _flat(windows: Windows, n: int) -> tuple[Windows, int]:
    """Windows over single frames as windows over n * frames images."""
    if len(windows.sizes) == 3 and windows.still[0] and windows.stride[0] == 1:
        return windows.along((1, 2)), n * windows.sizes[0]
    return windows, n


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Which rows and columns meet. A group is as many rows or columns of x as the stride."""

    windows: Windows

    def reach(self, axis: int) -> tuple[int, int]:
        """First and last window, counted from the group's own number, with elements in a group."""
        (k, s), low = (self.windows.window[axis], self.windows.stride[axis]), self.low(axis)
        return -((k - 1 - low) // s), (s - 1 + low) // s

    def low(self, axis: int) -> int:
        return self.windows.padding[axis][0]

    @property
    def late(self) -> int:
        """Steps after which the last row of a window has arrived, from the window's own number."""
        return max(0, (self.windows.window[0] - 1 - self.low(0)) // self.windows.stride[0])

    @property
    def above(self) -> int:
        """Rows of x that a window needs from earlier steps."""
        return max(0, self.windows.stride[0] * self.late + self.low(0))

    @property
    def wait(self) -> int:
        """Steps after which all windows of a group of rows have arrived."""
        return max(0, self.reach(0)[1])

    @property
    def shared(self) -> int:
        """Rows of windows that a group needs from earlier steps."""
        return max(0, self.wait - self.reach(0)[0])

    @property
    def vmem(self) -> int:
        """Bytes: the rows kept, and two blocks each of what is read and written, as float32."""
        rows = 2 * self.windows.stride[0] + self.above
        windows = 2 * 2 + 2 * self.shared
        places = rows * self.windows.sizes[1] + windows * self.windows.outputs[1]
        return 4 * _SUBLANES * _LANES * places


def _channels_first(n: int, c: int) -> bool:
    """Whether channels are on the sublanes: XLA's choice for fewer channels than lanes."""
    return c < _LANES <= n


def _to_kernel(a: jax.Array) -> jax.Array:
    n, *_, c = a.shape
    return jnp.transpose(a, (1, 2, 3, 0) if _channels_first(n, c) else (1, 2, 0, 3))


def _from_kernel(a: jax.Array, n: int, c: int) -> jax.Array:
    return jnp.transpose(a, (3, 0, 1, 2) if _channels_first(n, c) else (2, 0, 1, 3))


def _parameters() -> pltpu.CompilerParams:
    return pltpu.CompilerParams(
        dimension_semantics=("parallel", "parallel", "arbitrary"),
        vmem_limit_bytes=_VMEM + (8 << 20),
    )


def _tile(a: jax.Array) -> tuple[int, int]:
    """Sublanes and lanes of a block of a [h, w, sublanes, lanes]."""
    return min(a.shape[2], _SUBLANES), min(a.shape[3], _LANES)


def _spec(rows: int, width: int, tile: tuple[int, int], row: Callable[[Any], Any]) -> pl.BlockSpec:
    """Blocks of `rows` rows; row: from the step to the number of the block."""
    return pl.BlockSpec((rows, width, *tile), lambda a, b, step: (row(step), 0, a, b))


def value_and_index(
    x: jax.Array, windows: Windows, interpret: bool = False
) -> tuple[jax.Array, jax.Array]:
    """y in the type of x, and the index as uint8 with 255 where a window is all padding."""
    flat, n = _flat(windows, x.shape[0])
    c, shape = x.shape[-1], (x.shape[0], *windows.outputs, x.shape[-1])
    source = _to_kernel(x.reshape(n, *flat.sizes, c))
    plan, tile = _Plan(flat), _tile(source)
    (height, width), rows = flat.outputs, flat.stride[0]
    last = pl.cdiv(flat.sizes[0], rows) - 1
    written = _spec(1, width, tile, lambda step: jnp.maximum(step - plan.late, 0))
    results = [
        jax.ShapeDtypeStruct((height, width, *source.shape[2:]), dtype)
        for dtype in (x.dtype, jnp.uint8)
    ]
    y, index = pl.pallas_call(
        functools.partial(_forward_kernel, plan=plan),
        grid=(*_blocks(source, tile), height + plan.late),
        in_specs=[_spec(rows, flat.sizes[1], tile, lambda step: jnp.minimum(step, last))],
        out_specs=[written, written],
        out_shape=results,
        scratch_shapes=[pltpu.VMEM((max(1, plan.above), flat.sizes[1], *tile), x.dtype)],
        compiler_params=_parameters(),
        interpret=interpret,
        name="max_pool",
    )(source)
    y, index = (_from_kernel(a, n, c).reshape(shape) for a in (y, index))
    return y, index


def gradient(
    index: jax.Array, dy: jax.Array, windows: Windows, interpret: bool = False
) -> jax.Array:
    """dx in the type of dy, from the index as `value_and_index` gives it."""
    flat, n = _flat(windows, dy.shape[0])
    c, shape = dy.shape[-1], (dy.shape[0], *windows.sizes, dy.shape[-1])
    places, slopes = (_to_kernel(a.reshape(n, *flat.outputs, c)) for a in (index, dy))
    plan, tile = _Plan(flat), _tile(slopes)
    (height, width), rows = flat.sizes, flat.stride[0]
    read = _spec(1, flat.outputs[1], tile, lambda step: jnp.minimum(step, flat.outputs[0] - 1))
    kept = (max(1, plan.shared), flat.outputs[1], *tile)
    dx = pl.pallas_call(
        functools.partial(_gradient_kernel, plan=plan),
        grid=(*_blocks(slopes, tile), pl.cdiv(height, rows) + plan.wait),
        in_specs=[read, read],
        out_specs=_spec(rows, width, tile, lambda step: jnp.maximum(step - plan.wait, 0)),
        out_shape=jax.ShapeDtypeStruct((height, width, *slopes.shape[2:]), dy.dtype),
        scratch_shapes=[pltpu.VMEM(kept, jnp.uint8), pltpu.VMEM(kept, dy.dtype)],
        compiler_params=_parameters(),
        interpret=interpret,
        name="max_pool_dx",
    )(places, slopes)
    return _from_kernel(dx, n, c).reshape(shape)


def _blocks(a: jax.Array, tile: tuple[int, int]) -> tuple[int, int]:
    return pl.cdiv(a.shape[2], tile[0]), pl.cdiv(a.shape[3], tile[1])


def _along(low: int, high: int, count: int, emit: Callable[[Any], None]) -> None:
    """emit(number) for 0 <= number < count, those from low to high in a loop, `_RUN` at a time."""
    low = min(max(low, 0), count)
    turns = max(0, min(high, count) - low) // _RUN
    end = low + turns * _RUN
    for number in [*range(low), *range(end, count)]:
        emit(number)

    def several(turn: Any, _: Any) -> None:
        for number in range(_RUN):
            emit(low + turn * _RUN + number)

    if turns:
        lax.fori_loop(0, turns, several, None)


def _keep(ref: Any, ring: Any, count: int, arrived: int) -> None:
    """The last `count` rows of those kept and the `arrived` new ones stay for the next step."""
    for row in range(count):
        source, number = (ring, row + arrived) if row + arrived < count else (ref, row + arrived)
        number = number if source is ring else number - count

        def move(column: Any, source: Any = source, number: int = number, row: int = row) -> None:
            ring[row, column] = source[number, column]

        _along(0, ring.shape[1], ring.shape[1], move)


def _forward_kernel(x_ref: Any, y_ref: Any, index_ref: Any, ring: Any, *, plan: _Plan) -> None:
    step, windows = pl.program_id(2), plan.windows
    (kh, kw), (sh, sw), (low_h, low_w) = windows.window, windows.stride, (plan.low(0), plan.low(1))
    height, width = windows.sizes
    top = (step - plan.late) * sh - low_h  # the first row of the windows
    lowest = jnp.full(x_ref.shape[2:], -jnp.inf, jnp.float32)
    # A window begins with its first element in the image: padding is no larger, so it never wins.
    above = jnp.maximum(-top, 0)
    begins = jnp.where(top + above < jnp.minimum(top + kh, height), above * kw, _NOTHING)
    below = (windows.outputs[0] - 1) * sh - low_h - height  # of the last windows

    def taps(column: Any) -> Iterator[tuple[int, jax.Array]]:
        """The number within the window, and the values, -inf in padding."""
        for i in range(kh):
            row = i - low_h - sh * plan.late  # from the first row of this step
            ref, where = (x_ref, row) if row >= 0 else (ring, plan.above + row)
            for j in range(kw):
                place = column * sw + j - low_w
                if isinstance(place, int) and not 0 <= place < width:
                    continue
                value = ref[where, place].astype(jnp.float32)
                if row >= 0 and below + i >= 0:  # there may be no such row
                    value = jnp.where(top + i < height, value, lowest)
                yield i * kw + j, value

    def one(column: Any) -> None:
        y, index = lowest, jnp.full(lowest.shape, _NOTHING, jnp.int32)
        for turn, (tap, value) in enumerate(taps(column)):
            if turn == 0:
                first = jnp.where(begins == _NOTHING, _NOTHING, begins + tap)
                y, index = value, jnp.broadcast_to(first, lowest.shape)
            else:
                better = ~(value <= y) & (y == y)  # larger, or the first NaN
                y, index = jnp.where(better, value, y), jnp.where(better, tap, index)
        y_ref[0, column] = y.astype(y_ref.dtype)
        index_ref[0, column] = index.astype(jnp.uint8)

    @pl.when(step == 0)
    def _() -> None:
        empty = jnp.full(ring.shape[2:], -jnp.inf, ring.dtype)

        def clear(column: Any) -> None:
            for row in range(plan.above):
                ring[row, column] = empty

        _along(0, width, width, clear)

    @pl.when(step >= plan.late)
    def _() -> None:
        first, end = -(-low_w // sw), (width - kw + low_w) // sw + 1
        _along(first, end, windows.outputs[1], one)

    _keep(x_ref, ring, plan.above, sh)


def _gradient_kernel(
    index_ref: Any, dy_ref: Any, dx_ref: Any, kept_index: Any, kept_dy: Any, *, plan: _Plan
) -> None:
    step, windows = pl.program_id(2), plan.windows
    kw, (sh, sw) = windows.window[1], windows.stride
    (first_h, last_h), (first_w, last_w) = plan.reach(0), plan.reach(1)
    outputs, width, group = windows.outputs, windows.sizes[1], step - plan.wait

    def windows_of(column: Any) -> dict[tuple[int, int], tuple[jax.Array, jax.Array]]:
        """Index and gradient of the windows that reach a group, by their number from its own."""
        found = {}
        for i in range(first_h, last_h + 1):
            age = plan.wait - i  # steps since that row of windows arrived
            inside = (group + i >= 0) & (group + i < outputs[0])
            for j in range(first_w, last_w + 1):
                place = column + j
                if isinstance(place, int) and not 0 <= place < outputs[1]:
                    continue
                row = plan.shared - age
                refs = (kept_index, kept_dy) if age else (index_ref, dy_ref)
                index, dy = (ref[row if age else 0, place] for ref in refs)
                index = jnp.where(inside, index.astype(jnp.int32), _NOTHING)
                found[i, j] = index, dy.astype(jnp.float32)
        return found

    def meets(offset: int, axis: int) -> list[tuple[int, int]]:
        """For an element of a group the windows with it, and its number in each, in that order."""
        low, s = plan.low(axis), windows.stride[axis]
        taps = [k for k in range(windows.window[axis]) if (offset + low - k) % s == 0]
        return [((offset + low - k) // s, k) for k in taps]

    def one(column: Any) -> None:
        found = windows_of(column)
        for row in range(sh):
            for offset in range(sw):
                place = column * sw + offset
                if isinstance(place, int) and place >= width:
                    continue
                total = jnp.zeros(dx_ref.shape[2:], jnp.float32)
                for i, kr in meets(row, 0):
                    for j, kc in meets(offset, 1):
                        if (i, j) in found:
                            index, dy = found[i, j]
                            total = total + jnp.where(index == kr * kw + kc, dy, 0)
                dx_ref[row, place] = total.astype(dx_ref.dtype)

    @pl.when(step >= plan.wait)
    def _() -> None:
        _along(-first_w, min(outputs[1] - last_w, width // sw), pl.cdiv(width, sw), one)

    _keep(index_ref, kept_index, plan.shared, 1)
    _keep(dy_ref, kept_dy, plan.shared, 1)
