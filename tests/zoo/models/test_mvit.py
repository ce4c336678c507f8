"""MViT: reference logits, and clips that it has no places for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo import cost
from zoo.models import mvit

SIZES = {"width": 8, "depths": (1, 1), "size": 32, "frames": 4}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["mvit_v1_b", "mvit_v2_s"])
def test_reference_logits(check_golden, name):
    check_golden(f"torchvision_{name}", name)


@pytest.mark.parametrize("shape", [(5, 32, 32), (4, 34, 32), (4, 32, 30)])
def test_clips_that_are_no_multiple_of_the_stride(shape):
    model = zoo.create_model("mvit_v2_s", num_classes=2, **SIZES)
    with pytest.raises(ValueError, match="a multiple of 2 frames and a height and a width"):
        cost.variable_shapes(model, (*shape, 3))


@pytest.mark.parametrize("shape", [(6, 32, 32), (4, 36, 32)])
def test_weights_of_the_first_version_serve_their_own_size_alone(shape):
    model = zoo.create_model("mvit_v1_b", num_classes=2, **SIZES)
    variables = cost.variable_shapes(model, (4, 32, 32, 3))
    other = jax.ShapeDtypeStruct((1, *shape, 3), np.float32)
    with pytest.raises(ValueError, match="the weights have positions for 2 times 64; give clips"):
        jax.eval_shape(model.apply, variables, other)


def test_distances_between_places():
    table = jnp.arange(7.0)[:, None]  # of four places: distances -3 to 3
    rows = mvit._by_distance(table, 4, 4)[..., 0] - 3
    np.testing.assert_array_equal(rows, np.arange(4)[:, None] - np.arange(4))
    # Keys lie two queries apart, the first between two of them.
    coarse = mvit._by_distance(table, 4, 2)[..., 0] - 1
    np.testing.assert_array_equal(coarse, np.arange(4)[:, None] - 2 * np.arange(2) + 1)
