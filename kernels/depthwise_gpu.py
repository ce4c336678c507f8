"""Depthwise 3x3x3 convolution and its gradients on NVIDIA GPUs from Hopper on (Pallas Mosaic GPU).

A row of an image is one axis of width * channels lanes; a neighbour in width is `c` lanes away.
TMA reads boxes of such rows at any lane, fills what lies outside the image with zeros, and needs no
more than rows of a multiple of 16 bytes, which 54 or 108 channels alone would not be.

A block owns 256 lanes and a few rows of an image and marches over time. Each frame is read once: it
is the last of three contributions to the result of the frame before, the second to its own and the
first to the next one's. The sums live in registers, in float32.

    y[t, h, w] = sum over (i, j, k) of x[t + i - 1, h + j - 1, w + k - 1] * v[i, j, k]

dx is that sum over dy with the weights reversed, and with the same numbers at hand

    dw[2 - i, 2 - j, 2 - k] = sum over (t, h, w) of x[t, h, w] * dy[t + i - 1, h + j - 1, w + k - 1]

so that one march gives both. Each block keeps its own sums of dw, for each lane, and writes them
once; XLA adds them up over blocks and width, always in the same order.

What follows the convolution in an X3D or MoViNet is done where the sums are: scale, bias and
activation, and for squeeze-excite the sum of the results of each task and lane, which XLA adds up.

Where the lanes are no multiple of 256 the last block starts earlier and computes some lanes once
more, with the same results. Rows below the image are zeros, and are not written.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from kernels.windows import Windows

# Lanes of a block, two for each thread of a warpgroup, and the frames on their way to it.
_LANES, _SLOTS = 256, 3
# At most this many rows of a block, so that the sums fit into registers.
_ROWS_FORWARD, _ROWS_BACKWARD = 7, 4
# Blocks that an H100 or H200 has in flight: two on each of its 132 multiprocessors.
_BLOCKS = 264
# In float32, of what Mosaic GPU has.
_ACTIVATIONS: dict[str | None, Callable[[jax.Array], jax.Array]] = {
    None: lambda y: y,
    "relu": lambda y: jnp.maximum(y, 0.0),
    "silu": lambda y: y / (1.0 + jnp.exp(-y)),
    "hard_swish": lambda y: y * jnp.minimum(jnp.maximum(y + 3.0, 0.0), 6.0) / 6.0,
}
_TAPS = tuple((i, j, k) for i in range(3) for j in range(3) for k in range(3))


def refusal(windows: Windows, x_shape: tuple[int, ...], dtype: Any) -> str | None:
    """Why a depthwise convolution cannot run here, or None where it can."""
    if windows.window != (3, 3, 3) or {*windows.stride, *windows.dilation} != {1}:
        return "which is for windows of 3x3x3 with stride and dilation 1"
    if set(windows.padding) != {(1, 1)}:
        return "which pads by one on each side"
    if dtype not in (jnp.bfloat16, jnp.float16, jnp.float32):
        return f"which is for floating types of up to 32 bits, not {dtype}"
    lanes = x_shape[-2] * x_shape[-1]
    if lanes < _LANES or lanes * jnp.dtype(dtype).itemsize % 16:
        return (
            f"which needs rows of at least {_LANES} numbers and a multiple of 16 bytes, "
            f"not {lanes} of {dtype}"
        )
    return None


@dataclasses.dataclass(frozen=True)
class _Plan:
    """How the work is cut. A task is `rows` rows of one video; a block does every `groups`-th.

    interpreted: jax's interpreters of Mosaic GPU know neither reading before the start of an array
    nor layouts. For them each frame has its zeros around it, `margin` rows and lanes on a side.
    """

    frames: int
    height: int
    lanes: int
    rows: int
    tasks: int
    groups: int
    channels: int
    interpreted: bool

    @classmethod
    def of(cls, shape: tuple[int, ...], most_rows: int, interpreted: bool) -> "_Plan":
        n, frames, height, width, c = shape
        rows = pl.cdiv(height, pl.cdiv(height, most_rows))
        count = n * pl.cdiv(height, rows)
        groups = min(count, max(1, _BLOCKS // pl.cdiv(width * c, _LANES)))
        return cls(frames, height, width * c, rows, count, groups, c, interpreted)

    @property
    def margin(self) -> tuple[int, int]:
        return (1, self.channels) if self.interpreted else (0, 0)

    @property
    def blocks(self) -> int:
        """The tasks of one video."""
        return pl.cdiv(self.height, self.rows)

    @property
    def below(self) -> int:
        """Rows of the last of them that are not in the image."""
        return self.blocks * self.rows - self.height

    @property
    def grid(self) -> tuple[int, int]:
        return self.groups, pl.cdiv(self.lanes, _LANES)


def _march(*refs: Any, plan: _Plan, kind: str, activation: str | None) -> None:
    """The kernel. refs: see `_run`. kind: "forward", "gradients" or "fused"."""
    gradients, fused = kind == "gradients", kind == "fused"
    if gradients:
        source, weights, x, result, partial, near, here, ready = refs
    elif fused:
        source, weights, affine, result, partial, near, ready = refs
    else:
        source, weights, result, near, ready = refs
    group, tile = lax.axis_index("group"), lax.axis_index("tile")
    lane = jnp.minimum(tile * _LANES, plan.lanes - _LANES)
    rows, frames = plan.rows, plan.frames

    def place(task: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The video and the first row of a task."""
        number = group + task * plan.groups
        return lax.div(number, plan.blocks), lax.rem(number, plan.blocks) * rows

    def fetch(step: Any) -> None:
        video, row = place(lax.div(step, frames))
        time, slot = lax.rem(step, frames), lax.rem(step, _SLOTS)
        box = pl.ds(row - 1 + plan.margin[0], rows + 2)
        for k in range(3):
            lanes = pl.ds(lane + (k - 1) * plan.channels + plan.margin[1], _LANES)
            plgpu.copy_gmem_to_smem(
                source.at[video, time, box, lanes], near.at[slot, k], ready.at[slot]
            )
        if gradients:  # the frame after, which the gradient by w needs first
            after = jnp.minimum(time + 1, frames - 1)
            plgpu.copy_gmem_to_smem(
                x.at[video, after, pl.ds(row, rows), pl.ds(lane, _LANES)],
                here.at[slot],
                ready.at[slot],
            )

    def finished(row: jax.Array, sums: list[jax.Array]) -> tuple[list[jax.Array], Any]:
        """The results of a frame, and their sum over the rows that are in the image."""
        if not fused:
            return sums, None
        lines = [_ACTIVATIONS[activation](line * scale + bias) for line in sums]
        total = lines[0]
        for r, line in enumerate(lines[1:], 1):
            certain = r < rows - plan.below
            total += line if certain else jnp.where(row + r < plan.height, line, zero)
        return lines, total

    def write(video: jax.Array, time: Any, row: jax.Array, sums: list[jax.Array]) -> None:
        for r in range(rows):

            def store(r: int = r) -> None:
                result[video, time, row + r, pl.ds(lane, _LANES)] = sums[r].astype(result.dtype)

            if r < rows - plan.below:
                store()
            else:
                pl.when(row + r < plan.height)(store)

    tasks = lax.div(plan.tasks - 1 - group, plan.groups) + 1
    steps = tasks * frames
    for step in range(_SLOTS):
        pl.when(step < steps)(functools.partial(fetch, jnp.int32(step)))
    taps = {tap: _wide(weights[n, pl.ds(lane, _LANES)]) for n, tap in enumerate(_TAPS)}
    strided = plgpu.Layout.WG_STRIDED((_LANES,), vec_size=2)
    zero = jnp.zeros((_LANES,), jnp.float32)
    if not plan.interpreted:
        zero = plgpu.layout_cast(zero, strided)
    if fused:
        scale, bias = (affine[n, pl.ds(lane, _LANES)] for n in range(2))

    def first(video: jax.Array, row: jax.Array) -> jax.Array:
        """A row of x in the first frame, which no step has fetched."""
        line = _wide(x[video, 0, jnp.minimum(row, plan.height - 1), pl.ds(lane, _LANES)])
        return jnp.where(row < plan.height, line, zero) if plan.below else line

    def over_time(time: jax.Array, carry: Any, task: jax.Array) -> Any:
        (before, now), past, dw, total = carry
        video, row = place(task)
        step = task * frames + time
        slot = lax.rem(step, _SLOTS)
        plgpu.barrier_wait(ready.at[slot])
        # By the first index of the weights: the next frame, this one, the one before.
        sums = [[zero] * rows, list(now), list(before)]
        if gradients:
            is_last = time == frames - 1
            read = [_wide(here[slot, r]) for r in range(rows)]
            following = [jnp.where(is_last, zero, line) for line in read]
            xs, dw = [following, past[1], past[0]], dict(zip(_TAPS, dw, strict=True))
        for j_row in range(rows + 2):
            for k in range(3):
                line = _wide(near[slot, k, j_row])
                for i, j in ((i, j) for i in range(3) for j in range(3)):
                    r = j_row - j
                    if 0 <= r < rows:
                        sums[i][r] += line * taps[i, j, k]
                        if gradients:
                            dw[i, j, k] += line * xs[i][r]
        plgpu.commit_smem()  # everyone has read the slot

        @pl.when(step + _SLOTS < steps)
        def _() -> None:
            fetch(step + _SLOTS)

        lines, added = finished(row, sums[2])

        @pl.when(time > 0)
        def _() -> None:
            write(video, time - 1, row, lines)

        if gradients:
            past, dw = (past[1], following), list(dw.values())
        if fused:
            total += jnp.where(time > 0, added, zero)
        return (sums[1], sums[0]), past, dw, total

    def over_tasks(task: jax.Array, dw: Any) -> Any:
        video, row = place(task)
        empty, past = [zero] * rows, ()
        if gradients:
            past = (empty, [first(video, row + r) for r in range(rows)])
        march = functools.partial(over_time, task=task)
        start = ((empty, empty), past, dw, zero if fused else ())
        (last, _), _, dw, total = lax.fori_loop(0, frames, march, start)
        lines, added = finished(row, last)
        write(video, frames - 1, row, lines)
        if fused:
            partial[group + task * plan.groups, pl.ds(lane, _LANES)] = total + added
        return dw

    dw = lax.fori_loop(0, tasks, over_tasks, [zero] * 27 if gradients else ())
    for n, line in enumerate(dw):
        partial[group, n, pl.ds(lane, _LANES)] = line


