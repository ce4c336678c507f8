"""VideoMAE: reference logits, and the names of the published files."""

import numpy as np
import pytest

import zoo
from zoo import cost
from zoo.weights import convert
from zoo.weights.maps import videomae


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_reference_logits(check_golden):
    check_golden("transformers_videomae_base", "videomae_b")


def test_published_files_name_two_biases_otherwise(rebuilt):
    sizes = {"width": 8, "depth": 2, "heads": 2, "hidden": 4, "size": 16, "frames": 2}
    model = zoo.create_model("videomae_b", num_classes=2, **sizes)
    variables, _ = rebuilt(model, "videomae_b", (1, 2, 16, 16, 3), 0)
    table = videomae.table(model.config)
    newer = convert.to_state_dict(table, variables)
    assert not any("key.bias" in name for name in newer)
    older = {
        name.replace("query.bias", "q_bias").replace("value.bias", "v_bias"): value
        for name, value in newer.items()
    }
    assert "videomae.encoder.layer.1.attention.attention.q_bias" in older
    shapes = cost.variable_shapes(model, (2, 16, 16, 3))
    np.testing.assert_equal(convert.to_variables(table, older, shapes, "older"), variables)
