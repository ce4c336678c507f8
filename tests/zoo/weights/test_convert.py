"""Name tables: there and back, and every difference named at once."""

import jax
import numpy as np
import pytest

from zoo.weights import convert

TABLE = convert.Table(
    rules=(
        *convert.conv("layer{i}.{j}.conv", "layer{i}_{j}/conv", bias=True),
        *convert.batch_norm("layer{i}.{j}.bn", "layer{i}_{j}/bn"),
        *convert.linear("fc", "head"),
    ),
    derived=(convert.BATCHES_TRACKED,),
    aliases=(("classifier.{path}", "fc.{path}"), ("module.{path}", "{path}")),
)


def state() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {
        "layer1.0.conv.weight": (4, 3, 1, 2, 5),
        "layer1.0.conv.bias": (4,),
        "layer1.0.bn.weight": (4,),
        "layer1.0.bn.bias": (4,),
        "layer1.0.bn.running_mean": (4,),
        "layer1.0.bn.running_var": (4,),
        "fc.weight": (7, 4),
        "fc.bias": (7,),
    }
    arrays = {n: random.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    return arrays | {"layer1.0.bn.num_batches_tracked": np.zeros((), np.int64)}


def shapes() -> dict:
    def array(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, np.float32)

    return {
        "params": {
            "layer1_0": {
                "conv": {"kernel": array(1, 2, 5, 3, 4), "bias": array(4)},
                "bn": {"scale": array(4), "bias": array(4)},
            },
            "head": {"kernel": array(4, 7), "bias": array(7)},
        },
        "batch_stats": {"layer1_0": {"bn": {"mean": array(4), "var": array(4)}}},
    }


def test_there_and_back() -> None:
    given = state()
    variables = convert.to_variables(TABLE, given, shapes(), "x.pth")
    kernel = variables["params"]["layer1_0"]["conv"]["kernel"]
    assert kernel[0, 1, 4, 2, 3] == given["layer1.0.conv.weight"][3, 2, 0, 1, 4]
    assert variables["params"]["head"]["kernel"][1, 6] == given["fc.weight"][6, 1]
    back = convert.to_state_dict(TABLE, variables)
    assert back.keys() == given.keys()
    for name, array in given.items():
        np.testing.assert_array_equal(back[name], array)


def test_every_difference_is_named_at_once() -> None:
    given = state()
    del given["layer1.0.bn.running_var"], given["fc.bias"]
    given["layer1.0.conv.weight"] = given["layer1.0.conv.weight"][:, :2]
    given["layer1.0.bn.weight"] = np.zeros((), np.float32)
    given["extra"] = np.zeros(3)
    given["layer2.0.bn.bias"] = np.zeros(4)
    with pytest.raises(convert.ConversionError) as error:
        convert.to_variables(TABLE, given, shapes(), "x.pth")
    text = str(error.value)
    for part in (
        "x.pth",
        "layer1.0.bn.running_var is missing",
        "fc.bias is missing",
        "layer1.0.conv.weight has shape (4, 2, 1, 2, 5), not (4, 3, 1, 2, 5)",
        "layer1.0.bn.weight has shape (), not (4,)",
        "extra is unknown",
        "layer2.0.bn.bias is unknown",
    ):
        assert part in text, part


def test_other_names_of_the_same_entries() -> None:
    given = state()
    renamed = {f"module.{n}".replace("module.fc", "classifier"): a for n, a in given.items()}
    variables = convert.to_variables(TABLE, renamed, shapes(), "x.pth")
    np.testing.assert_array_equal(variables["params"]["head"]["bias"], given["fc.bias"])
    with pytest.raises(convert.ConversionError, match=r"classifier\.bias is there twice"):
        convert.to_variables(TABLE, given | {"classifier.bias": given["fc.bias"]}, shapes(), "x")


def test_variables_without_a_published_name() -> None:
    with pytest.raises(convert.ConversionError, match="params/other/kernel"):
        convert.to_state_dict(TABLE, {"params": {"other": {"kernel": np.zeros(2)}}})
