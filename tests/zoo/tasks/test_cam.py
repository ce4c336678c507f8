"""Grad-CAM: by hand on a network of one layer, its layer in the families, and the film."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo import __main__ as command_line
from zoo import video
from zoo.tasks import cam


class Tiny(nn.Module):
    """A map of two features of each pixel, their means, two classes."""

    @nn.compact
    def __call__(self, clips):
        maps = nn.Dense(2, name="map")(clips)
        return nn.Dense(2, name="head")(maps.mean((1, 2, 3)))


def test_heat_by_hand():
    pretrained = zoo.load_pretrained("cnn_small.moving_shapes")
    kernel = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], np.float32)
    zeros = np.zeros(2, np.float32)
    head = np.array([[1.0, 0.0], [-1.0, 1.0]], np.float32)
    params = {"map": {"kernel": kernel, "bias": zeros}, "head": {"kernel": head, "bias": zeros}}
    spec = pretrained.spec
    made = pretrained._replace(model=Tiny(), variables={"params": params})
    clip = np.random.default_rng(0).integers(
        0, 256, (spec.frames, spec.size, spec.size, 3), np.uint8
    )
    pixels = (clip / 255 - np.array(spec.mean)) / np.array(spec.std)
    look = cam.GradCam(made)
    assert look.layer.path == ("map",)
    for number, expected in enumerate((pixels[..., 0] - pixels[..., 1], pixels[..., 1])):
        expected = np.maximum(expected, 0)
        np.testing.assert_allclose(look(clip, number), expected / expected.max(), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("cnn_small", {}),
        pytest.param("x3d_xs", {"size": 64}, marks=pytest.mark.slow),
    ],
)
def test_the_layer_of_a_family(name, fields):
    model = zoo.create_model(name, num_classes=3, **fields)
    clips = jax.ShapeDtypeStruct((1, 4, 64, 64, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), clips)
    layer = cam.last_map(model, variables, clips)
    assert len(layer.shape) in (4, 5) and 1 < layer.shape[-2] < 64


def test_networks_of_tokens_have_none():
    model = zoo.create_model("videomae_b", num_classes=3)
    clips = jax.ShapeDtypeStruct((1, 16, 224, 224, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), clips)
    with pytest.raises(ValueError, match="no map of features"):
        cam.last_map(model, variables, clips)


def test_command(fill, tmp_path):
    fill(tmp_path / "in", whole=1)
    (path,) = (tmp_path / "in").iterdir()
    arguments = ["classify", str(path), "--model", "cnn_small.moving_shapes", "--cam"]
    assert command_line.main(arguments) == 2
    assert command_line.main([*arguments, "--seconds", "0.4", "--out", str(tmp_path / "out")]) == 0
    film = video.decode(tmp_path / "out" / f"{path.name}.cam.mp4").frames
    assert film.shape == (2, 64, 64, 3)
    colourful = np.ptp(film.astype(int), axis=-1).max()
    assert colourful > 40  # The film is grey; only heat has colours.
