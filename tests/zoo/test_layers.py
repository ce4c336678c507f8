"""Batch normalisation: against Flax, over masked examples, over devices, frozen."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo import layers


@pytest.fixture
def x() -> jax.Array:
    return 3 + 2 * jax.random.normal(jax.random.key(0), (6, 5, 4, 7))


def run(x: jax.Array, train: bool = True, **over: object):
    norm = layers.BatchNorm()
    variables = norm.init(jax.random.key(1), x, train=False)
    with layers.batch_statistics(**over):
        return norm.apply(variables, x, train=train, mutable=["batch_stats"])


def test_as_flax_does(x: jax.Array) -> None:
    flax_norm = nn.BatchNorm(momentum=0.9, epsilon=1e-5)
    variables = flax_norm.init(jax.random.key(1), x, use_running_average=True)
    for train in (False, True):
        wanted, stats = flax_norm.apply(
            variables, x, use_running_average=not train, mutable=["batch_stats"]
        )
        found, own_stats = run(x, train)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), own_stats, stats
        )


def test_masked_examples_do_not_count(x: jax.Array) -> None:
    mask = jnp.array([True, True, False, True, False, False])
    found, stats = run(x, mask=mask)
    wanted, wanted_stats = run(x[mask])
    np.testing.assert_allclose(found[mask], wanted, rtol=1e-5, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), stats, wanted_stats)


def test_mask_over_frames(x: jax.Array) -> None:
    """Three examples of two frames each."""
    mask = jnp.array([True, False, True])
    _, stats = run(x, mask=mask)
    _, wanted = run(x[jnp.repeat(mask, 2)])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), stats, wanted)


def test_a_mapped_axis_shares_its_statistics(x: jax.Array) -> None:
    parts = x.reshape(3, 2, *x.shape[1:])
    found, stats = jax.vmap(lambda x: run(x, axis_name="i"), axis_name="i")(parts)
    wanted, wanted_stats = run(x)
    np.testing.assert_allclose(found.reshape(x.shape), wanted, rtol=1e-4, atol=1e-5)
    for a, b in zip(jax.tree.leaves(stats), jax.tree.leaves(wanted_stats), strict=True):
        np.testing.assert_allclose(a[0], b, rtol=1e-5)


def test_frozen_uses_and_keeps_the_running_statistics(x: jax.Array) -> None:
    found, stats = run(x, frozen=True)
    np.testing.assert_allclose(found, x / np.sqrt(1 + 1e-5), rtol=1e-5)
    np.testing.assert_array_equal(stats["batch_stats"]["mean"], np.zeros(7))


def test_gradients(x: jax.Array) -> None:
    norm = layers.BatchNorm()
    flax_norm = nn.BatchNorm(momentum=0.9, epsilon=1e-5)
    variables = norm.init(jax.random.key(1), x, train=False)
    weights = jax.random.normal(jax.random.key(2), x.shape)

    def own(x: jax.Array) -> jax.Array:
        return (weights * norm.apply(variables, x, train=True, mutable=["batch_stats"])[0]).sum()

    def flax(x: jax.Array) -> jax.Array:
        y, _ = flax_norm.apply(variables, x, use_running_average=False, mutable=["batch_stats"])
        return (weights * y).sum()

    np.testing.assert_allclose(jax.grad(own)(x), jax.grad(flax)(x), rtol=1e-3, atol=1e-4)


def test_window_means_are_those_of_each_window() -> None:
    x = np.random.default_rng(0).standard_normal((2, 4, 5, 6, 3), np.float32)
    found = layers.window_means(jnp.asarray(x), (3, 5, 4))
    assert found.shape == (2, 2, 1, 3, 3)
    for t in range(2):
        for w in range(3):
            wanted = x[:, t : t + 3, :, w : w + 4].mean((1, 2, 3))
            np.testing.assert_allclose(found[:, t, 0, w], wanted, atol=1e-6)
    whole = layers.window_means(jnp.asarray(x), (4, 5, 6))
    np.testing.assert_allclose(whole[:, 0, 0, 0], x.mean((1, 2, 3)), atol=1e-6)


def test_drop_path_drops_whole_examples_and_keeps_the_mean() -> None:
    x = jnp.ones((400, 2, 1, 1, 3))
    drop = layers.drop_path(0.25, train=True)
    y = np.asarray(drop.apply({}, x, rngs={"dropout": jax.random.key(0)}))
    assert (y == y[:, :1, :, :, :1]).all()
    assert set(np.unique(y)) == {0, np.float32(1 / 0.75)}
    assert 0.15 < (y[:, 0, 0, 0, 0] == 0).mean() < 0.35
    assert (layers.drop_path(0.25, train=False).apply({}, x) == x).all()
    assert layers.drop_path_rates(0.3, (1, 3)) == [[0], pytest.approx([0.1, 0.2, 0.3])]
