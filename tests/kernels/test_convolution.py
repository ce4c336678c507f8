"""conv against float64, its rewrites, derivatives and batching."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from kernels import dispatch

# x, window, outputs, keyword arguments
CASES = {
    "3x3": ((2, 9, 8, 3), (3, 3), 5, {}),
    "3x3_stride": ((2, 9, 8, 3), (3, 3), 5, {"stride": 2, "padding": "SAME"}),
    "3x3_dilation": ((1, 9, 9, 4), (3, 3), 2, {"dilation": 2}),
    "groups": ((1, 6, 6, 6), (3, 3), 9, {"groups": 3, "padding": "SAME"}),
    "1x1": ((2, 5, 4, 54), (1, 1), 7, {}),
    "1x1_stride": ((2, 5, 4, 3), (1, 1), 7, {"stride": 2}),
    "1x1_padded": ((2, 5, 4, 3), (1, 1), 7, {"padding": ((1, 0), (0, 1))}),
    "1x1x1": ((2, 3, 4, 4, 8), (1, 1, 1), 6, {}),
    "1x1x1_stride": ((2, 3, 5, 4, 8), (1, 1, 1), 6, {"stride": (2, 2, 1)}),
    "1x1x1_groups": ((1, 3, 4, 4, 8), (1, 1, 1), 6, {"groups": 2}),
    "1x3x3": ((2, 3, 6, 5, 4), (1, 3, 3), 6, {"padding": ((0, 0), (1, 1), (1, 1))}),
    "1x3x3_few_channels": ((2, 3, 7, 6, 3), (1, 3, 3), 6, {"padding": "SAME", "stride": (1, 2, 2)}),
    "1x3x3_stride": ((1, 4, 7, 6, 4), (1, 3, 3), 6, {"stride": (2, 2, 2)}),
    "3x1x1": ((2, 6, 4, 5, 4), (3, 1, 1), 6, {"padding": ((1, 1), (0, 0), (0, 0))}),
    "5x1x1_stride": ((1, 9, 5, 4, 4), (5, 1, 1), 3, {"stride": (4, 2, 1), "padding": "SAME"}),
    "3x3x3": ((1, 4, 5, 6, 3), (3, 3, 3), 4, {"padding": "SAME", "stride": (1, 2, 2)}),
    "depthwise": ((2, 3, 9, 7, 54), (3, 3, 3), 54, {"groups": 54, "padding": "SAME"}),
    "depthwise_stride": (
        (1, 4, 9, 8, 12),
        (3, 3, 3),
        12,
        {"groups": 12, "padding": ((1, 1), (1, 1), (1, 1)), "stride": (1, 2, 2)},
    ),
    "depthwise_5x3x1": (
        (1, 7, 5, 4, 5),
        (5, 3, 1),
        5,
        {"groups": 5, "padding": ((4, 0), (0, 3), (0, 0))},
    ),
    "depthwise_dilation": ((1, 6, 9, 9, 4), (2, 3, 3), 4, {"groups": 4, "dilation": (3, 2, 1)}),
    "depthwise_2d": ((2, 7, 7, 9), (3, 3), 9, {"groups": 9, "padding": "SAME", "stride": 2}),
    "depthwise_t1": ((1, 1, 7, 7, 8), (3, 3, 3), 8, {"groups": 8, "padding": "SAME"}),
    "t1": ((2, 1, 6, 6, 3), (3, 3, 3), 4, {"padding": "SAME"}),
    "t1_valid_padding": ((2, 1, 6, 6, 3), (3, 3, 3), 4, {"padding": ((2, 2), (0, 0), (0, 0))}),
    "3x7x7": ((1, 5, 9, 9, 3), (3, 7, 7), 4, {"padding": "SAME", "stride": (1, 2, 2)}),
    "3x3x3_stride": ((2, 5, 7, 6, 54), (3, 3, 3), 4, {"padding": "SAME", "stride": 2}),
    "3x3x3_dilation": ((1, 7, 7, 6, 4), (3, 3, 3), 2, {"padding": "SAME", "dilation": (2, 1, 2)}),
    "3x3x3_groups": ((1, 4, 5, 6, 8), (3, 3, 3), 4, {"padding": "SAME", "groups": 4}),
    "padding_alone": (
        (1, 2, 4, 4, 2),
        (2, 3, 3),
        2,
        {"padding": ((4, 0), (0, 0), (0, 0)), "stride": (9, 1, 1)},
    ),
}


def arrays(case, dtype=np.float32):
    shape, window, outputs, arguments = CASES[case]
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(dtype)
    fan = shape[-1] // arguments.get("groups", 1)
    w = rng.standard_normal((*window, fan, outputs)).astype(dtype)
    return x, w, arguments


def reference(x, w, stride=1, padding="VALID", dilation=1, groups=1):
    """The convolution in float64 as a sum over the window's elements."""
    x, w = np.asarray(x, np.float64), np.asarray(w, np.float64)
    axes = x.ndim - 2
    stride, dilation = ((v,) * axes if isinstance(v, int) else v for v in (stride, dilation))
    reach = [(k - 1) * d + 1 for k, d in zip(w.shape[:axes], dilation, strict=True)]
    if padding == "VALID":
        padding = ((0, 0),) * axes
    if padding == "SAME":
        need = [
            max((-(-n // s) - 1) * s + r - n, 0)
            for n, s, r in zip(x.shape[1:-1], stride, reach, strict=True)
        ]
        padding = [(n // 2, n - n // 2) for n in need]
    x = np.pad(x, [(0, 0), *padding, (0, 0)])
    sizes = [(n - r) // s + 1 for n, r, s in zip(x.shape[1:-1], reach, stride, strict=True)]
    total = np.zeros((x.shape[0], *sizes, w.shape[-1]))
    for tap in itertools.product(*map(range, w.shape[:axes])):
        part = x[
            (
                slice(None),
                *(
                    slice(k * d, k * d + (n - 1) * s + 1, s)
                    for k, d, n, s in zip(tap, dilation, sizes, stride, strict=True)
                ),
            )
        ]
        for group in range(groups):
            inputs = slice(group * w.shape[-2], (group + 1) * w.shape[-2])
            each = w.shape[-1] // groups
            outputs = slice(group * each, (group + 1) * each)
            total[..., outputs] += part[..., inputs] @ w[tap][:, outputs]
    return total


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(case):
    x, w, arguments = arrays(case)
    expected = reference(x, w, **arguments)
    y, pull = jax.vjp(lambda x, w: kernels.conv(x, w, **arguments), x, w)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(np.float32)
    dx, dw = pull(dy)
    # The function is bilinear: its derivatives along a direction are its values.
    rng = np.random.default_rng(2)
    along_x, along_w = rng.standard_normal(x.shape), rng.standard_normal(w.shape)
    size = np.abs(expected).max() * np.sqrt(y.size)
    by_x = np.vdot(dy, reference(along_x, w, **arguments))
    by_w = np.vdot(dy, reference(x, along_w, **arguments))
    assert abs(np.vdot(np.float64(dx), along_x) - by_x) <= 1e-5 * size
    assert abs(np.vdot(np.float64(dw), along_w) - by_w) <= 1e-5 * size
    _, pull = jax.vjp(lambda x, w: kernels.conv(x, w, implementation="xla", **arguments), x, w)
    for ours, theirs in zip((dx, dw), pull(dy), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "case", ["3x3_stride", "3x1x1", "1x1x1", "groups", "3x3x3", "depthwise_stride"]
)
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (1, -1)])
def test_vmap_is_the_loop(case, axes):
    shape, window, outputs, arguments = CASES[case]
    rng = np.random.default_rng(0)

    def some(shape, axis):
        return rng.standard_normal(
            shape if axis is None else np.insert(shape, axis % (len(shape) + 1), 3)
        )

    x = some(shape, axes[0]).astype(np.float32)
    w = some((*window, shape[-1] // arguments.get("groups", 1), outputs), axes[1]).astype(
        np.float32
    )

    def gradients(x, w):
        return jax.value_and_grad(
            lambda x, w: (kernels.conv(x, w, **arguments) ** 2).sum(), argnums=(0, 1)
        )(x, w)

    ours = jax.jit(jax.vmap(gradients, in_axes=axes))(x, w)
    for number in range(3):
        one_x = x if axes[0] is None else np.take(x, number, axes[0])
        one_w = w if axes[1] is None else np.take(w, number, axes[1])
        alone = gradients(one_x, one_w)
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[number], b, rtol=1e-4, atol=1e-4)


def test_second_derivative():
    x, w, arguments = arrays("3x3_stride")

    def penalty(implementation):
        def loss(x, w):
            y = kernels.conv(x, w, implementation=implementation, **arguments)
            return jnp.tanh(y).sum()

        return jax.grad(lambda w: (jax.grad(loss)(x, w) ** 2).sum())(w)

    np.testing.assert_allclose(penalty(None), penalty("xla"), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["3x3", "3x3x3", "3x3x3_groups", "3x7x7", "depthwise"])
def test_bfloat16_is_as_good_as_float32_accumulation(case):
    x, w, arguments = arrays(case)
    x, w = jnp.asarray(x, jnp.bfloat16), jnp.asarray(w, jnp.bfloat16)
    exact = reference(x, w, **arguments)
    y = kernels.conv(x, w, **arguments)
    assert y.dtype == jnp.bfloat16
    rounded = np.abs(exact) * 2.0**-8 + 1e-3  # one unit in the last place
    assert (np.abs(np.float64(y) - exact) <= rounded).all()


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
@pytest.mark.parametrize("case", ["1x3x3", "3x1x1", "1x1x1", "3x3x3"])
def test_rewrites_leave_no_3d_convolution(case, platform):
    x, w, arguments = arrays(case)

    def gradients(x, w):
        return jax.grad(lambda x, w: (kernels.conv(x, w, **arguments) ** 2).sum(), (0, 1))(x, w)

    text = jax.jit(gradients).trace(x, w).lower(lowering_platforms=(platform,)).as_text()
    spatial = text.count("[b, 0, 1, 2, f]")
    assert (spatial > 0) == (case == "3x3x3" and platform != "cpu")
    ran = dispatch.implementations(gradients, x, w, platform=platform)
    name = "xla_parts" if case == "3x3x3" and platform == "cpu" else "xla_rewrite"
    assert ran == {(operator, name) for operator in ("conv", "conv_dx", "conv_dw")}


@pytest.mark.parametrize(
    ("platform", "name"), [("cpu", "xla_shift"), ("cuda", "xla_rewrite"), ("tpu", "xla_rewrite")]
)
def test_depthwise_runs_as_shifted_products_on_a_cpu(platform, name):
    x, w, arguments = arrays("depthwise")

    def gradients(x, w):
        return jax.grad(lambda x, w: (kernels.conv(x, w, **arguments) ** 2).sum(), (0, 1))(x, w)

    ran = dispatch.implementations(gradients, x, w, platform=platform)
    assert ran == {(operator, name) for operator in ("conv", "conv_dx", "conv_dw")}
    x, w, arguments = arrays("groups")
    with pytest.raises(NotImplementedError, match="as many groups"):
        kernels.conv(x, w, implementation="xla_shift", **arguments)


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("groups", "xla_parts"),
        ("3x3", "xla_few"),
        ("1x3x3_few_channels", "xla_few"),
        ("3x3_dilation", "xla_rewrite"),  # 4 channels
        ("1x1_stride", "xla_rewrite"),
        ("1x3x3", "xla_rewrite"),
    ],
)
def test_groups_and_few_channels_have_their_own_form_on_a_cpu(case, name):
    x, w, arguments = arrays(case)
    ran = dispatch.implementations(lambda x, w: kernels.conv(x, w, **arguments), x, w)
    assert ran == {("conv", name)}


def test_few_channels_by_name():
    x, w, arguments = arrays("3x3_stride")

    def gradients(x, w, name):
        def loss(x, w):
            return (kernels.conv(x, w, implementation=name, **arguments) ** 2).sum()

        return jax.grad(loss, (0, 1))(x, w)

    ran = dispatch.implementations(lambda x, w: gradients(x, w, "xla_few"), x, w, platform="tpu")
    assert ran == {(operator, "xla_few") for operator in ("conv", "conv_dx", "conv_dw")}
    for ours, theirs in zip(gradients(x, w, "xla_few"), gradients(x, w, "xla"), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    x, w, arguments = arrays("1x1")
    with pytest.raises(NotImplementedError, match="over at most 3 channels"):
        kernels.conv(x, w, implementation="xla_few", **arguments)


@pytest.mark.parametrize(("case", "message"), [("3x3", "needs groups"), ("depthwise_65", "65")])
def test_what_is_not_taken_apart(case, message):
    x, w, arguments = arrays("3x3")
    if case == "depthwise_65":
        x, w = jnp.zeros((1, 4, 4, 65)), jnp.zeros((3, 3, 1, 65))
        arguments = {"groups": 65}
    with pytest.raises(NotImplementedError, match=message):
        kernels.conv(x, w, implementation="xla_parts", **arguments)


@pytest.mark.parametrize(
    ("x", "w", "arguments", "message"),
    [
        ((1, 4, 4, 3), (3, 3, 2, 5), {}, "x has 3 channels"),
        ((1, 4, 4, 4), (3, 3, 2, 5), {"groups": 2}, "multiple of groups"),
        ((1, 4, 3), (3, 3, 5), {}, "2 or 3 spatial axes"),
        ((1, 4, 4, 3), (5, 5, 3, 2), {}, "does not fit"),
    ],
)
def test_wrong_arguments(x, w, arguments, message):
    with pytest.raises(ValueError, match=message):
        kernels.conv(jnp.zeros(x), jnp.zeros(w), **arguments)


def test_mixed_types_are_refused():
    with pytest.raises(ValueError, match="x is bfloat16 and w is float32"):
        kernels.conv(jnp.zeros((1, 4, 4, 3), jnp.bfloat16), jnp.zeros((3, 3, 3, 2)))