def _wide(a: jax.Array) -> jax.Array:
    return a.astype(jnp.float32)


def _run(
    source: jax.Array,
    w: jax.Array,
    x: jax.Array | None,
    interpret: Any,
    affine: jax.Array | None = None,
    activation: str | None = None,
) -> Any:
    """The sum of the module's head over `source`, and where x is given the sums for dw.

    affine: [2, c], scale and bias of what follows; the sums for squeeze-excite are given too then.
    """
    n, frames, height, width, c = source.shape
    most = _ROWS_FORWARD if x is None else _ROWS_BACKWARD
    plan = _Plan.of(source.shape, most, interpret is not None)
    flat = source.reshape(n, frames, height, width * c)
    lines = jnp.tile(w.reshape(27, c), (1, width))
    scratch = [
        plgpu.SMEM((_SLOTS, 3, plan.rows + 2, _LANES), source.dtype),
        plgpu.Barrier(num_arrivals=3, num_barriers=_SLOTS),
    ]
    results = [jax.ShapeDtypeStruct(flat.shape, source.dtype)]
    operands = [_with_zeros(flat, plan, *plan.margin), lines]
    if x is not None:
        scratch.insert(1, plgpu.SMEM((_SLOTS, plan.rows, _LANES), x.dtype))
        scratch[-1] = plgpu.Barrier(num_arrivals=4, num_barriers=_SLOTS)
        results.append(jax.ShapeDtypeStruct((plan.groups, 27, width * c), jnp.float32))
        operands.append(_with_zeros(x.reshape(flat.shape), plan, 0, 0))
    kind = "forward" if x is None else "gradients"
    if affine is not None:
        kind = "fused"
        results.append(jax.ShapeDtypeStruct((plan.tasks, width * c), jnp.float32))
        operands.append(jnp.tile(affine.astype(jnp.float32), (1, width)))
    run = plgpu.kernel(
        functools.partial(_march, plan=plan, kind=kind, activation=activation),
        out_type=results,
        scratch_types=scratch,
        grid=plan.grid,
        grid_names=("group", "tile"),
        compiler_params=plgpu.CompilerParams(
            unsafe_no_auto_barriers=True, lowering_semantics=plgpu.LoweringSemantics.Lane
        ),
        interpret=interpret,
    )
    y, *partial = run(*operands)
    y = y.reshape(source.shape)
    if affine is not None:
        return y, partial[0].reshape(n, -1, c).sum(1)
    if x is None:
        return y
    dw = partial[0].reshape(plan.groups, 27, width, c).sum((0, 2))
    return y, dw.reshape(3, 3, 3, c)


