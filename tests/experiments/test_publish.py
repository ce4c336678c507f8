"""Publishing the weights of a run: what the card says is what the run was."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import zoo
from experiments.config import ConfigError, dumps
from experiments.configs import CONFIGS
from experiments.publish import publish
from zoo import registry
from zoo.weights.errors import WeightsError


def finished_run(folder, config):
    classes = [f"class {i}" for i in range(10)]
    model = zoo.create_model(config.model.name, num_classes=10)
    d = config.data
    clip = jax.ShapeDtypeStruct((1, d.frames, d.size, d.size, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), clip)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda s: rng.standard_normal(s.shape).astype(s.dtype), shapes)
    (folder / "config.json").write_text(dumps(config))
    metrics = dict.fromkeys(("test/top1", "test/top5", "test/macro_f1", "test/ece"), 0.5)
    metrics |= {"val/top1": 0.25, "classes": classes}
    metrics["clips"] = {"train": 3, "val": 2, "test": 1}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    zoo.save_weights(folder / "model.safetensors", variables, {})
    return variables


def test_the_weights_and_the_card_are_those_of_the_run(tmp_path) -> None:
    run, files = tmp_path / "run", tmp_path / "files"
    run.mkdir()
    variables = finished_run(run, CONFIGS["cnn_small"])
    spec = publish(run, "small.test", files)
    assert spec.results["val/top1"] == 0.25 and spec.classes[3] == "class 3"
    stored, _ = zoo.read_weights(files / "small.test.safetensors", spec.sha256)
    jax.tree.map(np.testing.assert_array_equal, stored, variables)
    # The folder itself is weights, too.
    own = zoo.load_pretrained(str(run))
    jax.tree.map(np.testing.assert_array_equal, own.variables, variables)
    same = ("model", "classes", "frames", "size", "decode_size", "mean", "std", "sampling", "fit")
    assert all(getattr(own.spec, name) == getattr(spec, name) for name in same)
    (run / "metrics.json").unlink()
    with pytest.raises(WeightsError, match="not a finished run"):
        zoo.load_pretrained(str(run))
    card = (files / "small.test.md").read_text()
    assert spec.sha256 in card and "python -m experiments.run --config cnn_small`" in card


def test_only_a_finished_run_of_a_named_configuration_is_published(tmp_path) -> None:
    finished_run(tmp_path, dataclasses.replace(CONFIGS["cnn_small"], seed=7))
    with pytest.raises(ConfigError, match="named configuration"):
        publish(tmp_path, "small.test", tmp_path)
    (tmp_path / "config.json").write_text(dumps(CONFIGS["cnn_small"]))
    (tmp_path / "metrics.json").unlink()
    with pytest.raises(ConfigError, match="not finished"):
        publish(tmp_path, "small.test", tmp_path)


@pytest.mark.parametrize("name", sorted(registry.WEIGHTS))
def test_shipped_weights_are_what_their_command_would_train(name) -> None:
    spec = zoo.load_pretrained(name).spec
    config = CONFIGS[spec.command.rpartition(" ")[2]]
    assert (config.model.name, config.data.frames) == (spec.model, spec.frames)
    assert (config.data.size, config.data.decode_size) == (spec.size, spec.decode_size)
    assert (config.augment.mean, config.augment.std) == (spec.mean, spec.std)
