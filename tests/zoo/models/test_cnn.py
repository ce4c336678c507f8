"""The CNN family against the same network written out, and what it promises about time."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import zoo
from zoo import cost, layers
from zoo.models import cnn

SIDE = 24


def clips(b=2, t=3, side=SIDE, seed=0):
    return np.random.default_rng(seed).standard_normal((b, t, side, side, 3), np.float32)


@functools.cache
def make(name="cnn_small", num_classes=5, t=3, side=SIDE, **overrides):
    """A small network's compiled apply, and variables: numpy draws them without compiling."""
    model = zoo.create_model(name, num_classes=num_classes, hidden=16, **overrides)
    rng = np.random.default_rng(1)
    variables = jax.tree.map(
        lambda leaf: rng.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape).astype(leaf.dtype),
        cost.variable_shapes(model, (t, side, side, 3)),
    )
    return jax.jit(model.apply, static_argnames="train"), variables


def written_out(params, images, activation):
    """Convolution, activation, pooling; three times; then dense, activation, dense."""
    x = images
    for name in ("conv1", "conv2", "conv3"):
        kernel, bias = params[name]["kernel"], params[name]["bias"]
        dimensions = ("NHWC", "HWIO", "NHWC")
        x = lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=dimensions)
        x = activation(x + bias)
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = x.reshape(len(x), -1)
    x = activation(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return x @ params["head"]["kernel"] + params["head"]["bias"]


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_values_and_gradients_are_those_of_the_network_written_out(activation):
    apply, variables = make(activation=activation)
    function = {"relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}[activation]
    x = clips()

    def reference(params):
        frames = written_out(params, x.reshape(-1, SIDE, SIDE, 3), function)
        return frames.reshape(2, 3, -1).mean(axis=1)

    def applied(params):
        return apply({"params": params}, x)

    def loss(function):
        return lambda params: (function(params) ** 2).sum()

    params = variables["params"]
    (value, got), (expected_value, expected) = (
        jax.jit(jax.value_and_grad(loss(f)))(params) for f in (applied, reference)
    )
    np.testing.assert_allclose(value, expected_value, rtol=1e-4)
    for path, value in jax.tree_util.tree_leaves_with_path(expected):
        key = jax.tree_util.keystr(path)
        other = dict(jax.tree_util.tree_leaves_with_path(got))[path]
        scale = np.abs(value).max()
        np.testing.assert_allclose(other, value, atol=1e-4 * scale, err_msg=key)


def test_cnn_base_is_the_text_books_network():
    model = zoo.create_model("cnn_base", num_classes=10)
    shapes = cost.variable_shapes(model, (1, 224, 224, 3))["params"]
    assert jax.tree.map(lambda leaf: leaf.shape, shapes) == {
        "conv1": {"kernel": (3, 3, 3, 32), "bias": (32,)},
        "conv2": {"kernel": (3, 3, 32, 64), "bias": (64,)},
        "conv3": {"kernel": (3, 3, 64, 128), "bias": (128,)},
        "hidden": {"kernel": (26 * 26 * 128, 1024), "bias": (1024,)},
        "head": {"kernel": (1024, 10), "bias": (10,)},
    }
    assert cost.parameters(model, (1, 224, 224, 3)) == 88_709_194
    frame = 2 * (222**2 * 27 * 32 + 109**2 * 288 * 64 + 52**2 * 576 * 128 + 86528 * 1024)
    assert cost.flops(model, (1, 224, 224, 3)) == frame + 2 * 1024 * 10
    assert cost.flops(model, (4, 224, 224, 3)) == 4 * frame + 2 * 1024 * 10


def test_the_shipped_size_stays_small():
    model = zoo.create_model("cnn_small", num_classes=10)
    assert cost.parameters(model, (8, 64, 64, 3)) * 4 < 3e6


@pytest.mark.parametrize("name", zoo.list_models("cnn*"))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("num_classes", [0, 7])
def test_every_preset_can_be_constructed(name, dtype, num_classes):
    config = cnn.PRESETS[name]
    model = zoo.create_model(name, num_classes=num_classes, dtype=dtype)
    shape = (2, config.frames, config.size, config.size, 3)
    variables = cost.variable_shapes(model, shape[1:])
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    result = jax.eval_shape(model.apply, variables, jax.ShapeDtypeStruct(shape, jnp.float32))
    assert result.shape == (2, num_classes or config.hidden) and result.dtype == jnp.float32


def test_initial_weights_are_keras_defaults():
    model = zoo.create_model("cnn_small", num_classes=5, hidden=16)
    variables = jax.jit(model.init)(jax.random.key(1), clips())
    for layer in variables["params"].values():
        kernel = np.asarray(layer["kernel"])
        *window, inputs, outputs = kernel.shape
        bound = np.sqrt(6 / (np.prod(window) * (inputs + outputs)))  # Glorot and Bengio 2010
        assert np.abs(kernel).max() <= bound * 1.0001
        np.testing.assert_allclose(kernel.std(), bound / np.sqrt(3), rtol=0.15)
        np.testing.assert_array_equal(layer["bias"], 0)


@pytest.mark.parametrize(("t", "side"), [(1, 22), (5, 31)])
def test_any_number_of_frames_and_any_size_will_do(t, side):
    apply, variables = make("cnn_small_shift", t=t, side=side)
    assert apply(variables, clips(2, t, side)).shape == (2, 5)


def test_a_clip_of_more_frames_than_at_the_start_will_do():
    apply, variables = make("cnn_small_shift", t=2)
    assert apply(variables, clips(1, 7)).shape == (1, 5)


def test_frames_too_small_are_refused_with_the_smallest_size():
    with pytest.raises(ValueError, match=r"21x40 are too small.*at least 22x22"):
        zoo.create_model("cnn_small", num_classes=2).init(
            jax.random.key(0), jnp.zeros((1, 1, 21, 40, 3))
        )


@pytest.mark.parametrize("wrong", [jnp.zeros((1, 2, 24, 24, 3), jnp.uint8), jnp.zeros((2, 24, 24))])
def test_clips_that_were_not_prepared_are_refused(wrong):
    apply, variables = make()
    with pytest.raises(ValueError, match=r"normalised floats \[b t h w c\]"):
        apply(variables, wrong)


def test_another_crop_than_the_weights_were_made_for_is_refused():
    apply, variables = make()
    with pytest.raises(ValueError, match="clips of 40x40"):
        apply(variables, clips(side=40))


def test_the_plain_network_cannot_tell_the_order_of_frames_and_the_shifted_one_can():
    x = clips(t=4)
    for name, sees_order in (("cnn_small", False), ("cnn_small_shift", True)):
        apply, variables = make(name)
        forward, backward = (apply(variables, y) for y in (x, x[:, ::-1]))
        assert np.allclose(forward, backward, atol=1e-5) != sees_order, name


def test_shifting_costs_no_parameters_and_no_arithmetic():
    plain, shifted = (zoo.create_model(n, num_classes=9) for n in ("cnn_small", "cnn_small_shift"))
    clip = (8, 64, 64, 3)
    assert cost.parameters(plain, clip) == cost.parameters(shifted, clip)
    assert cost.flops(plain, clip) == cost.flops(shifted, clip)


@pytest.mark.parametrize("t", [1, 2, 5])
@pytest.mark.parametrize(
    ("channels", "fraction", "fold"), [(16, 1 / 8, 2), (9, 1 / 4, 2), (3, 1 / 8, 1), (4, 0, 0)]
)
def test_temporal_shift_agrees_with_the_definition(t, channels, fraction, fold):
    x = np.random.default_rng(0).standard_normal((2, t, 3, 4, channels)).astype(np.float32)
    # github.com/mit-han-lab/temporal-shift-module, ops/temporal_shift.py
    expected = np.zeros_like(x)
    expected[:, :-1, ..., :fold] = x[:, 1:, ..., :fold]
    expected[:, 1:, ..., fold : 2 * fold] = x[:, :-1, ..., fold : 2 * fold]
    expected[..., 2 * fold :] = x[..., 2 * fold :]
    np.testing.assert_array_equal(layers.temporal_shift(jnp.asarray(x), fraction), expected)


@pytest.mark.parametrize("t", [1, 4])
def test_shifted_differences_vanish_where_nothing_changes(t):
    x = np.random.default_rng(0).standard_normal((2, t, 3, 8)).astype(np.float32)
    expected = np.zeros_like(x)
    expected[:, :-1, ..., :2] = x[:, 1:, ..., :2] - x[:, :-1, ..., :2]
    expected[:, 1:, ..., 2:4] = x[:, :-1, ..., 2:4] - x[:, 1:, ..., 2:4]
    expected[..., 4:] = x[..., 4:]
    got = layers.temporal_shift(jnp.asarray(x), 1 / 4, difference=True)
    np.testing.assert_array_equal(got, expected)
    still = np.repeat(x[:, :1], 5, axis=1)
    np.testing.assert_array_equal(
        layers.temporal_shift(jnp.asarray(still), 1 / 4, difference=True)[..., :4], 0
    )


def test_features_are_what_the_last_layer_takes():
    apply, variables = make()
    features_of, _ = make(num_classes=0)
    features = features_of(variables, clips())
    head = variables["params"]["head"]
    assert features.shape == (2, 16)
    np.testing.assert_allclose(
        features @ head["kernel"] + head["bias"], apply(variables, clips()), atol=1e-5
    )


def test_bfloat16_is_close_to_float32():
    exact, variables = make()
    rough, _ = make(dtype="bfloat16")
    expected, got = exact(variables, clips()), rough(variables, clips())
    assert got.dtype == jnp.float32
    error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
    assert 0 < error < 0.03


def test_dropout_acts_in_training_only():
    apply, variables = make(dropout=0.5)
    plain, _ = make()
    np.testing.assert_array_equal(apply(variables, clips()), plain(variables, clips(), train=True))

    def trained(seed):
        key = jax.random.key(seed)
        return apply(variables, clips(), train=True, rngs={"dropout": key})

    np.testing.assert_array_equal(trained(0), trained(0))
    assert not np.allclose(trained(0), trained(1))


def test_models_of_a_search_run_side_by_side():
    apply, variables = make("cnn_small_shift")
    variables = jax.tree.map(lambda leaf: leaf * jnp.ones((2,) + (1,) * leaf.ndim), variables)
    variables = jax.tree.map(lambda leaf: leaf.at[1].multiply(0.9), variables)
    together = jax.jit(jax.vmap(apply, in_axes=(0, None)))(variables, clips())
    for i in range(2):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], variables)
        np.testing.assert_allclose(together[i], apply(one, clips()), rtol=1e-4, atol=1e-5)


def test_a_convolution_counts_groups_and_has_no_bias_where_none_is_wanted():
    class Two(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = layers.Conv(8, (1, 1), groups=4, use_bias=False, name="grouped")(x[:, 0])
            return layers.Conv(6, (3, 3), padding="SAME", stride=2, name="strided")(x)

    shapes = cost.variable_shapes(Two(), (1, 10, 10, 4))["params"]
    assert shapes["grouped"]["kernel"].shape == (1, 1, 1, 8) and "bias" not in shapes["grouped"]
    assert cost.flops(Two(), (1, 10, 10, 4)) == 2 * (100 * 8 * 1 + 25 * 6 * 9 * 8)