def _with_zeros(flat: jax.Array, plan: _Plan, rows: int, lanes: int) -> jax.Array:
    """What TMA reads outside of the image, for an interpreter."""
    if not plan.interpreted:
        return flat
    return jnp.pad(flat, ((0, 0), (0, 0), (rows, rows + plan.below), (lanes, lanes)))


def forward(x: jax.Array, w: jax.Array, *, interpret: Any = None) -> jax.Array:
    """y [n, t, h, w, c] from x of that shape and w [3, 3, 3, c], padded with zeros by one.

    interpret: None or the parameters of jax's interpreter, as for `plgpu.kernel`.
    """
    return _run(x, w, None, interpret)


def fused(
    x: jax.Array,
    w: jax.Array,
    affine: jax.Array,
    activation: str | None,
    *,
    interpret: Any = None,
) -> tuple[jax.Array, jax.Array]:
    """activation(forward * scale + bias) and its sums over time, height and width, [n, c] float32.

    affine: [2, c], scale and bias. activation: None, "relu", "silu" or "hard_swish". All in
    float32, rounded once.
    """
    return _run(x, w, None, interpret, affine, activation)


def backward(
    x: jax.Array, w: jax.Array, dy: jax.Array, *, interpret: Any = None
) -> tuple[jax.Array, jax.Array]:
    """dx and dw [3, 3, 3, c] in the type of x. Arguments: as for `forward`."""
    dx, dw = _run(dy, jnp.flip(w, (0, 1, 2)), x, interpret)
    return dx, jnp.flip(dw, (0, 1, 2)).astype(x.dtype)
