"""Checkpoints that tell the names of a program's variables, and TransNet V2's among them.

`files/objects.*` was written by `tf.saved_model.save` of TensorFlow 2.21 from modules whose
variables stand in a list; `transnetv2_variables.txt` is what the authors' own code, run there,
calls its variables, with their shapes.
"""

import pathlib
import shutil

import jax
import numpy as np
import pytest

import zoo
from zoo import cost, registry
from zoo.weights import convert, sstable, tf_checkpoint, tf_objects
from zoo.weights.errors import WeightsError
from zoo.weights.paths import flatten, unflatten

FILES = pathlib.Path(__file__).parent / "files"
# What the authors' converter makes of the parts of a name (convert_weights.py, MIT licence).
PARTS = {
    "conv_spatial": "layers.0",
    "conv_temporal": "layers.1",
    "kernel:0": "weight",
    "gamma:0": "weight",
    "bias:0": "bias",
    "beta:0": "bias",
    "moving_mean:0": "running_mean",
    "moving_variance:0": "running_var",
    "dense": "fc1",
    "dense_1": "cls_layer1",
    "dense_2": "cls_layer2",
    "dense_3": "frame_sim_layer.projection",
    "dense_4": "frame_sim_layer.fc",
    "dense_5": "color_hist_layer.fc",
    "FrameSimilarity": "",
    "ColorHistograms": "",
}


def test_variables_in_a_list_get_the_names_that_their_program_gave_them():
    kernel, bias = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([0.5, -1, 2], np.float32)
    by_place = tf_checkpoint.read(FILES / "objects.index")
    assert by_place.keys() == {f"variables_in_order/{n}" for n in range(4)}
    named = tf_checkpoint.read(FILES / "objects.index", own_names=True)
    expected = {"first": (kernel, bias), "second": (-kernel, 10 * bias)}
    assert len(named) == 4
    for name, (k, b) in expected.items():
        np.testing.assert_array_equal(named[f"Net/{name}/kernel"], k)
        np.testing.assert_array_equal(named[f"Net/{name}/bias"], b)


def test_a_checkpoint_without_objects_keeps_its_names():
    plain = tf_checkpoint.read(FILES / "sharded.index")
    assert tf_checkpoint.read(FILES / "sharded.index", own_names=True).keys() == plain.keys()


def test_damaged_objects_are_refused(tmp_path):
    shutil.copy(FILES / "objects.index", tmp_path / "c.index")
    shard = bytearray((FILES / "objects.data-00000-of-00001").read_bytes())
    place = shard.index(b"Net/first/kernel")
    shard[place] ^= 1
    (tmp_path / "c.data-00000-of-00001").write_bytes(shard)
    assert tf_checkpoint.read(tmp_path / "c.index")  # the tensors are whole
    with pytest.raises(WeightsError, match="its objects do not fit their checksum"):
        tf_checkpoint.read(tmp_path / "c.index", own_names=True)


def test_objects_of_another_form_are_refused():
    for graph in (b"\x08\x01", b"\x0a\x02\x10\x01", b"\x0a\xff"):
        with pytest.raises(sstable.TableError):
            tf_objects.names(graph)


def torch_name(name: str) -> str:
    parts = []
    for part in name.removeprefix("TransNet/").split("/"):
        if part.startswith(("SDDCNN", "DDCNN")):
            kind, number = part.split("_")
            part = f"{kind}.{int(number) - 1}"
        parts.append(PARTS.get(part, part))
    return ".".join(filter(None, parts))


def test_transnetv2_is_what_the_authors_converter_makes_of_it():
    """One set of weights under the names of both programs gives the same variables."""
    model = zoo.create_model("transnetv2", num_classes=2)
    family = registry.MODELS["transnetv2"]()
    assert family.table is not None and family.tf_table is not None
    shapes = cost.variable_shapes(model, (4, 27, 48, 3))
    random = np.random.default_rng(0)
    given = unflatten(
        {k: random.standard_normal(v.shape, np.float32) for k, v in flatten(shapes).items()}
    )
    config = family.presets["transnetv2"]
    torch_state = convert.to_state_dict(family.table(config), given)
    state = {}
    for line in (FILES / "transnetv2_variables.txt").read_text().splitlines():
        name, shape = line.split(" ", 1)
        array = torch_state[torch_name(name)]
        if array.ndim == 5:  # the converter's last step, the other way
            array = array.transpose(2, 3, 4, 1, 0)
        elif array.ndim == 2:
            array = array.T
        assert str(array.shape) == shape
        state[name.removesuffix(":0")] = array
    found = convert.to_variables(family.tf_table(config), state, shapes, "transnetv2")
    jax.tree.map(np.testing.assert_array_equal, found, given)
    del state["TransNet/dense_2/bias"]
    with pytest.raises(convert.ConversionError, match="TransNet/dense_2/bias is missing"):
        convert.to_variables(family.tf_table(config), state, shapes, "transnetv2")
