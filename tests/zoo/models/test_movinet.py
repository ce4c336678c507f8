"""MoViNet against the published PyTorch port, and what the module itself promises."""

import hashlib
import pathlib

import jax
import numpy as np
import pytest

import zoo
from zoo import cost
from zoo.models import movinet
from zoo.weights import convert, tf_checkpoint
from zoo.weights.maps import movinet_tf

K600 = 600
SIDES = (48, 40)
SMALL = {
    "stem": 8,
    "widths": (8, 8, 16, 24, 24),
    "blocks": (
        ((16, (1, 5)),),
        ((16, (3, 3)), (24, (3, 3))),
        ((24, (5, 3)),),
        ((24, (1, 3)),),
        ((40, (5, 3)),),
    ),
    "top": 32,
    "hidden": 24,
}


@pytest.mark.parametrize("name", ["movinet_a0_base", "movinet_a0_stream"])
def test_reference_logits(check_golden, name):
    check_golden(name, name, K600)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a1_base", "a2_base", "a1_stream", "a2_stream"])
def test_reference_logits_of_the_others(check_golden, name):
    check_golden(f"movinet_{name}", f"movinet_{name}", K600)


# The first logits of the PyTorch port with tf_like=True, the padding of the published weights.
PUBLISHED_PADDING = {
    "movinet_a0_base": [-0.170181, 0.125632, 0.178013, -0.323221, -0.132371, -0.170091],
    "movinet_a0_stream": [0.156234, 0.021989, 0.44445, -0.326481, -0.239564, -0.062721],
}
# Those of tensorflow/models' own network (TensorFlow 2.21) on weights made from its own names.
TENSORFLOW = {
    "movinet_a0_base": [-0.068542, -0.011726, -0.200165, 0.186377, 0.059508, 0.090195],
    "movinet_a0_stream": [-0.0166, -0.135662, -0.212239, -0.190164, -0.099234, 0.145439],
}
INDICES = pathlib.Path(__file__).parents[1] / "weights" / "files"


@pytest.mark.parametrize(
    "name", ["movinet_a0_base", pytest.param("movinet_a0_stream", marks=pytest.mark.slow)]
)
def test_the_published_weights_in_either_form_give_the_originals_logits(rebuilt, name):
    model = zoo.create_model(name, num_classes=K600, same_padding=True, frames=5, size=96)
    variables, clips = rebuilt(model, name, (1, 5, 96, 96, 3), 0)
    run = jax.jit(model.apply)
    logits = run(variables, clips)
    np.testing.assert_allclose(logits[0, :6], PUBLISHED_PADDING[name], rtol=0, atol=3e-6)

    entries, _ = tf_checkpoint.entries((INDICES / f"{name}.index").read_bytes(), name)
    state = {key: tensorflow_entry(key, entry.shape) for key, entry in entries.items()}
    table = movinet_tf.table(model.config)
    logits = run(convert.to_variables(table, state, variables, name), clips)
    np.testing.assert_allclose(logits[0, :6], TENSORFLOW[name], rtol=0, atol=3e-6)


def tensorflow_entry(name, shape):
    """As the goldens' entries are made, under TensorFlow's names and in its layouts."""
    digest = hashlib.sha256(f"0:{name}".encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    v = random.standard_normal(shape).astype(np.float32)
    if name.endswith("moving_variance"):
        return np.exp(np.float32(0.2) * v)
    if v.ndim >= 2:
        inputs = shape[:2] if name.endswith("depthwise_kernel") else shape[:-1]
        return v * np.float32(np.sqrt(1 / np.prod(inputs)))
    return np.float32(name.endswith(("gamma", "scale"))) + np.float32(0.1) * v


# Of the PyTorch port with 600 classes.
PARAMETERS = {
    "movinet_a0_base": 3_111_799,
    "movinet_a1_base": 4_690_296,
    "movinet_a2_base": 5_249_562,
    "movinet_a3_base": 7_397_545,
    "movinet_a4_base": 11_349_463,
    "movinet_a5_base": 18_650_523,
    "movinet_a0_stream": 3_748_031,
    "movinet_a1_stream": 6_447_352,
    "movinet_a2_stream": 7_326_962,
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if "a0" in n else pytest.mark.slow) for n in movinet.PRESETS],
)
def test_every_preset_has_the_originals_number_of_parameters(name):
    config = movinet.PRESETS[name]
    model = zoo.create_model(name, num_classes=K600)
    assert cost.parameters(model, (2, config.size, config.size, 3)) == PARAMETERS[name]


@pytest.mark.parametrize("name", ["movinet_a0_base", "movinet_a0_stream"])
def test_logits_features_and_precision(check_inference, name):
    check_inference(name, (3, *SIDES, 3), **SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["movinet_a0_base", "movinet_a0_stream"])
def test_training(check_training, name):
    check_training(name, (3, *SIDES, 3), **SMALL)


def test_frames_too_small_are_refused_with_the_smallest_size():
    smallest = {name: movinet.smallest_size(movinet.PRESETS[name]) for name in movinet.PRESETS}
    assert smallest["movinet_a0_base"] == 25 and smallest["movinet_a2_base"] == 1
    model = zoo.create_model("movinet_a0_stream", num_classes=2)
    with pytest.raises(ValueError, match=r"24x40 are too small.*25x25"):
        jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 2, 24, 40, 3), np.float32))
    for side in (25, 26):
        shapes = jax.eval_shape(
            model.init_with_output, jax.random.key(0), np.zeros((1, 1, side, side, 3))
        )
        assert shapes[0].shape == (1, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dropout": 1.0}, "MoViNetConfig.dropout is 1.0"),
        ({"pads": ((0, 0),)}, "1 pads; give 5"),
    ],
)
def test_a_wrong_config_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        zoo.create_model("movinet_a0_base", num_classes=2, **arguments)
