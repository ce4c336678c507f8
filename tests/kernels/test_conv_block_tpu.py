"""The block's kernel for TPUs, interpreted, against the definition; and its lowering."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from kernels import conv_block_tpu, dispatch


def problem(shape, outputs, dtype):
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, shape)  # small integers: sums are exact, and ties are frequent
    w = rng.integers(-1, 2, (3, 3, shape[-1], outputs))
    return [jnp.asarray(a, dtype) for a in (x, w, rng.integers(-40, 40, outputs))]


@pytest.mark.parametrize(
    ("shape", "outputs", "dtype"),
    [
        ((2, 7, 9, 16), 16, jnp.bfloat16),
        pytest.param((130, 6, 7, 8), 24, jnp.float32, marks=pytest.mark.slow),
    ],
)
def test_value_and_index_are_those_of_the_definition(shape, outputs, dtype):
    x, w, b = problem(shape, outputs, dtype)
    y, index = conv_block_tpu.forward(x, w, b, interpret=True)
    assert (y.dtype, index.dtype) == (dtype, jnp.uint8)
    exact = kernels.conv(x.astype(jnp.float32), w.astype(jnp.float32)) + b.astype(jnp.float32)
    exact = exact[:, : 2 * y.shape[1], : 2 * y.shape[2]]
    taps = jnp.stack([exact[:, i::2, j::2] for i in range(2) for j in range(2)])
    np.testing.assert_array_equal(y, jax.nn.relu(taps.max(0)).astype(dtype))
    np.testing.assert_array_equal(index, jnp.where(taps.max(0) > 0, taps.argmax(0), 255))


def test_a_nan_stays_in_its_windows():
    x, w, b = problem((1, 6, 8, 8), 8, jnp.float32)
    x = x.at[0, 0, 0, 0].set(jnp.nan)
    ours = conv_block_tpu.forward(x, w, b, interpret=True)[0]
    theirs = kernels.conv_bias_relu_pool(x, w, b, implementation="xla")
    np.testing.assert_array_equal(jnp.isnan(ours[0, 0, 0]), jnp.isnan(theirs[0, 0, 0]))
    np.testing.assert_array_equal(ours[0, 1:], theirs[0, 1:])


@pytest.mark.parametrize("axes", [None, (0, 0, 0), (None, 0, 0)])
def test_it_lowers_for_a_tpu_by_name_and_under_vmap(axes):
    def slopes(*arrays):
        def loss(*arrays):
            return kernels.conv_bias_relu_pool(*arrays, implementation="pallas_tpu").sum()

        return jax.value_and_grad(loss, (0, 1, 2))(*arrays)

    shapes = ((128, 8, 8, 16), (3, 3, 16, 32), (32,))
    axes, run = axes or (None,) * 3, jax.vmap(slopes, axes) if axes else slopes
    arrays = [
        jax.ShapeDtypeStruct(shape if axis is None else (2, *shape), jnp.float32)
        for shape, axis in zip(shapes, axes, strict=True)
    ]
    ran = dispatch.implementations(run, *arrays, platform="tpu")
    assert ran >= {
        ("conv_bias_relu_pool", "pallas_tpu"),
        ("conv_bias_relu_pool_gradients", "pallas_tpu"),
        ("max_pool_dx", "pallas_tpu"),
    }


@pytest.mark.parametrize(
    ("shape", "outputs", "arguments", "message"),
    [
        ((2, 8, 8, 3), 16, {}, "channels in multiples of 8"),
        ((2, 8, 8, 8), 16, {"padding": "SAME"}, "no padding"),
        ((2, 8, 8, 8), 16, {"stride": 2}, "3x3 over images with stride 1"),
        ((2, 8, 8, 8), 16, {"window": 3}, "pool of 2x2"),
        ((2, 8, 2048, 64), 64, {}, "narrower frames"),
    ],
)
def test_what_it_does_not_take_is_refused_with_the_reason(shape, outputs, arguments, message):
    shapes = (shape, (3, 3, shape[-1], outputs), (outputs,))
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    with pytest.raises(NotImplementedError, match=message):
        jax.eval_shape(
            lambda *a: kernels.conv_bias_relu_pool(*a, implementation="pallas_tpu", **arguments),
            *arrays,
        )
