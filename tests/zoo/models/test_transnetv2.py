"""TransNet V2 against its PyTorch code, and what the module itself promises."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo import __main__ as command_line
from zoo import cost, registry
from zoo.models import transnetv2
from zoo.weights import convert

SMALL = {"widths": (4, 4), "hidden": 16, "similarity": 8, "size": (9, 12), "dropout": 0.0}


def frames(b=2, t=12, h=9, w=12, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (b, t, h, w, 3), np.uint8)


@pytest.fixture(autouse=True)
def quick_to_compile(request, monkeypatch):
    if "golden" not in request.fixturenames:
        monkeypatch.setenv("ZOO_KERNELS", "xla")


@functools.cache
def small(num_classes=2, dtype="float32", **fields):
    model = zoo.create_model(
        "transnetv2", num_classes=num_classes, dtype=dtype, **{**SMALL, **fields}
    )
    return model, jax.jit(model.apply)


def test_reference_logits(golden):
    known = golden("transnetv2")
    family = registry.MODELS["transnetv2"]()
    table = family.table(family.presets["transnetv2"])
    model = zoo.create_model("transnetv2", num_classes=2)
    shapes = cost.variable_shapes(model, known.clip.shape[1:])
    variables = convert.to_variables(table, known.state, shapes, "transnetv2")
    logits = np.asarray(jax.jit(model.apply)(variables, known.clip))
    expected = np.stack([known.logits, known.arrays["many_hot"][..., 0]], axis=-1)
    assert logits.shape == expected.shape
    for i in range(2):
        error = np.linalg.norm((logits - expected)[..., i]) / np.linalg.norm(expected[..., i])
        assert error < 1e-4, error
    back = convert.to_state_dict(table, variables)
    assert back.keys() == known.state.keys()
    for key, value in known.state.items():
        if value.dtype == np.float32:
            np.testing.assert_array_equal(back[key], value, err_msg=key)


def test_the_originals_number_of_parameters():
    model = zoo.create_model("transnetv2", num_classes=2)
    assert cost.parameters(model, (100, 27, 48, 3)) == 7_616_258


@pytest.mark.slow
def test_any_number_of_frames_features_and_half_precision(random_variables):
    model, apply = small()
    variables = random_variables(model, (12, 9, 12, 3))
    for t in (1, 12, 130):
        logits = apply(variables, frames(t=t))
        assert logits.shape == (2, t, 2) and logits.dtype == jnp.float32
        assert np.isfinite(logits).all()
    x = frames()
    logits = apply(variables, x)
    params = dict(variables["params"])
    second, first = params.pop("head_all"), params.pop("head")
    features = small(num_classes=0)[1]({**variables, "params": params}, x)
    assert features.shape == (2, 12, 16)
    for i, head in enumerate((first, second)):
        expected = features @ head["kernel"] + head["bias"]
        np.testing.assert_allclose(logits[..., i : i + 1], expected, atol=1e-5)
    one = small(num_classes=1)[1]({**variables, "params": {**params, "head": first}}, x)
    np.testing.assert_allclose(one, logits[..., :1], atol=1e-6)
    rough = small(dtype="bfloat16")[1](variables, x)
    assert 0 < np.linalg.norm(rough - logits) < 0.05 * np.linalg.norm(logits)


@pytest.mark.slow
def test_training(check_training_of, random_variables):
    variables = random_variables(small()[0], (12, 9, 12, 3))
    check_training_of(lambda **more: small(**more)[0], variables, frames())


def test_histograms_and_similarities_are_those_of_the_definition():
    x = frames(1, 3, 4, 5)
    counts = np.zeros((3, 512))
    for t in range(3):
        for r, g, b in x[0, t].reshape(-1, 3).astype(int):
            counts[t, (r // 32) * 64 + (g // 32) * 8 + b // 32] += 1
    np.testing.assert_array_equal(transnetv2.histograms(jnp.asarray(x))[0], counts)
    found = transnetv2.similarities(jnp.asarray(counts, jnp.float32)[None])
    assert found.shape == (1, 3, 101)
    unit = counts / np.linalg.norm(counts, axis=1, keepdims=True)
    expected = np.zeros((3, 101))
    for i in range(3):
        for j in range(3):
            expected[i, 50 + j - i] = unit[i] @ unit[j]
    np.testing.assert_allclose(found[0], expected, atol=1e-6)


@pytest.mark.parametrize(
    "clips",
    [
        frames().astype(np.float32),
        frames(h=10),
        frames()[..., :1],
        frames()[0],
    ],
)
def test_frames_of_another_kind_are_refused(clips):
    with pytest.raises(ValueError, match=r"takes RGB pixels, uint8 \[b t 9 12 3\]"):
        jax.eval_shape(small()[0].init, jax.random.key(0), clips)


def test_the_command_line_says_that_it_takes_pixels(capsys):
    assert command_line.main(["info", "transnetv2"]) == 0
    assert "100 frames of 27x48, RGB, uint8" in capsys.readouterr().out


def test_other_classes_and_wrong_configs_are_refused():
    with pytest.raises(ValueError, match="num_classes is 400; TransNet V2 has 2"):
        jax.eval_shape(small(num_classes=400)[0].init, jax.random.key(0), frames())
    with pytest.raises(ValueError, match=r"TransNetV2Config\.size is \(3, 40\)"):
        zoo.create_model("transnetv2", num_classes=2, size=(3, 40))
    with pytest.raises(ValueError, match=r"TransNetV2Config\.drop_path is 1"):
        zoo.create_model("transnetv2", num_classes=2, drop_path=1)
