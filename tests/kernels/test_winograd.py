"""Convolution by Winograd's F(4, 3) against its definition in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from kernels import dispatch

# x, w, padding
CASES = {
    "valid": ((2, 9, 11, 32), (3, 3, 32, 33), "VALID"),
    "same": ((1, 8, 13, 33), (3, 3, 33, 32), "SAME"),
    "one_sided": ((1, 7, 10, 32), (3, 3, 32, 32), ((2, 0), (0, 2))),
    "frames": ((2, 3, 6, 7, 32), (1, 3, 3, 32, 34), "SAME"),
    "one_row": ((1, 9, 10, 32), (1, 3, 32, 32), "VALID"),
}


def arrays(case):
    x, w, padding = CASES[case]
    rng = np.random.default_rng(0)
    return rng.standard_normal(x), rng.standard_normal(w), padding


def definition(x, w, padding):
    """The convolution in float64 with stride 1."""
    axes = w.ndim - 2
    if padding == "VALID":
        padding = ((0, 0),) * axes
    if padding == "SAME":
        padding = [(k // 2, k // 2) for k in w.shape[:axes]]
    x = np.pad(x, [(0, 0), *padding, (0, 0)])
    view = np.lib.stride_tricks.sliding_window_view(x, w.shape[:axes], tuple(range(1, axes + 1)))
    window = range(axes + 2, 2 * axes + 2)
    return np.tensordot(view, w, ([*window, axes + 1], [*range(axes), axes]))


def convolution(padding, name=None):
    return lambda x, w: kernels.conv(x, w, padding=padding, implementation=name)


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(case):
    x, w, padding = arrays(case)
    expected = definition(x, w, padding)
    conv = convolution(padding, "xla_winograd")
    y, pull = jax.vjp(jax.jit(conv), jnp.float32(x), jnp.float32(w))
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    rng = np.random.default_rng(1)
    dy = rng.standard_normal(y.shape)
    along = rng.standard_normal(x.shape), rng.standard_normal(w.shape)
    # The function is bilinear: its derivatives along a direction are its values.
    by = definition(along[0], w, padding), definition(x, along[1], padding)
    size = np.abs(expected).max() * np.sqrt(y.size)
    for slope, direction, change in zip(pull(jnp.float32(dy)), along, by, strict=True):
        assert abs(np.vdot(np.float64(slope), direction) - np.vdot(dy, change)) <= 1e-5 * size


def test_windows_over_time_are_sums_of_such_convolutions():
    x = np.random.default_rng(0).standard_normal((1, 3, 20, 18, 32))
    w = np.random.default_rng(1).standard_normal((3, 3, 3, 32, 32))
    dy = np.random.default_rng(2).standard_normal(x.shape)
    along = np.random.default_rng(3).standard_normal(x.shape)
    expected = definition(x, w, "SAME")
    y, pull = jax.vjp(lambda x: convolution("SAME")(x, jnp.float32(w)), jnp.float32(x))
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    (dx,) = pull(jnp.float32(dy))
    size = np.abs(expected).max() * np.sqrt(y.size)
    change = np.vdot(dy, definition(along, w, "SAME"))
    assert abs(np.vdot(np.float64(dx), along) - change) <= 1e-5 * size
    ran = str(jax.make_jaxpr(convolution("SAME"))(x.astype(np.float32), w.astype(np.float32)))
    assert "20,5,32" in ran  # tiles of four columns


@pytest.mark.parametrize("axes", [(0, None), (0, 0)])
def test_vmap_is_the_loop(axes):
    rng = np.random.default_rng(0)
    shapes = (1, 6, 9, 32), (3, 3, 32, 32)
    x, w = (
        rng.standard_normal(shape if axis is None else (2, *shape)).astype(np.float32)
        for shape, axis in zip(shapes, axes, strict=True)
    )
    both = jax.jit(jax.vmap(convolution("SAME", "xla_winograd"), axes))(x, w)
    for number in range(2):
        one = [a if axis is None else a[number] for a, axis in zip((x, w), axes, strict=True)]
        alone = definition(np.float64(one[0]), np.float64(one[1]), "SAME")
        np.testing.assert_allclose(both[number], alone, rtol=0, atol=1e-5 * np.abs(alone).max())


@pytest.mark.parametrize(
    ("platform", "name"), [("cpu", "xla_winograd"), ("cuda", "xla_rewrite"), ("tpu", "xla_rewrite")]
)
def test_it_is_the_default_on_a_cpu_alone(platform, name):
    x, w = jnp.zeros((2, 26, 26, 32)), jnp.zeros((3, 3, 32, 32))

    def gradients(x, w):
        return jax.grad(lambda x, w: (kernels.conv(x, w) ** 2).sum(), (0, 1))(x, w)

    ran = dispatch.implementations(gradients, x, w, platform=platform)
    assert ran == {("conv", name), ("conv_dx", name), ("conv_dw", "xla_rewrite")}


@pytest.mark.parametrize(
    ("x", "w"),
    [
        ((2, 26, 26, 31), (3, 3, 31, 32)),
        ((1, 26, 26, 32), (3, 3, 32, 32)),
        ((99, 26, 8, 32), (3, 3, 32, 32)),
    ],
)
def test_few_channels_or_places_stay_with_xla(x, w):
    ran = dispatch.implementations(kernels.conv, jnp.zeros(x), jnp.zeros(w))
    assert ran == {("conv", "xla_rewrite")}


@pytest.mark.parametrize(
    ("w", "arguments", "dtype", "message"),
    [
        ((3, 5, 4, 4), {}, "float32", "window 3 wide"),
        ((3, 3, 4, 4), {}, "bfloat16", "float32"),
        ((3, 3, 2, 4), {"groups": 2}, "float32", "no groups"),
        ((3, 3, 4, 4), {"stride": 2}, "float32", "stride and dilation 1"),
        ((3, 3, 4, 4), {"dilation": 2}, "float32", "stride and dilation 1"),
        ((3, 3, 4, 4), {"padding": ((1, 1), (1, 3))}, "float32", "less padding"),
    ],
)
def test_what_it_refuses(w, arguments, dtype, message):
    with pytest.raises(NotImplementedError, match=message):
        kernels.conv(
            jnp.zeros((1, 9, 9, 4), dtype),
            jnp.zeros(w, dtype),
            implementation="xla_winograd",
            **arguments,
        )
