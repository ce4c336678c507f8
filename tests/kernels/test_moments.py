"""Sums over everything but the channels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from kernels import dispatch

SHAPES = [(7, 3), (2, 5, 5, 54), (1, 3, 9, 33, 64), (2, 17, 3, 3, 1030), (1, 1, 1, 1, 2)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["xla_rows", "xla"])
def test_channel_sums(shape, name):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    wide = x.astype(np.float64).reshape(-1, shape[-1])
    total, squares = kernels.channel_sums(jnp.asarray(x), implementation=name)
    np.testing.assert_allclose(total, wide.sum(0), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(squares, (wide**2).sum(0), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES[1:])
@pytest.mark.parametrize("name", ["xla_rows", "xla"])
def test_spatial_sum(shape, name):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    ours = kernels.spatial_sum(jnp.asarray(x), implementation=name)
    theirs = x.astype(np.float64).sum(tuple(range(1, len(shape) - 1)))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["xla_rows", "xla"])
def test_product_sums(shape, name):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, *shape)).astype(np.float32)
    axes = tuple(range(1, len(shape) - 1))
    wide = a.astype(np.float64)
    ours = kernels.product_sums(jnp.asarray(a), jnp.asarray(b), implementation=name)
    for found, expected in zip(ours, (wide, wide * b), strict=True):
        np.testing.assert_allclose(found, expected.sum(axes), rtol=1e-5, atol=1e-4)


def test_gradients_of_product_sums():
    a, b = jax.random.normal(jax.random.key(0), (2, 2, 3, 4, 5))

    def loss(sums):
        return lambda a, b: sum(jnp.sin(part).sum() for part in sums(a, b))

    ours = jax.grad(loss(kernels.product_sums), (0, 1))(a, b)
    plain = jax.grad(loss(lambda a, b: (a.sum((1, 2)), (a * b).sum((1, 2)))), (0, 1))(a, b)
    for mine, other in zip(ours, plain, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-4)


def test_gradients_are_those_of_the_definition():
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 5, 6))

    def loss(x, channel, spatial):
        total, squares = channel(x)
        return (jnp.sin(total) + squares**2).sum() + jnp.tanh(spatial(x)).sum()

    def plain(x):
        return loss(
            x,
            lambda x: (x.sum((0, 1, 2, 3)), (x * x).sum((0, 1, 2, 3))),
            lambda x: x.sum((1, 2, 3)),
        )

    ours = jax.grad(lambda x: loss(x, kernels.channel_sums, kernels.spatial_sum))(x)
    np.testing.assert_allclose(ours, jax.grad(plain)(x), rtol=1e-4, atol=1e-4)


def test_half_precision_is_summed_in_float32():
    x = jnp.ones((1, 1, 2000, 3), jnp.bfloat16)
    total, squares = kernels.channel_sums(x)
    assert total.dtype == jnp.float32
    assert float(total[0]) == float(squares[0]) == 2000
    gradient = jax.grad(lambda x: kernels.channel_sums(x)[1].sum())(x)
    assert gradient.dtype == jnp.bfloat16


def test_vmap_and_choice():
    x = jax.random.normal(jax.random.key(0), (3, 4, 9, 9, 5))
    ours = jax.vmap(kernels.channel_sums)(x)[0]
    np.testing.assert_allclose(ours, x.sum((1, 2, 3)), rtol=1e-4, atol=1e-4)
    for platform, name in [("cpu", "xla_rows"), ("cuda", "xla"), ("tpu", "xla")]:
        ran = dispatch.implementations(kernels.spatial_sum, x, platform=platform)
        assert ran == {("spatial_sum", name)}
