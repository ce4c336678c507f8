"""Attention against its definition written out, and what each platform runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from kernels import dispatch, dot_product

NAMES = ["xla_heads", "xla"]


def arrays(b=4, n=6, m=6, h=2, d=8, e=5, dtype=np.float32):
    rng = np.random.default_rng(0)
    shapes = [(b, n, h, d), (b, m, h, d), (b, m, h, e)]
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def written_out(q, k, v, bias=None, segments=None, scale=None):
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    out = np.zeros((*q.shape[:3], v.shape[-1]))
    for i in range(q.shape[0]):
        for h in range(q.shape[2]):
            logits = q[i, :, h] @ k[i, :, h].T * (q.shape[-1] ** -0.5 if scale is None else scale)
            if bias is not None:
                logits = logits + np.asarray(bias[h])
            if segments is not None:
                row = np.asarray(segments)[i % len(segments)]
                logits = np.where(row[:, None] == row[None], logits, -np.inf)
            weights = np.exp(logits - logits.max(-1, keepdims=True))
            out[i, :, h] = weights / weights.sum(-1, keepdims=True) @ v[i, :, h]
    return out


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("with_segments", [False, True])
def test_values(name, with_bias, with_segments):
    q, k, v = arrays()
    bias = jax.random.normal(jax.random.key(0), (2, 6, 6)) if with_bias else None
    segments = jnp.array([[0, 0, 1, 1, 2, 2], [0] * 6]) if with_segments else None
    ours = kernels.attention(q, k, v, bias=bias, segments=segments, implementation=name)
    np.testing.assert_allclose(ours, written_out(q, k, v, bias, segments), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("n", "m"), [(1, 9), (700, 3), (1100, 7)])
def test_other_numbers_of_keys_and_blocks_of_queries(name, n, m, monkeypatch):
    monkeypatch.setattr(dot_product, "_WEIGHTS", 3000)
    q, k, v = arrays(2, n, m)
    ours = kernels.attention(q, k, v, scale=1.0, implementation=name)
    np.testing.assert_allclose(ours, written_out(q, k, v, scale=1.0), rtol=1e-4, atol=1e-5)


def test_large_products_do_not_overflow():
    q, k, v = arrays()
    for name in NAMES:
        ours = kernels.attention(q * 100, k * 100, v, implementation=name)
        np.testing.assert_allclose(ours, written_out(q * 100, k * 100, v), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_the_definition(name):
    q, k, v = arrays()
    bias = jax.random.normal(jax.random.key(0), (2, 6, 6))
    segments = jnp.array([[0, 0, 0, 1, 1, 1], [0] * 6])

    def plain(q, k, v, bias):
        logits = jnp.einsum("bnhd,bmhd->bhnm", q, k) * q.shape[-1] ** -0.5 + bias
        rows = jnp.tile(segments, (2, 1))[:, None]
        logits = jnp.where(rows[..., :, None] == rows[..., None, :], logits, -jnp.inf)
        return jnp.einsum("bhnm,bmhe->bnhe", jax.nn.softmax(logits, axis=-1), v)

    def ours(q, k, v, bias):
        return kernels.attention(q, k, v, bias=bias, segments=segments, implementation=name)

    got, expected = (
        jax.grad(lambda *x, f=f: jnp.sin(f(*x)).sum(), argnums=(0, 1, 2, 3))(q, k, v, bias)
        for f in (ours, plain)
    )
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_takes_its_weights_in_float32(name):
    q, k, v = arrays(m=2000, dtype=jnp.bfloat16)
    ours = kernels.attention(q, k, v, implementation=name)
    assert ours.dtype == jnp.bfloat16
    # A sum of 2000 equal weights in bfloat16 would stop at 256.
    np.testing.assert_allclose(
        kernels.attention(q * 0, k, v * 0 + 1, implementation=name), 1, rtol=1e-2
    )
    exact = written_out(q, k, v)
    assert np.abs(np.asarray(ours, np.float32) - exact).max() < 0.02


def test_vmap_and_choice():
    q, k, v = (jnp.stack([x, x + 1]) for x in arrays())
    ours = jax.vmap(kernels.attention)(q, k, v)
    for i in range(2):
        np.testing.assert_allclose(ours[i], written_out(q[i], k[i], v[i]), rtol=1e-4, atol=1e-5)
    few, many = arrays(), arrays(1, 100, 100)
    for platform, name in [("cpu", "xla_heads"), ("cuda", "xla"), ("tpu", "xla")]:
        ran = dispatch.implementations(kernels.attention, *many, platform=platform)
        assert ran == {("attention", name)}
        ran = dispatch.implementations(kernels.attention, *few, platform=platform)
        assert ran == {("attention", "xla")}


def test_shapes_that_do_not_fit_are_refused():
    q, k, v = arrays()
    with pytest.raises(ValueError, match=r"q has shape .* and v"):
        kernels.attention(q, k, v[:, :3])
    with pytest.raises(ValueError, match=r"it must be \(2, 6, 6\)"):
        kernels.attention(q, k, v, bias=jnp.zeros((1, 6, 6)))
    with pytest.raises(ValueError, match="divides 4"):
        kernels.attention(q, k, v, segments=jnp.zeros((3, 6), jnp.int32))
