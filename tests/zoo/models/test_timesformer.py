"""TimeSformer: reference logits, and positions of other clips."""

import jax
import numpy as np
import pytest

import zoo
from zoo import cost
from zoo.models import timesformer

SIZES = {"width": 8, "depth": 1, "heads": 2, "hidden": 4, "size": 32, "frames": 2}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_reference_logits(check_golden):
    check_golden("transformers_timesformer_base", "timesformer_b")


def test_frames_of_other_clips_take_the_nearest_positions():
    np.testing.assert_array_equal(timesformer._nearest(8, 4), [0, 2, 4, 6])
    np.testing.assert_array_equal(timesformer._nearest(3, 5), [0, 0, 1, 1, 2])
    np.testing.assert_array_equal(timesformer._nearest(4, 4), [0, 1, 2, 3])


def test_places_that_are_no_square_are_not_resized():
    model = zoo.create_model("timesformer_b", num_classes=2, **SIZES)
    variables = cost.variable_shapes(model, (2, 32, 48, 3))
    other = jax.ShapeDtypeStruct((1, 2, 48, 48, 3), np.float32)
    with pytest.raises(ValueError, match="3x3 places, and the weights have positions for 6, which"):
        jax.eval_shape(model.apply, variables, other)
