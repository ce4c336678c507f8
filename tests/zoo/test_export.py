"""Exported programs and weights: loaded again they compute the same."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

import zoo
from zoo import __main__ as command_line
from zoo import export
from zoo.weights.errors import WeightsError

NAME = "cnn_small.moving_shapes"  # frames are stretched to 72x72, the crop is 64x64


@pytest.fixture
def pretrained():
    return zoo.load_pretrained(NAME)


@pytest.fixture
def flatbuffers():
    return pytest.importorskip("flatbuffers", reason="programs need flatbuffers: pip install it")


def clips(count, height=72, width=72, frames=2):
    shape = (count, frames, height, width, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def expected(pretrained, frames):
    crop = frames[:, :, 4:68, 4:68].astype(np.float32)
    spec = pretrained.spec
    normalised = (crop / 255 - np.float32(spec.mean)) / np.float32(spec.std)
    return pretrained.model.apply(pretrained.variables, normalised)


@pytest.mark.parametrize("batch", [1, None])
def test_a_program_takes_bytes_and_gives_the_models_logits(
    flatbuffers, pretrained, tmp_path, batch
):
    export.stablehlo(tmp_path / "a", NAME, pretrained, batch=batch)
    program = export.read(tmp_path / "a")
    for count in (1,) if batch else (1, 3):
        frames = clips(count)
        np.testing.assert_allclose(
            program.call(frames), expected(pretrained, frames), rtol=1e-4, atol=1e-4
        )
    assert program.record["spec"]["classes"] == list(pretrained.spec.classes)
    assert program.record["input"] == {"dtype": "uint8", "shape": [batch, 2, 72, 72, 3]}
    assert set(program.exported.platforms) == {"cpu", "cuda", "tpu"}


SCRIPT = """
import sys, numpy as np, jax.export, pathlib
program = jax.export.deserialize(bytearray(pathlib.Path(sys.argv[1]).read_bytes()))
logits = program.call(np.load(sys.argv[2]))
np.save(sys.argv[3], logits)
assert not {"zoo", "flax", "kernels"} & set(sys.modules)
"""


def test_a_program_needs_jax_alone(flatbuffers, pretrained, tmp_path):
    export.stablehlo(tmp_path / "a", NAME, pretrained)
    np.save(tmp_path / "in.npy", clips(1))
    arguments = [str(tmp_path / name) for name in ("a", "in.npy", "out.npy")]
    subprocess.run([sys.executable, "-c", SCRIPT, *arguments], check=True, cwd=tmp_path)
    found = np.load(tmp_path / "out.npy")
    np.testing.assert_allclose(found, expected(pretrained, clips(1)), rtol=1e-4, atol=1e-4)


def test_what_is_loaded_again_is_compared(flatbuffers, pretrained, tmp_path, monkeypatch):
    monkeypatch.setattr(export.Program, "call", lambda self, frames: np.ones((1, 10)))
    with pytest.raises(WeightsError, match=r"differs from the model by .*; do not use it"):
        export.stablehlo(tmp_path / "a", NAME, pretrained)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path, record: path.write_bytes(b"other"), "not the program of its record"),
        (lambda path, record: record.write_text("[]"), "not a program of version 1"),
        (lambda path, record: record.write_text('{"version": 9}'), "not a program of version 1"),
        (lambda path, record: record.write_text("{"), "cannot be read"),
        (lambda path, record: record.unlink(), "cannot be read"),
    ],
)
def test_a_program_that_is_not_whole_is_refused(tmp_path, change, message):
    path, record = tmp_path / "a", tmp_path / "a.json"
    path.write_bytes(b"program")
    record.write_text(json.dumps({"version": 1, "sha256": ""}))
    change(path, record)
    with pytest.raises(WeightsError, match=message):
        export.read(path)


@pytest.mark.parametrize(
    ("frame", "message"),
    [((60, 80), "smaller than the crop of 64x64"), ((80, 80), "scale them to 72x72 before")],
)
def test_frames_of_a_wrong_size(flatbuffers, pretrained, tmp_path, frame, message):
    with pytest.raises(ValueError, match=message):
        export.stablehlo(tmp_path / "a", NAME, pretrained, frame=frame)


def test_frames_whose_shorter_side_is_scaled(pretrained):
    import dataclasses

    spec = dataclasses.replace(pretrained.spec, fit="short_side")
    large = np.full((2, 144, 200, 3), 100, np.uint8)
    found = export.prepare(large, spec)
    assert found.shape == (2, 64, 64, 3)
    np.testing.assert_allclose(found, (100 / 255 - 0.45) / 0.225, rtol=1e-5)


def test_without_flatbuffers_it_is_asked_for(pretrained, tmp_path, monkeypatch):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="pip install flatbuffers"):
        export.stablehlo(tmp_path / "a", NAME, pretrained)


def test_the_command_line_exports_a_program(flatbuffers, tmp_path, capsys):
    path = tmp_path / "a"
    arguments = ["export", NAME, "--format", "stablehlo", "--output", str(path), "--batch", "any"]
    assert command_line.main(arguments) == 0
    assert "uint8 frames anyx2x72x72x3 to 10 logits" in capsys.readouterr().out
    assert export.read(path).call(clips(2)).shape == (2, 10)


def test_the_command_line_exports_weights(pretrained, tmp_path):
    path = tmp_path / "a.safetensors"
    arguments = ["export", NAME, "--format", "safetensors", "--output", str(path)]
    assert command_line.main(arguments) == 0
    variables, metadata = zoo.read_weights(path)
    same = jax.tree.map(np.array_equal, variables, pretrained.variables)
    assert jax.tree.all(same) and metadata["model"] == "cnn_small"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([NAME, "--format", "torch-named"], "there are no torch names for it"),
        (["cnn_smal", "--format", "safetensors"], "did you mean"),
        ([NAME, "--format", "safetensors", "--output", "/nowhere/a"], "cannot be written"),
    ],
)
def test_what_cannot_be_exported_is_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command_line.main(["export", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
