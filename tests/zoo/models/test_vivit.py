"""ViViT: reference logits, names of the published files, and clips that it has no places for."""

import jax
import numpy as np
import pytest

import zoo
from zoo import cost
from zoo.weights import convert
from zoo.weights.maps import vivit

SIZES = {"width": 8, "depth": 2, "heads": 2, "hidden": 4, "size": 16, "frames": 2}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_reference_logits(check_golden):
    check_golden("transformers_vivit_b_16x2", "vivit_b")


def test_published_files_have_older_names(rebuilt):
    model = zoo.create_model("vivit_b", num_classes=2, **SIZES)
    variables, _ = rebuilt(model, "vivit_b", (1, 2, 16, 16, 3), 0)
    table = vivit.table(model.config)
    older = {}
    for name, value in convert.to_state_dict(table, variables).items():
        for new, old in (
            ("vivit.layers", "vivit.encoder.layer"),
            ("attention.o_proj", "attention.output.dense"),
            ("attention.q_proj", "attention.attention.query"),
            ("attention.k_proj", "attention.attention.key"),
            ("attention.v_proj", "attention.attention.value"),
            ("mlp.fc1", "intermediate.dense"),
            ("mlp.fc2", "output.dense"),
        ):
            name = name.replace(new, old)
        older[name] = value
    assert "vivit.encoder.layer.0.attention.attention.query.weight" in older
    shapes = cost.variable_shapes(model, (2, 16, 16, 3))
    np.testing.assert_equal(convert.to_variables(table, older, shapes, "older"), variables)


def test_weights_serve_clips_of_their_own_size_alone():
    model = zoo.create_model("vivit_b", num_classes=2, **SIZES)
    variables = cost.variable_shapes(model, (4, 32, 16, 3))
    other = jax.ShapeDtypeStruct((1, 4, 32, 32, 3), np.float32)
    with pytest.raises(
        ValueError, match=r"4 frames of 32x32 have 8 blocks of pixels, and the .* 4;"
    ):
        jax.eval_shape(model.apply, variables, other)


@pytest.mark.parametrize("shape", [(2, 1, 8), (1, 3, 8), ()])
def test_tables_of_another_rank_are_named(shape, rebuilt):
    model = zoo.create_model("vivit_b", num_classes=2, **SIZES)
    variables, _ = rebuilt(model, "vivit_b", (1, 2, 16, 16, 3), 0)
    table = vivit.table(model.config)
    state = convert.to_state_dict(table, variables)
    state["vivit.embeddings.position_embeddings"] = np.zeros(shape, np.float32)
    shapes = cost.variable_shapes(model, (2, 16, 16, 3))
    with pytest.raises(convert.ConversionError, match="position_embeddings has shape"):
        convert.to_variables(table, state, shapes, "other")
