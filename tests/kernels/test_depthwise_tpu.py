"""The depthwise kernels for TPUs, interpreted on the CPU, against float64; and their lowering."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from kernels import depthwise_tpu, dispatch
from kernels.windows import Windows

# shape of x, window, padding
CASES = {
    "c54": ((8, 3, 4, 5, 54), (3, 3, 3), "SAME"),
    "t1_c3": ((8, 1, 5, 7, 3), (3, 3, 3), "SAME"),
    "two_batches_c130": ((16, 2, 3, 4, 130), (3, 3, 3), "SAME"),
    "uneven": ((8, 4, 6, 5, 4), (2, 3, 3), ((1, 0), (0, 2), (1, 1))),
    "one_row": ((8, 3, 4, 8, 64), (3, 1, 1), ((1, 1), (0, 0), (0, 0))),
    "2d_c108": ((8, 5, 6, 108), (3, 3), "VALID"),
}


def reference(x, w, dy, windows):
    """y, dx and dw in float64, an element of the window at a time."""
    x, w, dy = (np.asarray(a, np.float64) for a in (x, w, dy))
    padding = [(0, 0), *windows.padding, (0, 0)]
    wide = np.pad(x, padding)
    y, dx, dw = np.zeros(dy.shape), np.zeros(wide.shape), np.zeros(w.shape)
    for tap in itertools.product(*map(range, windows.window)):
        ends = zip(tap, windows.outputs, strict=True)
        at = (slice(None), *(slice(k, k + n) for k, n in ends))
        y += wide[at] * w[tap]
        dx[at] += dy * w[tap]
        dw[tap] = (wide[at] * dy).reshape(-1, w.shape[-1]).sum(0)
    sizes = zip(padding, dx.shape, strict=True)
    inner = tuple(slice(low, size - high) for (low, high), size in sizes)
    return y, dx[inner], dw


def arrays(case, dtype):
    shape, window, padding = CASES[case]
    windows = Windows.of(shape, window, 1, padding)
    rng = np.random.default_rng(0)
    shapes = shape, (*window, shape[-1]), (shape[0], *windows.outputs, shape[-1])
    return *(jnp.asarray(rng.standard_normal(s), dtype) for s in shapes), windows


@pytest.mark.parametrize("case", CASES)
def test_values_and_each_gradient(case):
    x, w, dy, windows = arrays(case, jnp.float32)
    assert depthwise_tpu.refuses(x, windows) is None
    y, dx, dw = reference(x, w, dy, windows)
    interpret = {"interpret": True}
    np.testing.assert_allclose(
        depthwise_tpu.forward(x, w, windows, **interpret), y, rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(
        depthwise_tpu.gradient_x(dy, w, windows, **interpret), dx, rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(
        depthwise_tpu.gradient_w(x, dy, windows, **interpret), dw, rtol=1e-5, atol=1e-4
    )


def test_bfloat16_is_rounded_once():
    x, w, dy, windows = arrays("c54", jnp.bfloat16)
    ours = (
        depthwise_tpu.forward(x, w, windows, interpret=True),
        depthwise_tpu.gradient_x(dy, w, windows, interpret=True),
        depthwise_tpu.gradient_w(x, dy, windows, interpret=True),
    )
    for a, exact in zip(ours, reference(x, w, dy, windows), strict=True):
        assert a.dtype == jnp.bfloat16
        assert (np.abs(np.float64(a) - exact) <= np.abs(exact) * 2.0**-8 + 1e-4).all()


def gradients(x, w, name=None):
    def loss(x, w):
        y = kernels.conv(x, w, groups=x.shape[-1], padding="SAME", implementation=name)
        return (y.astype(jnp.float32) ** 2).sum()

    return jax.value_and_grad(loss, (0, 1))(x, w)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_it_lowers_for_a_tpu_by_name_and_xla_is_the_choice(dtype):
    x = jax.ShapeDtypeStruct((8, 4, 6, 6, 54), dtype)
    w = jax.ShapeDtypeStruct((3, 3, 3, 1, 54), dtype)
    operators = ("conv", "conv_dx", "conv_dw")
    named = dispatch.implementations(
        lambda x, w: gradients(x, w, "pallas_tpu"), x, w, platform="tpu"
    )
    assert named == {(operator, "pallas_tpu") for operator in operators}
    chosen = dispatch.implementations(gradients, x, w, platform="tpu")
    assert chosen == {(operator, "xla_rewrite") for operator in operators}


def test_it_lowers_under_vmap():
    x = jax.ShapeDtypeStruct((2, 8, 4, 6, 6, 54), jnp.float32)
    w = jax.ShapeDtypeStruct((2, 3, 3, 3, 1, 54), jnp.float32)
    for axes, weights in (((0, 0), w), ((0, None), jax.ShapeDtypeStruct(w.shape[1:], w.dtype))):
        run = jax.vmap(lambda x, w: gradients(x, w, "pallas_tpu"), in_axes=axes)
        text = jax.jit(run).trace(x, weights).lower(lowering_platforms=("tpu",)).as_text()
        assert "tpu_custom_call" in text


@pytest.mark.parametrize(
    ("shape", "arguments", "dtype", "message"),
    [
        ((4, 3, 6, 6, 8), {}, jnp.float32, "multiple of 8"),
        ((8, 3, 6, 6, 8), {"stride": (1, 2, 2)}, jnp.float32, "neither stride nor dilation"),
        ((8, 3, 6, 6, 8), {"dilation": (1, 2, 2)}, jnp.float32, "neither stride nor dilation"),
        ((8, 3, 6, 6, 8), {}, jnp.float16, "float32 and bfloat16"),
        ((8, 3, 6, 6, 8), {"padding": ((3, 0), (0, 0), (0, 0))}, jnp.float32, "less padding"),
        ((8, 64, 224, 224, 8), {}, jnp.float32, "smaller frames"),
        ((8, 3, 6, 6, 8), {"window": (5, 3, 3)}, jnp.float32, "at most 27"),
    ],
)
def test_what_it_does_not_take_is_refused_with_the_reason(shape, arguments, dtype, message):
    arguments = {"padding": "SAME"} | arguments
    w = jnp.zeros((*arguments.pop("window", (3, 3, 3)), 1, 8), dtype)
    x = jax.ShapeDtypeStruct(shape, dtype)
    with pytest.raises(NotImplementedError, match=message):
        jax.eval_shape(
            lambda x: kernels.conv(x, w, groups=8, implementation="pallas_tpu", **arguments), x
        )
