"""A scale and a bias for each channel, and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from kernels import dispatch


def some(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize("shape", [(5, 3), (2, 9, 7, 54), (3, 2, 17, 9, 64), (1, 1, 1, 1, 432)])
@pytest.mark.parametrize("of_examples", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_values_and_gradients_are_those_of_the_definition(shape, of_examples, with_bias):
    each = (shape[0], shape[-1]) if of_examples else shape[-1:]
    arrays = [some(0, *shape), some(1, *each)] + [some(2, *each)] * with_bias

    def both(name):
        def loss(*arrays):
            y = kernels.channel_affine(*arrays, implementation=name)
            return jnp.sin(y).sum(), y

        numbers = tuple(range(len(arrays)))
        return jax.jit(jax.value_and_grad(loss, numbers, has_aux=True))(*arrays)

    for ours, theirs in zip(jax.tree.leaves(both(None)), jax.tree.leaves(both("xla")), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_each_gradient_alone_against_float64():
    x, scale, bias, dy = some(0, 2, 5, 5, 6), some(1, 6), some(2, 6), some(3, 2, 5, 5, 6)
    wide, wide_dy = np.float64(x), np.float64(dy)
    expected = {
        0: wide_dy * np.float64(scale),
        1: (wide_dy * wide).sum((0, 1, 2)),
        2: wide_dy.sum((0, 1, 2)),
    }
    for number, value in expected.items():

        def loss(a, number=number):
            arrays = [x, scale, bias]
            arrays[number] = a
            return (kernels.channel_affine(*arrays) * dy).sum()

        found = jax.grad(loss)([x, scale, bias][number])
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-5)


def test_the_second_derivative_is_that_of_the_definition():
    arrays = some(0, 2, 4, 3, 5), some(1, 5), some(2, 5)

    def penalty(name):
        def loss(*arrays):
            return jnp.tanh(kernels.channel_affine(*arrays, implementation=name)).sum()

        def size(*arrays):
            slopes = jax.grad(loss, (0, 1, 2))(*arrays)
            return sum((slope**2).sum() for slope in slopes)

        return jax.grad(size, (0, 1, 2))(*arrays)

    for ours, theirs in zip(penalty(None), penalty("xla"), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
def test_vmap_is_the_loop(axes):
    x = some(0, *([3] if axes[0] == 0 else []), 2, 4, 5)
    scale = some(1, *([3] if axes[1] == 0 else []), 5)

    def gradients(x, scale):
        return jax.grad(lambda *a: (kernels.channel_affine(*a) ** 2).sum(), (0, 1))(x, scale)

    ours = jax.jit(jax.vmap(gradients, axes))(x, scale)
    for number in range(3):
        one = [a if axis is None else a[number] for a, axis in zip((x, scale), axes, strict=True)]
        for a, b in zip(ours, gradients(*one), strict=True):
            np.testing.assert_allclose(a[number], b, rtol=1e-5, atol=1e-5)


def test_half_precision_is_computed_and_summed_in_float32():
    x = jnp.ones((1, 3000, 1), jnp.bfloat16)
    y, pull = jax.vjp(lambda *a: kernels.channel_affine(x, *a), jnp.ones(1), jnp.ones(1) / 512)
    assert y.dtype == jnp.bfloat16 and float(y[0, 0, 0]) == 1
    assert [float(slope[0]) for slope in pull(y)] == [3000, 3000]
    wide = kernels.channel_affine(x, jnp.ones(1), jnp.ones(1) / 512, dtype=jnp.float32)
    assert float(wide[0, 0, 0]) == 1 + 1 / 512


def test_which_implementation_runs(monkeypatch):
    x, scale = jnp.zeros((2, 3, 4)), jnp.zeros(4)

    def gradient():
        return lambda x, s: jax.grad(lambda s: kernels.channel_affine(x, s).sum())(s)

    for platform, name in (("cpu", "xla_rows"), ("cuda", "xla"), ("tpu", "xla")):
        ran = dispatch.implementations(gradient(), x, scale, platform=platform)
        assert ("product_sums", name) in ran
    monkeypatch.setenv("ZOO_KERNELS", "xla")
    ran = dispatch.implementations(lambda x, s: kernels.channel_affine(x, s), x, scale)
    assert ran == {("channel_affine", "xla")}


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"scale \(3,\) and bias None: give .* \(4,\) or \(2, 4\)"):
        kernels.channel_affine(jnp.zeros((2, 3, 4)), jnp.zeros(3))
    with pytest.raises(ValueError, match=r"bias \(2, 4\)"):
        kernels.channel_affine(jnp.zeros((2, 3, 4)), jnp.zeros(4), jnp.zeros((2, 4)))
