"""Published weights: from the publisher's file to a model, by download and by import."""

import dataclasses
import hashlib
import json
import math
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

import zoo
from zoo import __main__ as command_line
from zoo import cost, registry
from zoo.models import cnn
from zoo.weights import convert, published
from zoo.weights.errors import WeightsError
from zoo.weights.published import PUBLISHED

TABLE = convert.Table(
    (
        *convert.conv("features.{i}", "conv{i}", bias=True),
        *convert.linear("hidden", "hidden"),
        *convert.linear("fc", "head"),
    )
)
CONFIG = cnn.CNNConfig(frames=2, size=24, widths=(4, 8), hidden=8)


@pytest.fixture
def toy(monkeypatch, tmp_path, server):
    """A model with published weights at the test server, under the names toy and toy.k400."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    family = registry.Family({"toy": CONFIG}, cnn.CNN, lambda config: TABLE)
    monkeypatch.setattr(registry, "MODELS", {**registry.MODELS, "toy": lambda: family})
    record = dataclasses.replace(
        PUBLISHED["x3d_m.k400"], model="toy", url=server.url, frames=2, size=24, decode_size=24
    )
    set_record(monkeypatch, record)
    return record


def set_record(monkeypatch, record):
    monkeypatch.setitem(PUBLISHED, "toy.k400", record)


@pytest.fixture
def state(toy):
    model = zoo.create_model("toy", num_classes=400)
    random = np.random.default_rng(0)
    shapes = cost.variable_shapes(model, (2, 24, 24, 3))
    variables = jax.tree.map(
        lambda leaf: random.standard_normal(leaf.shape).astype(np.float32), shapes
    )
    return convert.to_state_dict(TABLE, variables)


@pytest.fixture
def content(state, torch_writer):
    value = {name: torch_writer.tensor(array) for name, array in state.items()}
    return torch_writer.file({"model_state": value, "epoch": 3})


def check(pretrained, state):
    model, variables, spec = pretrained
    back = convert.to_state_dict(TABLE, variables)
    assert back.keys() == state.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(back[name], array)
    clips = jax.ShapeDtypeStruct((1, 2, 24, 24, 3), np.float32)
    assert jax.eval_shape(model.apply, variables, clips).shape == (1, 400)
    assert spec.classes[0] == "abseiling" and len(spec.classes) == 400


def test_the_first_use_fetches_and_later_ones_read_what_was_converted(
    server, state, content, tmp_path
):
    server.content = content
    first = zoo.load_pretrained("toy.k400")
    check(first, state)
    assert first.spec.sha256 == hashlib.sha256(content).hexdigest()
    assert (first.spec.fps, first.spec.stride, first.spec.mean) == (30.0, 5, (0.45,) * 3)
    assert first.spec.results["val/top1"] == 0.7594
    assert first.spec.views == "10 clips x 3 crops of 256" and first.spec.url == server.url
    second = zoo.load_pretrained("toy.k400")
    check(second, state)
    assert second.spec == first.spec and len(server.requests) == 1
    names = {path.name for path in (tmp_path / "cache" / "weights" / "toy.k400").iterdir()}
    assert {"original", "original.sha256", "converted.safetensors"} <= names


def test_an_offline_machine_is_told_to_import_and_can(
    server, state, content, tmp_path, monkeypatch, toy
):
    closed = dataclasses.replace(toy, url="http://127.0.0.1:1/X.pyth")
    set_record(monkeypatch, closed)
    with pytest.raises(WeightsError, match=r"refused.*127.*python -m zoo import toy\.k400 FILE"):
        zoo.load_pretrained("toy.k400")
    path = tmp_path / "X.pyth"
    path.write_bytes(content)
    check(zoo.import_weights("toy", path), state)
    check(zoo.load_pretrained("toy.k400"), state)


def test_safetensors_are_imported(state, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors.numpy.save(state))
    check(zoo.import_weights("toy.k400", path), state)


def test_bfloat16_safetensors_are_imported_as_float32(state, tmp_path):
    import ml_dtypes

    rough = {name: array.astype(ml_dtypes.bfloat16) for name, array in state.items()}
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors.numpy.save(rough))
    expected = {name: array.astype(np.float32) for name, array in rough.items()}
    check(zoo.import_weights("toy.k400", path), expected)


def test_an_imported_file_that_is_not_the_published_one_is_said_to_be_so(
    state, content, tmp_path, monkeypatch, toy, capsys
):
    set_record(monkeypatch, dataclasses.replace(toy, sha256="0123abcd"))
    path = tmp_path / "X.pyth"
    path.write_bytes(content)
    imported = zoo.import_weights("toy.k400", path)
    assert "is not the published file of toy.k400" in capsys.readouterr().err
    check(imported, state)
    assert imported.spec.results == {} and imported.spec.data == "unknown"
    assert zoo.load_pretrained("toy.k400").spec == imported.spec  # also later


def test_without_a_published_digest_the_first_file_is_pinned(
    server, state, content, tmp_path, capsys
):
    server.content = content
    zoo.load_pretrained("toy.k400")
    other = {**state, "fc.bias": state["fc.bias"] + 1}
    path = tmp_path / "other.safetensors"
    path.write_bytes(safetensors.numpy.save(other))
    capsys.readouterr()
    assert zoo.import_weights("toy.k400", path).spec.results == {}
    assert "is not the published file" in capsys.readouterr().err


def test_a_wrong_download_is_not_used(server, content, monkeypatch, toy, tmp_path):
    set_record(monkeypatch, dataclasses.replace(toy, sha256="0123abcd"))
    server.content = content
    with pytest.raises(WeightsError, match=r"is not the file that is recorded \(sha256 0123abcd"):
        zoo.load_pretrained("toy.k400")
    assert not list((tmp_path / "cache").rglob("converted*"))


def test_a_file_that_does_not_fit_names_every_difference(state, tmp_path):
    del state["hidden.bias"]
    state["extra"] = np.zeros(3, np.float32)
    state["fc.weight"] = state["fc.weight"][:7]
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors.numpy.save(state))
    with pytest.raises(ValueError, match="do not fit the model") as error:
        zoo.import_weights("toy.k400", path)
    for part in ("a.safetensors", "hidden.bias is missing", "extra is unknown", "(7, 8), not (400"):
        assert part in str(error.value)


@pytest.mark.parametrize("damage", [lambda c: c[:-9], lambda c: b"", lambda c: c[:8] + b"{" * 99])
def test_damaged_converted_weights_are_made_again(server, state, content, tmp_path, damage):
    server.content = content
    zoo.load_pretrained("toy.k400")
    path = tmp_path / "cache" / "weights" / "toy.k400" / "converted.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    check(zoo.load_pretrained("toy.k400"), state)
    assert len(server.requests) == 1


def test_a_changed_table_converts_again(server, state, content, monkeypatch, tmp_path):
    server.content = content
    zoo.load_pretrained("toy.k400")
    aliased = dataclasses.replace(TABLE, aliases=(("a.{path}", "{path}"),))
    family = registry.Family({"toy": CONFIG}, cnn.CNN, lambda config: aliased)
    monkeypatch.setitem(registry.MODELS, "toy", lambda: family)
    path = tmp_path / "cache" / "weights" / "toy.k400" / "converted.safetensors"
    before = path.stat().st_mtime_ns
    check(zoo.load_pretrained("toy.k400"), state)
    assert path.stat().st_mtime_ns > before and len(server.requests) == 1


def test_features_and_other_classes(server, content):
    server.content = content
    assert "head" not in zoo.load_pretrained("toy.k400", num_classes=0).variables["params"]
    model, variables, spec = zoo.load_pretrained("toy.k400", num_classes=7, dtype="bfloat16")
    assert model.num_classes == 7
    assert variables["params"]["head"]["kernel"].shape == (8, 7) and spec.classes == ()


def test_a_record_may_change_the_config(toy, state, content, tmp_path, monkeypatch):
    set_record(monkeypatch, dataclasses.replace(toy, overrides={"activation": "sigmoid"}))
    path = tmp_path / "X.pyth"
    path.write_bytes(content)
    for pretrained in (zoo.import_weights("toy", path), zoo.load_pretrained("toy.k400")):
        check(pretrained, state)
        assert pretrained.model.config.activation == "sigmoid"
        assert pretrained.spec.overrides == {"activation": "sigmoid"}
    assert PUBLISHED["movinet_a0_base.k600"].overrides == {"same_padding": True}


def test_no_room_for_the_converted_file(state, content, tmp_path, monkeypatch):
    import os

    def full(descriptor):
        raise OSError(28, "No space left on device")

    path = tmp_path / "X.pyth"
    path.write_bytes(content)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WeightsError, match=r"toy\.k400: .* cannot be kept \(No space left"):
        zoo.import_weights("toy.k400", path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("toyy", "did you mean 'toy"),
        ("cnn_small", "unknown published weights or model 'cnn_small'"),
    ],
)
def test_an_unknown_name_of_an_import(toy, name, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        zoo.import_weights(name, tmp_path / "a")


def test_an_absent_file_of_an_import(toy, tmp_path):
    with pytest.raises(WeightsError, match="gone: there is no such file"):
        zoo.import_weights("toy", tmp_path / "gone")


def test_weights_not_for_commerce_are_used_only_where_they_are_named(
    toy, content, state, tmp_path, monkeypatch
):
    set_record(monkeypatch, dataclasses.replace(toy, licence="CC-BY-NC-4.0"))
    path = tmp_path / "X.pyth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"toy alone.*name toy\.k400 \(CC-BY-NC-4\.0\)"):
        zoo.import_weights("toy", path)
    check(zoo.import_weights("toy.k400", path), state)
    assert not PUBLISHED["videomae_b.k400"].commercial
    assert PUBLISHED["x3d_m.k400"].commercial


def test_of_two_weights_of_a_model_one_has_to_be_named(toy, monkeypatch, tmp_path):
    monkeypatch.setitem(PUBLISHED, "toy.other", toy)
    with pytest.raises(ValueError, match=r"name toy\.k400 .*toy\.other"):
        zoo.import_weights("toy", tmp_path / "X.pyth")


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_every_record_is_whole(name):
    record = PUBLISHED[name]
    spec = record.spec()
    assert name.split(".")[0] == record.model
    assert len(spec.classes) == {"kinetics400": 400, "kinetics600": 600}[record.labels]
    assert len(set(spec.classes)) == len(spec.classes) and list(spec.classes) == sorted(
        spec.classes
    )
    assert record.url.startswith("https://") or (not record.url and record.note)
    assert len(record.sha256) in (0, 8, 64) and len(record.git_blob) in (0, 40)
    size = record.decode_size if isinstance(record.decode_size, int) else min(record.decode_size)
    assert record.size <= size
    assert len(record.mean) == len(record.std) == 3 and min(record.std) > 0
    assert all(0.5 < value < 1 for value in record.results.values())
    assert spec.fit in ("short_side", "stretch")
    json.loads(spec.to_json())


def test_urls_are_of_one_file_each():
    assert len({record.url for record in PUBLISHED.values()}) == len(PUBLISHED)


@pytest.mark.parametrize(
    "name", [name for name, record in PUBLISHED.items() if record.model in registry.MODELS]
)
def test_every_record_of_a_model_that_is_here_has_a_table(name):
    family = registry.MODELS[PUBLISHED[name].model]()
    assert family.table is not None
    assert family.table(family.presets[PUBLISHED[name].model]).rules


def test_weights_are_listed_with_their_models():
    assert "x3d_m.k400" in zoo.list_weights("x3d*")
    assert registry.weights_of("x3d_m") == ["x3d_m.k400"]


def test_class_names_are_the_publishers():
    names = published.class_names("kinetics400")
    assert names[:2] == ("abseiling", "air drumming") and names[-1] == "zumba"
    assert math.isclose(len(published.class_names("kinetics600")), 600)


def test_the_command_line_imports(content, state, tmp_path, capsys):
    path = tmp_path / "X.pyth"
    path.write_bytes(content)
    assert command_line.main(["import", "toy", str(path)]) == 0
    out = capsys.readouterr().out
    assert hashlib.sha256(content).hexdigest() in out and "load_pretrained('toy.k400')" in out
    check(zoo.load_pretrained("toy.k400"), state)


def test_the_command_line_refuses_a_wrong_file_in_one_line(toy, tmp_path, capsys):
    path = tmp_path / "X.pyth"
    path.write_bytes(b"<html>not found</html>")
    assert command_line.main(["import", "toy", str(path)]) == 2
    captured = capsys.readouterr()
    assert "a web page and not a weight file" in captured.err and captured.err.count("\n") == 1


def test_the_command_line_gives_the_publishers_names_back(content, state, tmp_path, capsys):
    path, back = tmp_path / "X.pyth", tmp_path / "back.safetensors"
    path.write_bytes(content)
    zoo.import_weights("toy", path)
    arguments = ["export", "toy.k400", "--format", "torch-named", "--output", str(back)]
    assert command_line.main(arguments) == 0
    assert f"{len(state)} entries under the publisher's names" in capsys.readouterr().out
    found = safetensors.numpy.load_file(back)
    assert found.keys() == state.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(found[name], array)
    check(zoo.import_weights("toy", back), state)


def test_the_command_line_says_what_published_weights_are(toy, capsys):
    assert command_line.main(["info", "toy.k400"]) == 0
    out = capsys.readouterr().out
    for part in (toy.url, "Apache-2.0", "top-1 75.9 on kinetics400 (10 clips x 3"):
        assert part in out
    assert "2 frames, 5 apart at 30 frames per second" in out and "not yet" in out
    assert command_line.main(["info", "toy"]) == 0
    assert "toy.k400: Apache-2.0, top-1 75.9" in capsys.readouterr().out


LOAD = """
import sys, time, zoo, jax, flax
import zoo.models.x3d
started = time.perf_counter()
model, variables, spec = zoo.load_pretrained("x3d_xs.k400")
print(time.perf_counter() - started)
"""


@pytest.mark.slow
def test_converted_weights_load_in_under_a_second(tmp_path, monkeypatch):
    """A real model, in a process of its own; jax is there already."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    family = registry.MODELS["x3d_xs"]()
    model = zoo.create_model("x3d_xs", num_classes=400)
    shapes = cost.variable_shapes(model, (4, 182, 182, 3))
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    state = convert.to_state_dict(family.table(family.presets["x3d_xs"]), variables)
    path = tmp_path / "X3D_XS.safetensors"
    path.write_bytes(safetensors.numpy.save(state))
    zoo.import_weights("x3d_xs", path)
    times = []
    for _ in range(3):
        process = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True)
        assert process.returncode == 0, process.stderr
        times.append(float(process.stdout))
    assert min(times) < 1, times
