"""Run folders as training leaves them."""

import itertools
import json
import pathlib
from collections.abc import Callable

import numpy as np
import pytest

from experiments import config, metrics

SHAPES = (
    "circle", "square", "triangle", "star", "cross", "ring", "heart", "arrow", "crescent", "hexagon"
)  # fmt: skip


def class_names(number: int) -> list[str]:
    """Names of as many classes as wanted."""
    if number == 2:
        return ["fight", "noFight"]
    return [*SHAPES, *(f"Action number {i}" for i in range(number))][:number]


def clips(number: int, size: int = 72, frames: int = 16) -> list[bytes]:
    """MP4 files of a bright square that goes around on a textured ground."""
    from zoo.video import encode_many

    generator = np.random.default_rng(0)
    films = []
    for i in range(number):
        ground = generator.integers(30, 110, (size // 8, size // 8, 3)).repeat(8, 0).repeat(8, 1)
        film = np.repeat(ground[None], frames, 0).astype(np.uint8)
        for t in range(frames):
            angle = 2 * np.pi * (t / frames + i / number)
            y, x = (int(size / 2 + size / 4 * f(angle)) - 9 for f in (np.sin, np.cos))
            film[t, y : y + 18, x : x + 18] = (240, 60 + 15 * (i % 12), 200 - 15 * (i % 12))
        films.append(film)
    return encode_many(films, fps=16)


def make_run(
    folder: pathlib.Path,
    *,
    classes: int = 10,
    epochs: int = 10,
    finished: bool = True,
    tested: int = 400,
    accuracy: float = 0.9,
    examples: int = 12,
    seed: int = 0,
) -> pathlib.Path:
    """A run folder with every file that the report reads."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config.dumps(config.Config()))
    steps, lines, stages = 31, [], {}
    for epoch in range(epochs):
        for step in range(3, steps + 1, 3):
            at = epoch + step / steps
            noisy = float(np.log(classes) * np.exp(-at / 2) + generator.gamma(2, 0.02))
            lines.append(
                {
                    "step": epoch * steps + step,
                    "epoch": epoch,
                    "step/loss": noisy,
                    "step/top1": float(np.clip(np.exp(-noisy) + generator.normal(0, 0.03), 0, 1)),
                    "step/rate": 1e-3,
                }
            )
        loss = float(np.log(classes) * np.exp(-(epoch + 1) / 2.2))
        worse = loss * 1.1 + 0.08 + 0.02 * float(generator.random())
        stages = {
            "stage/wait for input": 0.4 + 0.05 * epoch,
            "stage/transfer": 0.1 * (epoch + 1),
            "stage/step": 6.0 + 9.1 * (epoch + 1),
            "stage/val": 0.8 * (epoch + 1),
            "stage/checkpoint": 0.3 * (epoch + 1),
            "input/read": 0.2 * (epoch + 1),
            "input/decode": 4.1 * (epoch + 1),
            "input/wait": 3.0 * (epoch + 1),
        }
        lines.append(
            {
                "step": (epoch + 1) * steps,
                "epoch": epoch,
                "train/loss": loss,
                "train/top1": float(np.exp(-loss)),
                "val/loss": worse,
                "val/top1": float(np.exp(-worse)),
                "clips_per_second": 103.4,
                "seconds": 12.0 + 11.0 * (epoch + 1),
                **stages,
            }
        )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    names = class_names(classes)
    labels = np.arange(tested) % classes
    logits = generator.normal(0, 1, (tested, classes))
    right = generator.random(tested) < accuracy
    logits[np.arange(tested), np.where(right, labels, (labels * 7 + 3) % classes)] += 5
    result = metrics.evaluate(logits, labels, names)
    if finished:
        whole = {f"test/{key}": value for key, value in result.items()} | {
            "best/epoch": epochs,
            "val/top1": lines[-1]["val/top1"],
            "classes": names,
            "clips": {"train": 1000, "val": 200, "test": tested},
            "broken_files": 0,
            "parameters": 1_213_130,
            "views": 2,
            "seconds": 141.7,
            "stages": stages | {"stage/test": 3.1},
        }
        (folder / "metrics.json").write_text(json.dumps(whole))
    if examples and finished:
        write_examples(folder / "examples", names, logits, labels, examples)
    return folder


def write_examples(
    folder: pathlib.Path, names: list[str], logits: np.ndarray, labels: np.ndarray, number: int
) -> None:
    folder.mkdir()
    probabilities = metrics.softmax(logits)
    index = []
    for i, content in enumerate(clips(number)):
        best = np.argsort(-probabilities[i])[:3]
        (folder / f"{i:03d}.mp4").write_bytes(content)
        index.append(
            {
                "file": f"{i:03d}.mp4",
                "source": f"test/{names[labels[i]]}/clip_{i:05d}.mp4",
                "label": names[labels[i]],
                "prediction": names[best[0]],
                "probabilities": [[names[k], float(probabilities[i, k])] for k in best],
            }
        )
    (folder / "index.json").write_text(json.dumps(index))


@pytest.fixture
def run_folder(tmp_path: pathlib.Path) -> Callable[..., pathlib.Path]:
    """Makes run folders; the arguments are those of `make_run`."""
    number = itertools.count()
    return lambda **options: make_run(tmp_path / f"cnn_small-{next(number):03d}", **options)
