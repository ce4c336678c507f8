"""The block of the plain video CNN: convolution, bias, ReLU, max-pool.

    conv_bias_relu_pool(x, w, b, window) == max_pool(relu(conv(x, w) + b), window)

Adding a constant and ReLU keep the order of numbers, so that the pool may come first
("xla_rewrite"): then bias, ReLU, their derivatives and the sum for the bias work on a quarter of
the numbers. The forward pass keeps one byte for each output: which element of its window it came
from, or 255 (65535 for windows that large) where ReLU let nothing through. The backward pass reads
nothing but this index and the gradient, and writes what is as large as the convolution's result
once. The values are the same to the last bit; where two numbers of a window become equal only by
the rounding of the addition, their gradient goes to the one that was larger.

On a TPU the pool's derivative is XLA's, which needs the convolution's result ("xla_scatter"; the
reason is in kernels/pooling.py): it is computed again, or XLA sees that it is there already.
"pallas_tpu" (kernels/conv_block_tpu.py) is the whole block as one kernel there, by name only.

Batching. On a CPU vmap over the weights is one block after the other, also where all members see
the same x: one wide block is slower there, as its members lie apart in memory. Whole blocks are
written out, not single operators, because joining the members and taking them apart again between
a convolution and its pool costs as much as the convolution. Elsewhere the members of one x are one
wide block, and others follow the rules of convolution and pool.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from kernels import dispatch, pooling
from kernels.convolution import WRITTEN_OUT, conv
from kernels.derivatives import once
from kernels.materialize import materialized
from kernels.moments import bias_gradient
from kernels.pooling import max_pool
from kernels.windows import Padding, Windows


def conv_bias_relu_pool(
    x: jax.Array,
    w: jax.Array,
    b: jax.Array,
    window: int | Sequence[int] = 2,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    pool_stride: int | Sequence[int] | None = None,
    implementation: str | None = None,
) -> jax.Array:
    """x: [n, *spatial, c], w: [*window, c, o], b: [o], 2 or 3 spatial axes, all of one type.

    window, pool_stride: of the pool, which has no padding. stride, padding: of the convolution.
    implementation: "xla" (definition), "xla_rewrite", "xla_scatter", "pallas_tpu" (3x3 over images,
    no padding, pool of 2x2) or None.
    Returns [n, *outputs, o]. Differentiable once, in reverse ("xla" as often as XLA allows).
    Raises ValueError where the shapes do not fit together.
    """
    y = jax.eval_shape(functools.partial(conv, stride=stride, padding=padding), x, w)
    if b.shape != y.shape[-1:] or b.dtype != x.dtype:
        raise ValueError(
            f"b is {b.dtype} {b.shape}: give one {x.dtype} for each of the {y.shape[-1]} outputs"
        )
    step = window if pool_stride is None else pool_stride
    pool = Windows.of(y.shape, window, step, "VALID")
    name = dispatch.requested(implementation)
    problem = _Problem(
        pool,
        stride if isinstance(stride, int) else tuple(stride),
        padding if isinstance(padding, str) else tuple((low, high) for low, high in padding),
        name,
    )
    if name == "xla":
        return dispatch.call("conv_bias_relu_pool", [_XLA], name, x, w, b, problem=problem)
    return _block(problem, x, w, b)


@dataclasses.dataclass(frozen=True)
class _Problem:
    """All that is fixed about one block; name: the implementation asked for."""

    pool: Windows
    stride: int | tuple[int, ...]
    padding: Padding
    name: str | None

    def conv(self, x: jax.Array, w: jax.Array) -> jax.Array:
        return conv(x, w, stride=self.stride, padding=self.padding)


def _definition(x: jax.Array, w: jax.Array, b: jax.Array, *, problem: _Problem) -> jax.Array:
    y = conv(x, w, stride=problem.stride, padding=problem.padding, implementation="xla")
    y = jax.nn.relu(y + b)
    pool = problem.pool
    return max_pool(y, pool.window, stride=pool.stride, implementation="xla")


def _value(x: jax.Array, w: jax.Array, b: jax.Array, *, problem: _Problem) -> tuple[jax.Array]:
    y = max_pool(problem.conv(x, w), problem.pool.window, stride=problem.pool.stride)
    return (jax.nn.relu(y + b),)


def _value_and_index(
    x: jax.Array, w: jax.Array, b: jax.Array, *, problem: _Problem
) -> tuple[jax.Array, jax.Array]:
    y, index = pooling.value_and_index(problem.conv(x, w), problem.pool)
    y = y + b
    return jax.nn.relu(y), jnp.where(y > 0, index, pooling.nothing(index.dtype))


def _value_and_index_kept(
    x: jax.Array, w: jax.Array, b: jax.Array, *, problem: _Problem
) -> tuple[jax.Array, jax.Array]:
    """The same for a CPU, with the index written once and not found again by each reader."""
    y, index = pooling.find(problem.conv(x, w), windows=problem.pool)
    y = y + b
    index = jnp.where(y > 0, index, pooling.nothing(index.dtype))
    return jax.nn.relu(y), pooling.kept(index, problem.pool)


def _value_alone(
    x: jax.Array, w: jax.Array, b: jax.Array, *, problem: _Problem
) -> tuple[jax.Array, jax.Array]:
    """The result, and in place of the index what costs nothing: _gradients_again reads none."""
    y = _pooled(x, w, b, problem)
    return y, jnp.zeros(y.shape, pooling.index_type(problem.pool))


def _pooled(x: jax.Array, w: jax.Array, b: jax.Array, problem: _Problem) -> jax.Array:
    pool = problem.pool
    y = max_pool(problem.conv(x, w), pool.window, stride=pool.stride, implementation="xla_scatter")
    return jax.nn.relu(y + b)


def _gradients_again(
    x: jax.Array, w: jax.Array, b: jax.Array, index: jax.Array, dz: jax.Array, *, problem: _Problem
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """By x, b and w, from the inputs alone."""
    _, pull = jax.vjp(lambda x, w, b: _pooled(x, w, b, problem), x, w, b)
    dx, dw, db = pull(dz)
    return dx, db, dw


def _bias_gradient(index: jax.Array, dz: jax.Array) -> jax.Array:
    alive = index != pooling.nothing(index.dtype)
    return bias_gradient(jnp.where(alive, dz, jnp.zeros((), dz.dtype)))


def _gradients(
    x: jax.Array,
    w: jax.Array,
    b: jax.Array,
    index: jax.Array,
    dz: jax.Array,
    *,
    problem: _Problem,
    pool: str | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """By x, b and w; pool: the implementation of the pool's derivative."""
    _, pull = jax.vjp(problem.conv, x, w)
    dx, dw = pull(pooling.gradient_from_index(index, dz, problem.pool, pool))
    return dx, _bias_gradient(index, dz), dw


