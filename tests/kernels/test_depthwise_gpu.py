"""The Mosaic GPU kernel for depthwise 3x3x3: interpreted, lowered, refused, asked for by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from kernels import depthwise_gpu, dispatch
from kernels.windows import Windows

# jax 0.10.2 has the interpreter but does not export it.
params = pytest.importorskip("jax._src.pallas.mosaic_gpu.interpret.params")


def some(seed, shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def problem(shape, dtype=jnp.float32):
    w = some(1, (3, 3, 3, shape[-1]), dtype)
    return some(0, shape, dtype), w, some(2, shape, dtype)


def definition(x, w, implementation="xla"):
    return kernels.conv(
        x, w[..., None, :], padding="SAME", groups=x.shape[-1], implementation=implementation
    )


@pytest.mark.parametrize(
    "shape",
    [
        (1, 3, 4, 8, 54),  # lanes that are no multiple of a block's
        (1, 1, 3, 4, 64),  # one frame, whole blocks
        (1, 2, 5, 4, 64),  # rows below the image
        pytest.param((1, 2, 11, 4, 72), marks=pytest.mark.slow),
        pytest.param((2, 2, 7, 2, 432), marks=pytest.mark.slow),
        pytest.param((1, 5, 1, 20, 16), marks=pytest.mark.slow),
    ],
)
def test_interpreted_it_is_the_definition(shape):
    x, w, dy = problem(shape)
    # Where the last block overlaps the one before, both write the same numbers.
    whole = shape[-2] * shape[-1] % 256 == 0
    interpret = params.InterpretGPUParams(detect_races=whole)
    y, pull = jax.vjp(definition, x, w)
    dx, dw = depthwise_gpu.backward(x, w, dy, interpret=interpret)
    np.testing.assert_allclose(
        depthwise_gpu.forward(x, w, interpret=interpret), y, rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(dx, pull(dy)[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(dw, pull(dy)[1], rtol=1e-4, atol=1e-3)


def test_several_tasks_of_a_block_and_more_frames_than_slots(monkeypatch):
    monkeypatch.setattr(depthwise_gpu, "_BLOCKS", 2)
    shape = (3, 4, 1, 4, 64)
    monkeypatch.setattr(depthwise_gpu, "_ROWS_BACKWARD", 1)
    x, w, dy = problem(shape)
    interpret = params.InterpretGPUParams(detect_races=True)
    dx, dw = depthwise_gpu.backward(x, w, dy, interpret=interpret)
    ours, theirs = (dx, dw), jax.vjp(definition, x, w)[1](dy)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)


def test_bfloat16_sums_are_float32():
    x, w, dy = problem((1, 3, 3, 4, 64), jnp.bfloat16)
    interpret = params.InterpretGPUParams()
    y = depthwise_gpu.forward(x, w, interpret=interpret)
    dx, dw = depthwise_gpu.backward(x, w, dy, interpret=interpret)
    exact, pull = jax.vjp(definition, x.astype(jnp.float32), w.astype(jnp.float32))
    for ours, theirs in ((y, exact), *zip((dx, dw), pull(dy.astype(jnp.float32)), strict=True)):
        assert ours.dtype == jnp.bfloat16
        rounded = theirs.astype(jnp.bfloat16).astype(jnp.float32)
        # One unit in the last place of bfloat16, and what float32 sums lose near zero.
        np.testing.assert_allclose(ours.astype(jnp.float32), rounded, rtol=2**-7, atol=1e-4)


def test_a_nan_stays_in_its_neighbourhood():
    x, w, _ = problem((1, 3, 3, 4, 64))
    x = x.at[0, 1, 0, 3, 5].set(jnp.nan)
    ours = depthwise_gpu.forward(x, w, interpret=params.InterpretGPUParams())
    np.testing.assert_array_equal(jnp.isnan(ours), jnp.isnan(definition(x, w)))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_it_lowers_for_cuda_with_both_gradients_in_one_kernel(dtype):
    x, w, dy = problem((2, 3, 4, 8, 54), dtype)

    def both(x, w, dy):
        y, pull = jax.vjp(lambda x, w: definition(x, w, "pallas_gpu"), x, w)
        return y, pull(dy)

    text = jax.jit(both).trace(x, w, dy).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("custom_call @mosaic_gpu") == 2
    ran = dispatch.implementations(both, x, w, dy, platform="cuda")
    assert {name for _, name in ran} == {"pallas_gpu"}
    assert {operator for operator, _ in ran} == {"conv", "conv_gradients"}


def test_it_lowers_under_vmap_over_everything():
    x, w, dy = problem((2, 3, 4, 8, 54))
    stacked = [jnp.stack([a, a]) for a in (x, w, dy)]

    def gradients(x, w, dy):
        return jax.vjp(lambda x, w: definition(x, w, "pallas_gpu"), x, w)[1](dy)

    run = jax.jit(jax.vmap(gradients)).trace(*stacked)
    assert [a.shape for a in run.lower(lowering_platforms=("cuda",)).out_info] == [
        (2, *x.shape),
        (2, *w.shape),
    ]


@pytest.mark.parametrize(
    ("shape", "activation"),
    [
        ((2, 3, 5, 4, 72), "silu"),  # rows below the image, lanes computed twice
        pytest.param((1, 1, 8, 4, 64), "hard_swish", marks=pytest.mark.slow),
        pytest.param((2, 2, 7, 8, 54), "relu", marks=pytest.mark.slow),
        pytest.param((1, 2, 2, 4, 64), None, marks=pytest.mark.slow),
    ],
)
def test_with_what_follows_it_is_the_definition(shape, activation, monkeypatch):
    monkeypatch.setattr(depthwise_gpu, "_ROWS_FORWARD", 3)
    x, w, _ = problem(shape)
    scale, bias = some(3, shape[-1:]), some(4, shape[-1:])
    y, sums = kernels.depthwise_conv3d(
        x, w, scale=scale, bias=bias, activation=activation, implementation="xla"
    )
    interpret = params.InterpretGPUParams()
    ours = depthwise_gpu.fused(x, w, jnp.stack([scale, bias]), activation, interpret=interpret)
    np.testing.assert_allclose(ours[0], y, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours[1], sums, rtol=1e-4, atol=1e-3)


def test_what_follows_lowers_with_its_gradients_and_under_vmap():
    x, w, _ = problem((2, 3, 4, 8, 54), jnp.bfloat16)
    scale = bias = jnp.ones(54, jnp.bfloat16)

    def value(x, w, scale, bias):
        y, sums = kernels.depthwise_conv3d(
            x, w, scale=scale, bias=bias, activation="silu", implementation="pallas_gpu"
        )
        return y.astype(jnp.float32).sum() + sums.sum()

    slopes = jax.value_and_grad(value, (0, 1, 2, 3))

    ran = dispatch.implementations(slopes, x, w, scale, bias, platform="cuda")
    named = {("depthwise_conv3d", "pallas_gpu"), ("conv_gradients", "pallas_gpu")}
    assert ran >= {*named, ("conv", "pallas_gpu")}
    stacked = [jnp.stack([a, a]) for a in (x, w, scale, bias)]
    run = jax.jit(jax.vmap(value)).trace(*stacked)
    assert run.lower(lowering_platforms=("cuda",)).out_info.shape == (2,)
    with pytest.raises(NotImplementedError, match="stride and dilation 1"):
        kernels.depthwise_conv3d(x, w, stride=2, implementation="pallas_gpu")


def test_nothing_chooses_it_but_its_name():
    x, w, _ = problem((1, 3, 4, 8, 54))
    assert dispatch.implementations(lambda x, w: definition(x, w, None), x, w, platform="cuda") == {
        ("conv", "xla_rewrite")
    }


def test_it_refuses_what_it_is_not_for():
    x, w, _ = problem((1, 3, 4, 8, 54))
    with pytest.raises(NotImplementedError, match="stride and dilation 1"):
        kernels.conv(
            x, w[..., None, :], stride=2, padding="SAME", groups=54, implementation="pallas_gpu"
        )
    with pytest.raises(NotImplementedError, match="as many groups"):
        kernels.conv(x, some(3, (3, 3, 3, 54, 2)), implementation="pallas_gpu")
    valid = Windows.of(x.shape, (3, 3, 3), 1, "VALID")
    assert "pads by one" in str(depthwise_gpu.refusal(valid, x.shape, x.dtype))
    same = Windows.of(x.shape, (3, 3, 3), 1, "SAME")
    assert depthwise_gpu.refusal(same, x.shape, jnp.bfloat16) is None
    assert "16 bytes, not 270 of" in str(
        depthwise_gpu.refusal(same, (1, 3, 4, 5, 54), jnp.dtype(jnp.bfloat16))
    )
    assert "float64" in str(depthwise_gpu.refusal(same, x.shape, jnp.dtype("float64")))


def test_a_second_derivative_says_that_there_is_none():
    x, w, _ = problem((1, 3, 4, 8, 54))

    def slope(x):
        return jax.grad(lambda x: definition(x, w, "pallas_gpu").sum())(x).sum()

    with pytest.raises(NotImplementedError, match="differentiable once"):
        jax.jit(jax.grad(slope)).trace(x)
