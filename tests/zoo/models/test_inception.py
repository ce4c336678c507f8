"""I3D and S3D against the published PyTorch code, and what the module itself promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo import cost
from zoo.models import inception

# With 400 classes, counted from the published state dicts.
PARAMETERS = {"i3d_inception": 12_697_264, "s3d": 8_320_048}
SMALL = {
    "stem": 8,
    "middle": 8,
    "stages": (((4, 4, 8, 4, 4, 4),), ((8, 4, 8, 4, 8, 4),), ((8, 4, 8, 4, 8, 8),)),
    "frames": 9,
    "size": 40,
}


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("torchvision_s3d", "s3d"),
        pytest.param("i3d_inception_rgb", "i3d_inception", marks=pytest.mark.slow),
    ],
)
def test_reference_logits(check_golden, file, name):
    check_golden(file, name)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_originals_number_of_parameters(name):
    model = zoo.create_model(name, num_classes=400)
    assert cost.parameters(model, (16, 224, 224, 3)) == PARAMETERS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_logits_features_and_precision(check_inference, name):
    check_inference(name, (9, 42, 40, 3), **SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("name", PARAMETERS)
def test_training(check_training, name):
    check_training(name, (9, 40, 40, 3), **SMALL)


@pytest.mark.parametrize(("name", "frames", "size"), [("i3d_inception", 9, 193), ("s3d", 13, 209)])
def test_smallest_clip(name, frames, size):
    model = zoo.create_model(name, num_classes=5)

    def shape(t, side):
        x = jax.ShapeDtypeStruct((1, t, side, side + 3, 3), jnp.float32)
        return jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], x).shape

    assert shape(frames, size) == (1, 5)
    for t, side in ((frames - 1, size), (frames, size - 1)):
        with pytest.raises(ValueError, match=f"give at least {frames} of {size}x{size}"):
            shape(t, side)


def test_several_windows_of_the_head_are_averaged(random_variables, monkeypatch):
    monkeypatch.setenv("ZOO_KERNELS", "xla")
    model = zoo.create_model("i3d_inception", num_classes=0, **{**SMALL, "frames": 17})
    assert inception.head_window(model.config) == (2, 2, 2)
    variables = random_variables(model, (17, 40, 40, 3))
    clip = np.random.default_rng(0).standard_normal((1, 33, 72, 40, 3), np.float32)

    def last(module, method):
        return module.name == "stage3_0"

    run = jax.jit(lambda x: model.apply(variables, x, capture_intermediates=last))
    features, seen = run(clip)
    x = np.asarray(seen["intermediates"]["stage3_0"]["__call__"][0])
    assert x.shape == (1, 5, 3, 2, 32)
    windows = [x[:, t : t + 2, h : h + 2].mean((1, 2, 3)) for t in range(4) for h in range(2)]
    np.testing.assert_allclose(features, np.mean(windows, axis=0), atol=1e-5)


def test_a_wrong_config_is_named():
    with pytest.raises(ValueError, match=r"InceptionConfig\.dropout is 1\.0"):
        zoo.create_model("s3d", num_classes=2, dropout=1.0)
    with pytest.raises(ValueError, match="InceptionConfig has 1 stages; give 3"):
        zoo.create_model("s3d", num_classes=2, stages=SMALL["stages"][:1])