def _not_on_tpu(x: jax.Array, w: jax.Array, *rest: jax.Array, problem: _Problem) -> str | None:
    from kernels import conv_block_tpu  # Pallas is slow to import, and few programs need it

    return conv_block_tpu.refuses(x, w, problem.stride, problem.padding, problem.pool)


def _forward_tpu(
    x: jax.Array, w: jax.Array, b: jax.Array, *, problem: _Problem
) -> tuple[jax.Array, jax.Array]:
    from kernels import conv_block_tpu

    return conv_block_tpu.forward(x, w, b)


def _member(a: jax.Array, number: int, after: jax.Array | None) -> jax.Array:
    """a[number]; where `after` is given, a zero, not before that is known."""
    if a.ndim == 2:  # A bias, apart from its reader, whose loop XLA else does not vectorise.
        return materialized(a[number])
    if after is None:
        return a[number]
    if jnp.issubdtype(a.dtype, jnp.integer):
        return a[number] + after.astype(a.dtype)
    return lax.dynamic_index_in_dim(a, number + after, keepdims=False)


def _by_platform(
    run: Callable[..., Any],
    elsewhere: Callable[..., Any],
    size: int,
    batched: list[bool],
    arrays: Sequence[jax.Array],
    ordered: int,
    on_tpu: Callable[..., Any] | None = None,
) -> Any:
    """vmap as `size` calls of run, one after the other, on a CPU, and as `elsewhere` on the rest.

    on_tpu: in place of `elsewhere` there.

    XLA would run the first operation of all members, then the second, with the results of all in
    memory and none in the cache. So a member begins with arrays[ordered], and that waits for the
    member before: it is read at a place that depends on that one's result, though it is always the
    same. Beyond 64 members the program would become too long.
    """

    def one(parts: Sequence[jax.Array]) -> Any:
        queue = iter(parts)
        return run(*(next(queue) if b else a for a, b in zip(arrays, batched, strict=True)))

    def in_turn(*parts: jax.Array) -> Any:
        waiting = sum(batched[:ordered]) if batched[ordered] else None
        results, zero = [], None
        for number in range(size):
            members = [
                _member(part, number, zero if place == waiting else None)
                for place, part in enumerate(parts)
            ]
            results.append(one(members))
            # Not the first result: the gradient by x may not be wanted.
            last = results[-1][-1].ravel()[0].astype(jnp.float32)
            zero = (last * 0).astype(jnp.int32)  # XLA keeps this product: it might be NaN
        return jax.tree.map(lambda *members: jnp.stack(members), *results)

    def whole(call: Callable[..., Any]) -> Callable[..., Any]:
        def at_once(*parts: jax.Array) -> Any:
            queue = iter(parts)
            return call(*(next(queue) if b else a for a, b in zip(arrays, batched, strict=True)))

        return at_once

    mapped = [a for a, b in zip(arrays, batched, strict=True) if b]
    special = {} if on_tpu is None else {"tpu": whole(on_tpu)}
    if size <= WRITTEN_OUT:
        special["cpu"] = in_turn
    if not special:
        return whole(elsewhere)(*mapped)
    return lax.platform_dependent(*mapped, default=whole(elsewhere), **special)


