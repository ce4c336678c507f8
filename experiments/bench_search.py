"""`python -m experiments.bench search`: a whole search against the same runs one after the other.

The search is that of the text: batch sizes of 32, 64 and 128, three numbers of epochs, three folds.
Its opponents are this project's own compiled train step, one run after the other, and, where
--keras-python says which environment has them, scikit-learn's GridSearchCV over Keras with and
without XLA. All train the same network (three 3x3 convolutions with max-pooling and two dense
layers) with Adam on the same frames in the same folds, without augmentation. Each contestant
is a process of its own that starts with nothing compiled; they take turns, in an order that is
shuffled in every round. A ratio above 1 means that the search is faster; of another library the
fastest setting counts.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np

from experiments import data, search_worker
from experiments.config import Config, Data, Eval, Search, to_dict
from zoo.video import transform

KERAS = ("keras", "keras_compiled")


def experiment(clips: int, size: int, epochs: tuple[int, ...]) -> Config:
    """The text's search on small frames, one of each clip: what a network of images takes."""
    return Config(
        data=Data(
            frames=1,
            sampling="uniform",
            size=size,
            decode_size=size,
            train_clips=clips,
            val_clips=10,
            test_clips=10,
        ),
        eval=Eval(batch_size=64),
        search=Search(batch_size=(32, 64, 128), epochs=epochs, folds=3),
    )


def write_job(config: Config, folder: pathlib.Path) -> pathlib.Path:
    """What the contestants need, as files in `folder`: the job, and the clips as arrays."""
    d, search = config.data, config.search
    prepared = data.prepare(d)
    batches = data.batches(
        prepared,
        "train",
        batch_size=prepared.size("train"),
        frames=d.frames,
        size=(d.decode_size, d.decode_size),
        sampling=d.sampling,
        train=False,
        seed=0,
    )
    with contextlib.closing(batches):
        batch = next(batches)
    # One view of one frame in one crop: images.
    images = [
        np.asarray(transform.prepare(clip, config.augment, d.size, spatial_views=1))[0, 0]
        for clip in batch["clip"][:, 0]
    ]
    np.savez(folder / "clips.npz", clips=np.stack(images), labels=batch["label"])
    folds = [dataclasses.replace(d, folds=search.folds, fold=n) for n in range(search.folds)]
    job = {
        "config": to_dict(config),
        "clips": os.fspath(folder / "clips.npz"),
        "folds": [data.fold_positions(prepared, fold) for fold in folds],
        "axes": {"batch_size": search.batch_size, "epochs": search.epochs},
        "learning_rate": config.optim.learning_rate,
    }
    path = folder / "job.json"
    path.write_text(json.dumps(job), "utf-8")
    return path


def work(contestant: str, python: str, job: pathlib.Path) -> dict[str, Any]:
    """What a contestant says of its work. Raises SystemExit where it does not run."""
    environment = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3")
    if contestant in KERAS:
        environment.pop("PYTHONPATH", None)
    else:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    command = [python, "-P", search_worker.__file__, contestant, os.fspath(job)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith(search_worker.MARK):
            return json.loads(line.removeprefix(search_worker.MARK))
    raise SystemExit(
        f"{contestant} does not run with {python}: see the message above, and give a Python that "
        "has Keras, TensorFlow and scikit-learn (--keras-python) or leave it out"
    )


def ratios(medians: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """For each opponent the time of its fastest setting over that of the search."""
    found: dict[str, dict[str, float]] = {}
    for name, settings in {"one_by_one": ("one_by_one",), "keras": KERAS}.items():
        present = [medians[setting] for setting in settings if setting in medians]
        if present:
            found[name] = {
                kind: min(median[kind] for median in present) / own
                for kind, own in medians["together"].items()
            }
    return found


def _table(found: dict[str, Any]) -> str:
    lines = [f"{found['what']}  (load {found['load'][0]:.1f}, then {found['load'][1]:.1f})"]
    for name, median in found["medians"].items():
        samples = [answer["seconds"] for answer in found["answers"][name]]
        best = max(score for _, score in found["answers"][name][0]["scores"])
        lines.append(
            f"  {name:15} {median['seconds']:7.1f} s ({min(samples):.1f} to {max(samples):.1f})  "
            f"{median['processor']:7.1f} processor s  best {best:.3f}  "
            f"{found['answers'][name][0]['version']}"
        )
    for name, ratio in found["ratios"].items():
        lines.append(
            f"  the search is {ratio['seconds']:.2f} times as fast as {name}, "
            f"{ratio['processor']:.2f} times by processor time"
        )
    return "\n".join(lines)


def _summary(
    config: Config, answers: dict[str, list[dict[str, Any]]], load: list[float]
) -> dict[str, Any]:
    """Medians and ratios of the rounds so far."""
    medians = {
        name: {
            kind: statistics.median(answer[kind] for answer in given)
            for kind in ("seconds", "processor")
        }
        for name, given in answers.items()
    }
    d, search = config.data, config.search
    return {
        "what": f"batch sizes {search.batch_size}, epochs {search.epochs}, {search.folds} folds of "
        f"{d.train_clips} clips of {d.size}x{d.size}, {len(answers['together'])} rounds",
        "load": load,
        "medians": medians,
        "ratios": ratios(medians),
        "answers": answers,
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--clips", type=int, default=192, help="clips in all folds together")
    parser.add_argument("--size", type=int, default=64, help="height and width of the frames")
    parser.add_argument("--epochs", type=int, nargs="+", default=[10, 20, 30])
    parser.add_argument("--keras-python", help="a Python that has Keras and scikit-learn")
    parser.add_argument("--keras-only", choices=KERAS, help="one of its settings, to save time")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each")
    parser.add_argument("--keras-rounds", type=int, default=2, help="turns of Keras, the slowest")
    parser.add_argument("--json", type=pathlib.Path, help="where to write the results")


def run(options: argparse.Namespace) -> int:
    """Carries the command out; returns the exit status."""
    config = experiment(options.clips, options.size, tuple(options.epochs))
    pythons = {"together": sys.executable, "one_by_one": sys.executable}
    if options.keras_python:
        settings = [options.keras_only] if options.keras_only else KERAS
        pythons |= dict.fromkeys(settings, options.keras_python)
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in pythons}
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as folder:
        job = write_job(config, pathlib.Path(folder))
        for number in range(options.rounds):
            for name in random.sample(list(pythons), len(pythons)):
                if name not in KERAS or number < options.keras_rounds:
                    answers[name].append(work(name, pythons[name], job))
            found = _summary(config, answers, [*load, os.getloadavg()[0]])
            print(_table(found), flush=True)
            if options.json:
                options.json.write_text(json.dumps(found, indent=1))
    return 0
