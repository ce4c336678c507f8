"""What the project promises to learn: the first command, and the weights in the package."""

import json

import jax
import numpy as np
import pytest

import zoo
from experiments import data
from experiments.config import Config, Data
from experiments.train import eval_step


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_first_command_recognises_moving_shapes(command_line, tmp_path) -> None:
    process = command_line.start("--config", "cnn_small", "--out", "run", cwd=tmp_path)
    _, err = process.communicate(timeout=1400)
    assert process.returncode == 0, err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["test/top1"] >= 0.95


# What a tenth of the test clips, rendered from another seed, may cost in accuracy.
LEAST = {"shapes": 0.92, "motions": 0.85}


@pytest.mark.parametrize("name", zoo.list_weights("cnn_*"))
def test_shipped_weights_recognise_clips_that_they_never_saw(name, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    model, variables, spec = zoo.load_pretrained(name)
    task = "motions" if "shift" in name else "shapes"
    # Another seed than any clip of the training run.
    clips = Data(task=task, seed=1, train_clips=10, val_clips=10, test_clips=100)
    prepared = data.prepare(clips, say=lambda line: None)
    assert prepared.classes == spec.classes
    step = jax.jit(lambda clip: eval_step(model, Config(data=clips), 1, variables, clip))
    right = []
    for batch in data.batches(
        prepared,
        "test",
        batch_size=20,
        frames=spec.frames,
        size=(spec.decode_size, spec.decode_size),
        sampling="uniform",
        views=8 // spec.frames,
        train=False,
        seed=0,
    ):
        right.append(np.asarray(step(batch["clip"])).argmax(-1) == batch["label"])
    assert np.mean(right) >= LEAST[task]
