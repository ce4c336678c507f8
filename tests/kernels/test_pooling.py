"""max_pool against a float64 reference written as loops, and against XLA's select_and_scatter."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels
from kernels import dispatch, pooling
from kernels.windows import Windows


def reference(x, dy, window, stride, padding):
    """Maximum and gradient: the first NaN, else the first maximum, among elements in the input."""
    x, dy = np.asarray(x, np.float64), np.asarray(dy, np.float64)
    sizes = x.shape[1:-1]
    outputs = [
        (s + sum(p) - k) // t + 1 for s, p, k, t in zip(sizes, padding, window, stride, strict=True)
    ]
    y = np.full((x.shape[0], *outputs, x.shape[-1]), -np.inf)
    dx = np.zeros_like(x)
    for n, c in itertools.product(range(x.shape[0]), range(x.shape[-1])):
        for place in np.ndindex(*outputs):
            best = None
            for tap in np.ndindex(*window):
                at = tuple(
                    i * t + k - p[0] for i, t, k, p in zip(place, stride, tap, padding, strict=True)
                )
                if not all(0 <= a < s for a, s in zip(at, sizes, strict=True)):
                    continue
                value = x[(n, *at, c)]
                if best is None or value > best[0] or (np.isnan(value) and not np.isnan(best[0])):
                    best = (value, at)
            if best is not None:
                y[(n, *place, c)] = best[0]
                dx[(n, *best[1], c)] += dy[(n, *place, c)]
    return y, dx


def value_and_gradient(x, dy, window, stride, padding, implementation=None):
    def pool(x):
        return kernels.max_pool(
            x, window, stride=stride, padding=padding, implementation=implementation
        )

    @jax.jit
    def both(x, dy):
        y, pull = jax.vjp(pool, x)
        return y, pull(dy)[0]

    return both(x, dy)


@st.composite
def problems(draw):
    axes = draw(st.integers(1, 3))
    window = tuple(draw(st.integers(1, 3)) for _ in range(axes))
    stride = tuple(draw(st.integers(1, 3)) for _ in range(axes))
    padding = tuple((draw(st.integers(0, k)), draw(st.integers(0, k))) for k in window)
    sizes = tuple(
        draw(st.integers(max(1, k - sum(p)), 6)) for k, p in zip(window, padding, strict=True)
    )
    return sizes, window, stride, padding, draw(st.integers(0, 2**31))


@settings(max_examples=25, deadline=None)
@given(problems())
def test_values_and_gradients(problem):
    sizes, window, stride, padding, seed = problem
    rng = np.random.default_rng(seed)
    # Few different values, so that ties, NaN and -inf are frequent.
    x = rng.choice([-np.inf, -1, 0, 0, 1, 2, np.nan], (2, *sizes, 3)).astype(np.float32)
    shape = jax.eval_shape(
        lambda x: kernels.max_pool(x, window, stride=stride, padding=padding), x
    ).shape
    dy = rng.standard_normal(shape).astype(np.float32)
    y, dx = value_and_gradient(jnp.asarray(x), dy, window, stride, padding)
    expected_y, expected_dx = reference(x, dy, window, stride, padding)
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_allclose(dx, expected_dx, rtol=1e-6, atol=1e-6)
    without_gradient = jax.jit(
        lambda x: kernels.max_pool(x, window, stride=stride, padding=padding)
    )(x)
    np.testing.assert_array_equal(without_gradient, expected_y)


@pytest.mark.parametrize(
    ("shape", "window", "stride", "padding"),
    [
        ((2, 11, 9, 3), (2, 2), (2, 2), "VALID"),
        ((2, 11, 9, 54), (3, 3), (2, 2), "SAME"),
        ((1, 7, 7, 64), (3, 3), (1, 1), ((1, 1), (1, 1))),
        ((1, 1, 9, 9, 108), (1, 3, 3), (1, 2, 2), ((0, 0), (1, 1), (1, 1))),
        ((1, 4, 5, 6, 3), (3, 3, 3), (2, 2, 2), "SAME"),
        ((2, 12, 5), (3,), (2,), "VALID"),
    ],
)
def test_as_select_and_scatter_with_ties(shape, window, stride, padding):
    rng = np.random.default_rng(0)
    x = jax.nn.relu(jnp.asarray(rng.integers(-3, 4, shape), jnp.float32))
    shape = jax.eval_shape(
        lambda x: kernels.max_pool(x, window, stride=stride, padding=padding), x
    ).shape
    dy = rng.integers(-8, 8, shape).astype(np.float32)
    ours = value_and_gradient(x, dy, window, stride, padding)
    theirs = value_and_gradient(x, dy, window, stride, padding, "xla")
    for a, b in zip(ours, theirs, strict=True):  # small integers: sums are exact
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("sizes", "window", "padding"),
    [((5, 7), (2, 2), ((0, 0),) * 2), ((5, 4), (3, 2), ((1, 2), (2, 1))), ((7,), (3,), ((0, 0),))],
)
def test_gradients_in_blocks_are_those_of_the_spread_out_sum(sizes, window, padding):
    windows = Windows.of((2, *sizes, 3), window, window, padding)
    rng = np.random.default_rng(0)
    index = rng.integers(0, np.prod(window) + 1, (2, *windows.outputs, 3)).astype(np.uint8)
    dy = rng.standard_normal(index.shape).astype(np.float32)
    found = pooling._gradient_in_blocks(jnp.asarray(index), jnp.asarray(dy), windows=windows)
    expected = pooling._gradient(jnp.asarray(index), jnp.asarray(dy), windows=windows)
    assert found.any()
    np.testing.assert_array_equal(found, expected)


def test_half_precision_gradients_are_summed_in_float32():
    # Nine overlapping windows share one maximum: 256 + 8 * 1 is 264, in bfloat16 256 + 1 is 256.
    x = jnp.zeros((1, 5, 5, 1), jnp.bfloat16).at[0, 2, 2, 0].set(1)
    dy = jnp.ones((1, 3, 3, 1), jnp.bfloat16).at[0, 0, 0, 0].set(256)
    _, dx = value_and_gradient(x, dy, (3, 3), (1, 1), "VALID")
    assert dx.dtype == jnp.bfloat16
    assert float(dx[0, 2, 2, 0]) == 264


def test_vmap_and_jit_agree_with_a_loop():
    x = jax.random.normal(jax.random.key(0), (3, 2, 7, 7, 4))

    def gradient(x):
        return jax.grad(lambda x: (kernels.max_pool(x, 3, stride=2) ** 2).sum())(x)

    loop = jnp.stack([jax.jit(gradient)(part) for part in x])
    np.testing.assert_array_equal(jax.jit(jax.vmap(gradient))(x), loop)


def test_integers_and_large_windows_have_values():
    x = jnp.arange(2 * 12 * 12).reshape(2, 12, 12, 1)
    np.testing.assert_array_equal(kernels.max_pool(x, 2), x[:, 1::2, 1::2])
    gradient = jax.grad(lambda x: kernels.max_pool(x, 12).sum())(x.astype(jnp.float32))
    assert float(gradient.sum()) == 2 and float(gradient[0, -1, -1, 0]) == 1


@pytest.mark.parametrize(
    ("shape", "window", "arguments", "message"),
    [
        ((1, 4, 4, 1), 5, {}, r"window of \(5, 5\).*does not fit into \(4, 4\)"),
        ((4, 4), 2, {}, r"takes \[n, \*spatial, c\]"),
        ((1, 4, 4, 1), (2, 2, 2), {}, "window is"),
        ((1, 4, 4, 1), 2, {"padding": "FULL"}, "padding is 'FULL'"),
        ((1, 4, 4, 1), 2, {"padding": ((-1, 0), (0, 0))}, "padding < 0"),
        ((1, 4, 4, 1), 2, {"stride": 0}, "stride is 0"),
    ],
)
def test_wrong_arguments(shape, window, arguments, message):
    with pytest.raises(ValueError, match=message):
        kernels.max_pool(jnp.zeros(shape), window, **arguments)


@pytest.mark.parametrize(
    ("platform", "name"), [("cpu", "xla_index"), ("cuda", "xla_index"), ("tpu", "xla_scatter")]
)
def test_which_implementation_runs_and_where_a_scatter_is_left(platform, name):
    def gradient(x):
        return jax.grad(lambda x: kernels.max_pool(x, 3, stride=2).sum())(x)

    x = jax.ShapeDtypeStruct((1, 9, 9, 8), jnp.bfloat16)
    ran = dispatch.implementations(gradient, x, platform=platform)
    assert ran == {("max_pool", name), ("max_pool_dx", name)}
    text = jax.jit(gradient).trace(x).lower(lowering_platforms=(platform,)).as_text()
    assert ("scatter" in text) == (platform == "tpu")


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
def test_xla_scatter_is_xla_but_for_its_batching(padding):
    x = jax.nn.relu(jax.random.normal(jax.random.key(0), (3, 2, 7, 9, 4)))

    def both(x, name):
        def loss(x):
            y = kernels.max_pool(x, 3, stride=2, padding=padding, implementation=name)
            return (y**2).sum(), y

        return jax.grad(loss, has_aux=True)(x)

    ours = jax.jit(jax.vmap(lambda x: both(x, "xla_scatter")))(x)
    for number in range(3):
        for a, b in zip(ours, both(x[number], "xla"), strict=True):
            np.testing.assert_array_equal(a[number], b)


def test_vmap_makes_the_batch_larger():
    x = jax.random.normal(jax.random.key(0), (3, 2, 6, 6, 4))
    text = str(jax.make_jaxpr(jax.vmap(jax.grad(lambda x: kernels.max_pool(x, 3).sum())))(x))
    assert "6,6,6,4" in text  # n is 3 * 2: no array of the pool has six axes
