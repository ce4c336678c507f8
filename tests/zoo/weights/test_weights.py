"""Weight files: written whole, read back exactly, and refused where anything is wrong."""

import dataclasses
import os

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo
from zoo import __main__ as command_line
from zoo import cost, registry
from zoo.weights import load
from zoo.weights.spec import WeightsSpec, card

SPEC = WeightsSpec(
    model="cnn_small_shift",
    classes=("left", "right", "up"),
    frames=2,
    size=24,
    decode_size=27,
    mean=(0.45, 0.45, 0.45),
    std=(0.225, 0.225, 0.225),
    licence="Apache-2.0",
    data="random numbers",
    command="none",
    results={"test/top1": 1 / 3},
    overrides={"hidden": 8, "shift": (2,)},
)


def arrays(spec=SPEC, seed=0):
    model = zoo.create_model(spec.model, num_classes=len(spec.classes), **spec.overrides)
    rng = np.random.default_rng(seed)
    shapes = cost.variable_shapes(model, (spec.frames, spec.size, spec.size, 3))
    return jax.tree.map(
        lambda leaf: rng.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape).astype(leaf.dtype),
        shapes,
    )


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A file with a record, as a shipped one, under the name test.weights."""
    monkeypatch.setattr(load, "FILES", tmp_path)
    variables = arrays()
    monkeypatch.setitem(
        registry.WEIGHTS, "test.weights", load.publish("test.weights", variables, SPEC)
    )
    return tmp_path / "test.weights.safetensors", variables


def same(a, b):
    def equal(x, y):
        return (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())

    return jax.tree.all(jax.tree.map(equal, a, b))


names = st.text("abcdefgh_0123", min_size=1, max_size=6)
trees = st.recursive(
    st.tuples(
        st.sampled_from([np.float32, np.float16, np.float64, np.int32, np.uint8]),
        st.lists(st.integers(0, 3), max_size=3),
        st.integers(0, 99),
    ).map(lambda v: (100 * np.random.default_rng(v[2]).random(v[1])).astype(v[0])),
    lambda inner: st.dictionaries(names, inner, min_size=1, max_size=3),
    max_leaves=5,
)


@settings(max_examples=40, deadline=None)
@given(params=st.dictionaries(names, trees, min_size=1, max_size=3))
def test_what_was_saved_is_read_back_bit_for_bit(params, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "a.safetensors"
    digest = zoo.save_weights(path, {"params": params}, {"classes": ("a", "ü"), "n": 3})
    variables, metadata = zoo.read_weights(path, digest)
    assert jax.tree.structure(variables) == jax.tree.structure({"params": params})
    assert same(variables, {"params": params})
    assert metadata == {"classes": ["a", "ü"], "n": 3}
    assert zoo.save_weights(path, {"params": params}, {"n": 3, "classes": ("a", "ü")}) == digest


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    zoo.save_weights(path, {"params": {"w": np.zeros(3)}}, {})
    old = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        zoo.save_weights(path, {"params": {"w": np.ones(3)}}, {})
    assert path.read_bytes() == old
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_dtype_that_cannot_be_read_back_is_not_written(tmp_path):
    rough = {"params": {"w": np.zeros(3, ml_dtypes.bfloat16)}}
    with pytest.raises(load.WeightsError, match="params/w is bfloat16; convert it to float32"):
        zoo.save_weights(tmp_path / "a.safetensors", rough, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 8, b"not a weight file at all", safetensors.numpy.save({"w": np.zeros(2)})],
    ids=["empty", "zeros", "text", "another project's"],
)
def test_a_file_of_another_kind_is_refused_by_name(tmp_path, content):
    path = tmp_path / "odd.safetensors"
    path.write_bytes(content)
    with pytest.raises(load.WeightsError, match=r"odd\.safetensors: not a weight file"):
        zoo.read_weights(path)


def test_an_absent_file_is_refused_by_name(tmp_path):
    with pytest.raises(load.WeightsError, match=r"gone\.safetensors: .*No such file"):
        zoo.read_weights(tmp_path / "gone.safetensors")


def test_pretrained_weights_give_the_logits_that_they_gave(published):
    _, variables = published
    model, loaded, spec = zoo.load_pretrained("test.weights")
    assert same(loaded, variables) and spec.classes == SPEC.classes
    clips = np.random.default_rng(0).standard_normal((2, 2, 24, 24, 3), np.float32)
    original = zoo.create_model("cnn_small_shift", num_classes=3, hidden=8, shift=(2,))
    expected = jax.jit(original.apply)(variables, clips)
    np.testing.assert_array_equal(jax.jit(model.apply)(loaded, clips), expected)
    assert zoo.list_weights("test.*") == ["test.weights"]


def test_pretrained_features_come_without_the_last_layer(published):
    model, variables, _ = zoo.load_pretrained("test.weights", num_classes=0, dtype="bfloat16")
    assert "head" not in variables["params"]
    shape = jax.ShapeDtypeStruct((1, 2, 24, 24, 3), np.float32)
    assert jax.eval_shape(model.apply, variables, shape).shape == (1, 8)


def test_other_classes_get_a_new_last_layer(published):
    _, trained = published
    model, variables, spec = zoo.load_pretrained("test.weights", num_classes=5)
    head, hidden = variables["params"]["head"], variables["params"]["hidden"]
    assert head["kernel"].shape == (8, 5) and not head["bias"].any()
    assert 0.005 < head["kernel"].std() < 0.02
    assert same(hidden, trained["params"]["hidden"])
    assert spec.classes == () and spec.results == {}  # those were of the other layer
    clips = jax.ShapeDtypeStruct((1, 2, 24, 24, 3), np.float32)
    assert jax.eval_shape(model.apply, variables, clips).shape == (1, 5)
    again = zoo.load_pretrained("test.weights", num_classes=5).variables
    assert same(again, variables)


def test_an_unknown_name_is_answered_with_the_nearest(published):
    with pytest.raises(ValueError, match=r"'test.weight'; did you mean 'test.weights'\?"):
        zoo.load_pretrained("test.weight")


@pytest.mark.parametrize("where", [0, 100, -1])
def test_one_changed_byte_is_noticed(published, where):
    path, _ = published
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)
    with pytest.raises(load.WeightsError, match=r"test\.weights\.safetensors: the sha256 is"):
        zoo.load_pretrained("test.weights")


def test_a_record_that_differs_from_the_file_is_noticed(published, monkeypatch):
    changed = dataclasses.replace(registry.WEIGHTS["test.weights"], mean=(0.5, 0.5, 0.5))
    monkeypatch.setitem(registry.WEIGHTS, "test.weights", changed)
    with pytest.raises(load.WeightsError, match="record in the file differs"):
        zoo.load_pretrained("test.weights")


def test_weights_that_do_not_fit_are_refused_with_every_reason(tmp_path):
    variables = arrays()
    params = variables["params"]
    params["extra"] = params.pop("conv2")
    params["head"]["bias"] = np.zeros(4, np.float32)
    with pytest.raises(load.WeightsError) as error:
        load.publish("odd", variables, SPEC, tmp_path)
    message = str(error.value)
    for part in (
        "params/conv2/kernel is missing",
        "params/conv2/bias is missing",
        "params/extra/kernel is unknown",
        "params/head/bias is (4,), not (3,)",
    ):
        assert part in message
    assert not list(tmp_path.iterdir())


def test_the_card_says_what_the_record_says(published, capsys):
    path, _ = published
    text = path.with_suffix(".md").read_text("utf-8")
    spec = registry.WEIGHTS["test.weights"]
    for part in (
        spec.sha256,
        "random numbers",
        "Apache-2.0",
        "left, right, up",
        "| test/top1 | 0.3333 |",
        "center crop 24x24",
        "hidden=8",
        f"{path.stat().st_size:,} bytes",
    ):
        assert part in text
    assert command_line.main(["info", "test.weights"]) == 0
    assert capsys.readouterr().out == text
    assert command_line.main(["list", "cnn_small_shift"]) == 0
    assert "test.weights" in capsys.readouterr().out


def test_every_shipped_file_has_a_record():
    files = {path.name for path in load.FILES.glob("*") if not path.name.startswith(".")}
    assert files == {name + end for name in registry.WEIGHTS for end in (".safetensors", ".md")}


@pytest.mark.parametrize("name", sorted(registry.WEIGHTS))
def test_shipped_weights_load_and_have_their_card(name):
    model, variables, spec = zoo.load_pretrained(name)
    path = load.FILES / f"{name}.safetensors"
    assert path.stat().st_size < 3e6
    clip = jax.ShapeDtypeStruct((1, spec.frames, spec.size, spec.size, spec.channels), np.float32)
    assert jax.eval_shape(model.apply, variables, clip).shape == (1, len(spec.classes))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables))
    expected = card(name, spec, parameters, path.stat().st_size)
    assert path.with_suffix(".md").read_text("utf-8") == expected