def _widened(a: jax.Array, batched: bool, size: int) -> jax.Array:
    """[size, ..., c] (or [..., c] where not batched) to [..., size * c], member after member."""
    a = jnp.moveaxis(a, 0, -2) if batched else jnp.stack([a] * size, -2)
    return a.reshape(*a.shape[:-2], -1)


def _members(a: jax.Array, size: int) -> jax.Array:
    """Undoes _widened."""
    return jnp.moveaxis(a.reshape(*a.shape[:-1], size, -1), -2, 0)


@functools.cache
def _forward_of(problem: _Problem, with_index: bool) -> Callable[..., tuple[jax.Array, ...]]:
    """(x, w, b) to the result, and its index if wanted, with the batching rule."""
    candidates = _FORWARD if with_index else _VALUE

    def plain(x: jax.Array, w: jax.Array, b: jax.Array) -> tuple[jax.Array, ...]:
        name = problem.name
        return dispatch.call("conv_bias_relu_pool", candidates, name, x, w, b, problem=problem)

    run = custom_vmap(plain)

    @run.def_vmap
    def rule(size: int, batched: list[bool], *arrays: jax.Array) -> tuple[Any, Any]:
        def wide(x: jax.Array, w: jax.Array, b: jax.Array) -> tuple[jax.Array, ...]:
            found = run(x, _widened(w, batched[1], size), _widened(b, batched[2], size))
            return tuple(_members(a, size) for a in found)

        if batched == [True, False, False]:
            x, *rest = arrays
            found = run(x.reshape(-1, *x.shape[2:]), *rest)
            found = tuple(a.reshape(size, -1, *a.shape[1:]) for a in found)
        else:
            axes = [0 if b else None for b in batched]
            elsewhere = jax.vmap(plain, axes, axis_size=size) if batched[0] else wide
            found = _by_platform(run, elsewhere, size, batched, arrays, ordered=1)
        return found, (True,) * len(found)

    return run


