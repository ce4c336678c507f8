"""The max-pool kernels for TPUs, interpreted, against XLA's forms; and their lowering."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from kernels import dispatch, pooling, pooling_tpu
from kernels.windows import Windows

# shape of x, window, stride, padding
CASES = {
    "2x2": ((2, 7, 12, 3), (2, 2), (2, 2), "VALID"),
    "resnet_stem": ((8, 8, 10, 5), (3, 3), (2, 2), ((1, 1), (1, 1))),
    "late_rows_wide": ((3, 7, 9, 130), (3, 3), (2, 2), "VALID"),
    "images_on_lanes": ((130, 5, 6, 40), (2, 2), (2, 2), "VALID"),
    "frames": ((2, 2, 7, 8, 6), (1, 3, 3), (1, 2, 2), ((0, 0), (1, 1), (1, 1))),
    "stride_1": ((2, 5, 7, 4), (3, 3), (1, 1), "SAME"),
    "gaps_and_wide_padding": ((2, 7, 8, 6), (2, 2), (3, 3), ((2, 1), (0, 2))),
}
SLOW = {"frames", "late_rows_wide", "images_on_lanes", "stride_1", "gaps_and_wide_padding"}


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=[pytest.mark.slow] if c in SLOW else []) for c in CASES]
)
def test_values_index_and_gradient_with_ties_nan_and_infinities(case):
    shape, window, stride, padding = CASES[case]
    windows = Windows.of(shape, window, stride, padding)
    rng = np.random.default_rng(0)
    dtype = jnp.bfloat16 if case == "resnet_stem" else jnp.float32
    x = jnp.asarray(rng.choice([-np.inf, -np.inf, -1, 0, 0, 1, np.nan], shape), dtype)
    assert pooling_tpu.refuses(x, windows) is None
    y, index = pooling.find(x, windows=windows)
    dy = jnp.asarray(rng.standard_normal(y.shape), dtype)
    ours = pooling_tpu.value_and_index(x, windows, interpret=True)
    dx = pooling_tpu.gradient(index, dy, windows, interpret=True)
    expected = (y, index, pooling._gradient(index, dy, windows=windows))
    for a, b in zip((*ours, dx), expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a, np.float32), np.asarray(b, np.float32))


def both(x, name=None):
    def loss(x):
        y = kernels.max_pool(x, 2, implementation=name)
        return (y.astype(jnp.float32) ** 2).sum()

    return jax.value_and_grad(loss)(x)


def test_it_lowers_for_a_tpu_by_name_and_under_vmap():
    x = jax.ShapeDtypeStruct((3, 128, 9, 8, 32), jnp.bfloat16)
    run = jax.vmap(lambda x: both(x, "pallas_tpu"))
    ran = dispatch.implementations(run, x, platform="tpu")
    assert ran == {("max_pool", "pallas_tpu"), ("max_pool_dx", "pallas_tpu")}
    text = jax.jit(run).trace(x).lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("tpu_custom_call") == 2


@pytest.mark.parametrize(
    ("shape", "window", "dtype", "message"),
    [
        ((2, 8, 8, 3), (2, 2), jnp.float16, "float32 and bfloat16"),
        ((2, 4, 8, 8, 3), (2, 2, 2), jnp.float32, "height and width alone"),
        ((2, 8, 8, 3), (6, 6), jnp.float32, "at most 25 elements"),
        ((2, 4, 4096, 3), (2, 2), jnp.float32, "narrower frames"),
        ((0, 8, 8, 3), (2, 2), jnp.float32, "no empty arrays"),
    ],
)
def test_what_it_does_not_take_is_refused_with_the_reason(shape, window, dtype, message):
    x = jax.ShapeDtypeStruct(shape, dtype)
    with pytest.raises(NotImplementedError, match=message):
        jax.eval_shape(lambda x: kernels.max_pool(x, window, implementation="pallas_tpu"), x)
