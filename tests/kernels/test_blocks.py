"""depthwise_conv3d and conv_bias_relu_pool against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from kernels import dispatch


def some(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize("activation", [None, "relu", "silu", "hard_swish"])
def test_depthwise_with_its_epilogue(activation):
    x, w, scale, bias = some(0, 2, 3, 7, 5, 6), some(1, 3, 3, 3, 6), some(2, 6), some(3, 6)

    def loss(x, w, scale, bias, implementation=None):
        y, sums = kernels.depthwise_conv3d(
            x,
            w,
            scale=scale,
            bias=bias,
            activation=activation,
            stride=(1, 2, 2),
            implementation=implementation,
        )
        return (y**2).sum() + jnp.tanh(sums / 100).sum(), (y, sums)

    def both(*arguments):
        return jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True)(*arguments)

    ours = jax.jit(both)(x, w, scale, bias)
    theirs = jax.jit(
        jax.value_and_grad(lambda *a: loss(*a, "xla"), argnums=(0, 1, 2, 3), has_aux=True)
    )(x, w, scale, bias)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
    y, sums = ours[0][1]
    np.testing.assert_allclose(sums, y.sum((1, 2, 3)), rtol=1e-4, atol=1e-3)


def test_depthwise_refuses_what_does_not_fit():
    x = jnp.zeros((1, 3, 3, 3, 4))
    with pytest.raises(ValueError, match=r"\[kt, kh, kw, c\]"):
        kernels.depthwise_conv3d(x, jnp.zeros((3, 3, 3, 5)))
    with pytest.raises(ValueError, match="activation is 'gelu'"):
        kernels.depthwise_conv3d(x, jnp.zeros((3, 3, 3, 4)), activation="gelu")


@pytest.mark.parametrize("shape", [(2, 11, 9, 3), (1, 3, 8, 8, 4)])
def test_the_block_is_its_definition(shape):
    axes = len(shape) - 2
    window = (1,) * (axes - 2) + (2, 2)
    x, w, b = some(0, *shape), some(1, *(3,) * axes, shape[-1], 5), some(2, 5)

    def both(implementation):
        def loss(x, w, b):
            y = kernels.conv_bias_relu_pool(x, w, b, window, implementation=implementation)
            return (y**2).sum(), y

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(x, w, b)

    for ours, theirs in zip(jax.tree.leaves(both(None)), jax.tree.leaves(both("xla")), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_block_tells_what_it_is_made_of(monkeypatch):
    x, w, b = some(0, 1, 8, 8, 3), some(1, 3, 3, 3, 4), some(2, 4)

    def gradients(x, w, b):
        return jax.grad(lambda w, b: kernels.conv_bias_relu_pool(x, w, b).sum(), (0, 1))(w, b)

    ran = dispatch.implementations(gradients, x, w, b)
    assert ("conv_bias_relu_pool", "xla_rewrite") in ran
    assert ("max_pool_dx", "xla_index") in ran
    assert ("bias_gradient", "xla_rows") in ran
    monkeypatch.setenv("ZOO_KERNELS", "xla")
    ran = dispatch.implementations(lambda x, w, b: gradients(x, w, b), x, w, b)
    assert {name for _, name in ran} == {"xla"}
