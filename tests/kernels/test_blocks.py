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

    expected = jax.tree.leaves(both("xla"))
    for name in (None, "xla_scatter"):
        for ours, theirs in zip(jax.tree.leaves(both(name)), expected, strict=True):
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


@pytest.mark.parametrize("size", [3, 65])  # written out, and XLA's own batching
@pytest.mark.parametrize("axes", [(0, None, None), (None, 0, 0), (0, 0, 0), (None, None, 0)])
def test_vmap_of_the_block_is_the_loop(axes, size):
    shapes = ((2, 8, 7, 3), (3, 3, 3, 4), (4,))
    arrays = [
        some(n, *(shape if axis is None else (size, *shape)))
        for n, (shape, axis) in enumerate(zip(shapes, axes, strict=True))
    ]

    def gradients(x, w, b):
        def loss(x, w, b):
            y = kernels.conv_bias_relu_pool(x, w, b)
            return (y**2).sum(), y

        return jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(x, w, b)

    def value(*arguments):
        return kernels.conv_bias_relu_pool(*arguments)

    ours = jax.jit(jax.vmap(gradients, axes))(*arrays)
    values = jax.jit(jax.vmap(value, axes))(*arrays)
    alone = jax.jit(gradients)
    for number in {0, 1, size - 1}:
        one = [a if axis is None else a[number] for a, axis in zip(arrays, axes, strict=True)]
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(alone(*one)), strict=True):
            np.testing.assert_allclose(a[number], b, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(values[number], value(*one), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("axes", [(None, 0, 0), (0, 0, 0)])
def test_vmap_of_the_tpus_block_is_the_loop(axes):
    shapes = ((2, 8, 7, 3), (3, 3, 3, 4), (4,))
    arrays = [
        some(n, *(shape if axis is None else (3, *shape)))
        for n, (shape, axis) in enumerate(zip(shapes, axes, strict=True))
    ]

    def gradients(name):
        def loss(*arrays):
            return (kernels.conv_bias_relu_pool(*arrays, implementation=name) ** 2).sum()

        return jax.jit(jax.vmap(jax.value_and_grad(loss, (0, 1, 2)), axes))

    ours, theirs = (gradients(name)(*arrays) for name in ("xla_scatter", "xla"))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("axes", [(None, 0, 0), (0, 0, 0)])
def test_the_batched_block_lowers_for_accelerators(axes, platform):
    shapes = ((2, 8, 8, 3), (3, 3, 3, 4), (4,))
    arrays = [
        jnp.zeros(shape if axis is None else (3, *shape))
        for shape, axis in zip(shapes, axes, strict=True)
    ]
    gradient = jax.grad(lambda *a: kernels.conv_bias_relu_pool(*a).sum(), (0, 1, 2))
    ran = dispatch.implementations(jax.vmap(gradient, axes), *arrays, platform=platform)
    names = {name for operator, name in ran if operator != "bias_gradient"}
    pool = "xla_scatter" if platform == "tpu" else "xla_index"
    assert names >= {"xla_rewrite", pool} and ("xla_index" in names) == (platform == "cuda")


def test_members_follow_one_another_in_memory():
    """Without an order XLA keeps the convolutions of all members at the same time."""
    size, x = 8, jnp.zeros((8, 4, 32, 32, 3))
    weights = jnp.zeros((size, 3, 3, 3, 32)), jnp.zeros((size, 3, 3, 32, 8))
    biases = jnp.zeros((size, 32)), jnp.zeros((size, 8))

    def two(x, weights, biases):
        for w, b in zip(weights, biases, strict=True):
            x = kernels.conv_bias_relu_pool(x, w, b)
        return x

    def temporaries(function, *arrays):
        return jax.jit(function).lower(*arrays).compile().memory_analysis().temp_size_in_bytes

    one = jax.tree.map(lambda a: a[0], (x, weights, biases))
    assert temporaries(jax.vmap(two), x, weights, biases) < 4 * temporaries(two, *one)


def test_relu_lets_no_gradient_through_where_nothing_is_positive():
    x = jnp.asarray([1.0, 2.0, -3.0, jnp.nan]).reshape(1, 1, 4, 1)
    w = jnp.ones((1, 1, 1, 1))

    def values(x, b):
        return kernels.conv_bias_relu_pool(x, w, b, (1, 2))

    y, pull = jax.vjp(values, x, jnp.asarray([-1.0]))
    np.testing.assert_array_equal(y.ravel(), [1, jnp.nan])
    dx, db = pull(jnp.ones_like(y))
    np.testing.assert_array_equal(dx.ravel(), [0, 1, 0, 0])
    assert float(db[0]) == 1
    y, pull = jax.vjp(values, x, jnp.asarray([-2.0]))
    np.testing.assert_array_equal(pull(jnp.ones_like(y))[0], 0)


def test_a_bias_that_does_not_fit_is_named():
    with pytest.raises(
        ValueError, match=r"b is float32 \(3,\): give one float32 for each of the 4"
    ):
        kernels.conv_bias_relu_pool(
            jnp.zeros((1, 4, 4, 3)), jnp.zeros((3, 3, 3, 4)), jnp.zeros((3,))
        )
