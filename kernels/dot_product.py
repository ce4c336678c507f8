"""Attention: every query's average of the values, weighted by the likeness of its key.

    attention(q, k, v, bias) == softmax(q k' * scale + bias) v, head by head

The weights are taken in float32 whatever the type of q. On a CPU, XLA walks over all heads once
for each step of the softmax, through memory; "xla_heads" finishes one head before the next, so that
its weights stay in the cache, and adds them up in the product with the values (a column of ones),
because XLA adds along rows one number at a time. CPU seconds over those of the definition, on two
cores: 0.45 for 1568 tokens in 12 heads of 64, 0.56 for 32 windows of 392 tokens in 6 heads of 32,
but 1.8 for 32 tokens; so few are left to the definition.

The backward pass computes the weights again, so that no [b h n m] outlives the forward pass.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from kernels import dispatch

# Fewer weights in a head than this are not worth a step of a loop.
_FEW = 100 * 100
# Weights of one head that are computed at once ("xla_heads"), and queries where there are more.
_WEIGHTS, _QUERIES = 2048 * 2048, 512
# What a token of another segment gets in place of its likeness; exp of it is 0.
_APART = -1e9


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    bias: jax.Array | None = None,
    segments: jax.Array | None = None,
    scale: float | None = None,
    implementation: str | None = None,
) -> jax.Array:
    """Scaled dot-product attention without a mask over time.

    q: [b, n, h, d]. k: [b, m, h, d]. v: [b, m, h, e]. All of one type, in which it computes.
    bias: [h, n, m], added to the scaled products.
    segments: [w, n] integers, where n == m and w divides b: tokens of example i see those of their
    own segment in row i % w (windows of an image, example by example).
    scale: d ** -0.5 where None. implementation: "xla" (definition), "xla_heads" or None.
    Returns [b, n, h, e]. Differentiable in reverse. Raises ValueError where shapes do not fit.
    """
    b, n, h, d = q.shape
    m = k.shape[1]
    if k.shape != (b, m, h, d) or v.shape[:-1] != (b, m, h):
        raise ValueError(
            f"q has shape {q.shape}, k {k.shape} and v {v.shape}: attention takes [b, n, h, d], "
            "[b, m, h, d] and [b, m, h, e]"
        )
    if bias is not None and bias.shape != (h, n, m):
        raise ValueError(f"bias has shape {bias.shape}: for this q and k it must be {(h, n, m)}")
    if segments is not None and (n != m or segments.shape[1:] != (n,) or b % len(segments)):
        raise ValueError(
            f"segments has shape {segments.shape}: for this q and k it must be [w, {n}] with a w "
            f"that divides {b}, and as many keys as queries"
        )
    factor = d**-0.5 if scale is None else scale
    q = q if factor == 1 else (q.astype(_wide(q)) * factor).astype(q.dtype)
    name = dispatch.requested(implementation)
    if name is None and n * m < _FEW:
        name = "xla"
    return _attention(name, q, k, v, bias, segments)


def _wide(x: jax.Array) -> Any:
    return jnp.promote_types(x.dtype, jnp.float32)


def _softmax_terms(logits: jax.Array, bias: jax.Array | None, queries: Any, keys: Any) -> jax.Array:
    """exp of the logits, scaled so that the largest of each query is 1."""
    if bias is not None:
        logits = logits + bias.astype(logits.dtype)
    if queries is not None:
        logits = jnp.where(queries == keys, logits, _APART)
    return jnp.exp(logits - lax.stop_gradient(logits.max(-1, keepdims=True)))


def _all_heads(q: Any, k: Any, v: Any, bias: Any, segments: Any) -> jax.Array:
    """The definition."""
    logits = jnp.einsum("bnhd,bmhd->bhnm", q, k, preferred_element_type=_wide(q))
    queries = keys = None
    if segments is not None:
        rows = jnp.tile(segments, (len(q) // len(segments), 1))[:, None]
        queries, keys = rows[..., :, None], rows[..., None, :]
    terms = _softmax_terms(logits, bias, queries, keys)
    weights = (terms / terms.sum(-1, keepdims=True)).astype(v.dtype)
    return jnp.einsum("bhnm,bmhe->bnhe", weights, v)


def _head_by_head(q: Any, k: Any, v: Any, bias: Any, segments: Any) -> jax.Array:
    """The same in a loop over heads and examples."""
    b, n, _, _ = q.shape
    m = k.shape[1]
    v = jnp.concatenate([v, jnp.ones((*v.shape[:-1], 1), v.dtype)], axis=-1)
    q, k, v = (x.transpose(2, 0, 1, 3) for x in (q, k, v))  # h b n d
    examples = jnp.arange(b)

    def rows(q: jax.Array, k: jax.Array, v: jax.Array, bias: Any, segment: Any) -> jax.Array:
        logits = jnp.dot(q, k.T, preferred_element_type=_wide(q))
        sides = (None, None) if segment is None else (segment[:, None], segment[None])
        terms = _softmax_terms(logits, bias, *sides).astype(v.dtype)
        sums = jnp.dot(terms, v, preferred_element_type=_wide(q))
        return (sums[:, :-1] / sums[:, -1:]).astype(v.dtype)

    def one(bias: Any, head: tuple[jax.Array, ...]) -> jax.Array:
        q, k, v, example = head
        segment = None if segments is None else segments[example % len(segments)]
        if n * m <= _WEIGHTS or n <= _QUERIES or bias is not None or segment is not None:
            return rows(q, k, v, bias, segment)
        blocks = -(-n // _QUERIES)
        q = jnp.pad(q, ((0, blocks * _QUERIES - n), (0, 0))).reshape(blocks, _QUERIES, -1)
        return lax.map(lambda q: rows(q, k, v, None, None), q).reshape(-1, v.shape[-1] - 1)[:n]

    def every(head: tuple[Any, ...]) -> jax.Array:
        *qkv, bias = head
        return lax.map(functools.partial(one, bias), (*qkv, examples))

    return lax.map(every, (q, k, v, bias)).transpose(1, 2, 0, 3)


_IMPLEMENTATIONS = (
    dispatch.Implementation("xla_heads", _head_by_head, platforms=("cpu",)),
    dispatch.Implementation("xla", _all_heads),
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(name: str | None, q: Any, k: Any, v: Any, bias: Any, segments: Any) -> jax.Array:
    return dispatch.call("attention", _IMPLEMENTATIONS, name, q, k, v, bias, segments)


def _gradients(run: Any, arrays: tuple[Any, ...], d: jax.Array) -> tuple[Any, ...]:
    *differentiable, segments = arrays
    return jax.vjp(lambda *arrays: run(*arrays, segments), *differentiable)[1](d)


_GRADIENTS = tuple(
    dispatch.Implementation(i.name, functools.partial(_gradients, i.run), i.platforms)
    for i in _IMPLEMENTATIONS
)


def _backward(name: str | None, arrays: tuple[Any, ...], d: jax.Array) -> tuple[Any, ...]:
    return (*dispatch.call("attention_gradients", _GRADIENTS, name, arrays, d), None)


_attention.defvjp(lambda name, *arrays: (_attention(name, *arrays), arrays), _backward)