@functools.cache
def _backward_of(problem: _Problem) -> Callable[..., tuple[jax.Array, jax.Array, jax.Array]]:
    """(x, w, b, index, dz) to the gradients by x, b and w, with the batching rule."""

    def plain(*arrays: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        name, operator = problem.name, "conv_bias_relu_pool_gradients"
        return dispatch.call(operator, _GRADIENTS, name, *arrays, problem=problem)

    run = custom_vmap(plain)

    @run.def_vmap
    def rule(size: int, batched: list[bool], *arrays: jax.Array) -> tuple[Any, Any]:
        def wide(x: jax.Array, *rest: jax.Array) -> tuple[jax.Array, ...]:
            w, _, index, dz = (
                _widened(a, is_mapped, size) for a, is_mapped in zip(rest, batched[1:], strict=True)
            )
            dy = pooling.gradient_from_index(index, dz, problem.pool)
            _, pull = jax.vjp(lambda w: problem.conv(x, w), w)

            def by_x(dy: jax.Array, w: jax.Array) -> jax.Array:
                return jax.vjp(lambda x: problem.conv(x, w), x)[1](dy)[0]

            dx = jax.vmap(by_x)(_members(dy, size), _members(w, size))
            return dx, _members(_bias_gradient(index, dz), size), _members(pull(dy)[0], size)

        mapped = jax.vmap(plain, [0 if b else None for b in batched], axis_size=size)
        by_index = problem.name not in ("xla_scatter", "pallas_tpu")
        elsewhere = wide if not batched[0] and by_index else mapped
        found = _by_platform(run, elsewhere, size, batched, arrays, ordered=3, on_tpu=mapped)
        return found, (True,) * 3

    return run


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _block(problem: _Problem, x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
    return _forward_of(problem, False)(x, w, b)[0]


def _block_forward(
    problem: _Problem, x: jax.Array, w: jax.Array, b: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    z, index = once(_forward_of(problem, True), "conv_bias_relu_pool")(x, w, b)
    return z, (x, w, b, index)


def _block_backward(
    problem: _Problem, kept: tuple[jax.Array, ...], dz: jax.Array
) -> tuple[jax.Array, ...]:
    dx, db, dw = once(_backward_of(problem), "conv_bias_relu_pool")(*kept, dz)
    return dx, dw, db


_block.defvjp(_block_forward, _block_backward)

_XLA = dispatch.Implementation("xla", _definition)
_SCATTER = functools.partial(dispatch.Implementation, "xla_scatter", platforms=("tpu",))
# By name only: no TPU was at hand, and by the count of bundles it is no shorter than XLA's two
# kernels, though it moves about a quarter as much.
_TPU = functools.partial(dispatch.Implementation, "pallas_tpu", platforms=(), refuses=_not_on_tpu)
_VALUE = (
    dispatch.Implementation("xla_scatter", _value, platforms=()),
    _TPU(lambda x, w, b, *, problem: _forward_tpu(x, w, b, problem=problem)[:1]),
    dispatch.Implementation("xla_rewrite", _value),
)
_FORWARD = (
    _TPU(_forward_tpu),
    _SCATTER(_value_alone),
    dispatch.Implementation("xla_rewrite", _value_and_index_kept, platforms=("cpu",)),
    dispatch.Implementation("xla_rewrite", _value_and_index),
)
_GRADIENTS = (
    _TPU(functools.partial(_gradients, pool="pallas_tpu")),
    _SCATTER(_gradients_again),
    dispatch.Implementation("xla_rewrite", _gradients),
)
