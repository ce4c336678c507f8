"""Few-shot recognition of motions that the embedding was never trained on.

python -m experiments.recognition.fewshot [--held spin orbit] [--epochs 8]

Trains the network of the configuration cnn_small_shift on all motions of `moving_shapes` but the
held-out ones (both directions of each), embeds clips of those with it, and recognises them from a
handful of examples by both methods of `zoo.tasks.fewshot`. What the same network gives before it is
trained, and what the training motions give, stand beside it.
"""

import argparse
import dataclasses
import functools
import json
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments import configs, train
from experiments.config import Config
from experiments.datasets import moving_shapes
from zoo import registry
from zoo.tasks import embed, fewshot
from zoo.video.transform import prepare

MOTIONS = moving_shapes.CLASSES["motions"]
_BATCH = 50


def held_out(words: Sequence[str]) -> tuple[str, ...]:
    """The motions whose names begin with one of these words, with their reversals.

    Raises ValueError where a word begins none, or too few are left to train on.
    """
    if unknown := [word for word in words if not any(m.startswith(word) for m in MOTIONS)]:
        raise ValueError(f"{unknown[0]!r} begins the name of no motion; choose of {MOTIONS}")
    # Motions 2k and 2k + 1 are each other's reversal; to know one is to know the other.
    pairs = {k // 2 for k, m in enumerate(MOTIONS) if any(m.startswith(word) for word in words)}
    if len(pairs) > len(MOTIONS) // 2 - 1:
        raise ValueError("every motion is held out; leave two or more to train on")
    return tuple(motion for k, motion in enumerate(MOTIONS) if k // 2 in pairs)


def clips_of(
    motions: Sequence[str], split: str, count: int, config: Config
) -> tuple[np.ndarray, np.ndarray]:
    """`count` clips of each motion, uint8 [n t h w c], and their labels [n] among `motions`."""
    clips, labels = [], []
    for label, motion in enumerate(motions):
        for k in range(count):
            index = MOTIONS.index(motion) + len(MOTIONS) * k
            clip, _ = moving_shapes.render(
                "motions", split, index, seed=config.data.seed, size=config.data.decode_size,
                frames=config.data.frames,
            )  # fmt: skip
            clips.append(clip)
            labels.append(label)
    return np.stack(clips), np.array(labels, np.int32)


def fit(config: Config, clips: np.ndarray, labels: np.ndarray) -> tuple[Any, Any]:
    """Variables of the network before and after training on these clips."""
    classes = int(labels.max()) + 1
    model = train.make_model(config, classes)
    steps = len(clips) // config.batch_size
    given = train.numbers(config, steps)
    state = train.init_state(model, config, given)
    before = jax.device_get(train.evaluated_variables(state))
    step = jax.jit(functools.partial(train.train_step, model, config, classes, given),
                   donate_argnums=0)  # fmt: skip
    rng = np.random.default_rng(config.seed)
    for epoch in range(config.epochs):
        order = rng.permutation(len(clips))
        right = []
        for number in range(steps):
            chosen = order[config.batch_size * number :][: config.batch_size]
            state, values = step(state, {"clip": clips[chosen], "label": labels[chosen]})
            right.append(values["top1"])
        print(f"epoch {epoch + 1}: {float(np.mean(right)):.3f} of training clips", flush=True)
    return before, jax.device_get(train.evaluated_variables(state))


def embeddings(config: Config, variables: Any, clips: np.ndarray) -> np.ndarray:
    """float32 [n d] of length 1: the network without its last layer."""
    params = {name: part for name, part in variables["params"].items() if name != "head"}
    model = registry.create_model(config.model.name, num_classes=0)

    @jax.jit
    def features(batch: Any) -> Any:
        pixels = jax.vmap(lambda clip: prepare(clip, config.augment, config.data.size)[0])(batch)
        return model.apply({**variables, "params": params}, pixels, train=False)

    parts = [features(clips[k : k + _BATCH]) for k in range(0, len(clips), _BATCH)]
    return embed.unit(np.concatenate([np.asarray(part) for part in parts]))


def accuracies(
    rows: np.ndarray, labels: np.ndarray, *, shots: int, draws: int, seed: int = 0
) -> dict[str, list[float]]:
    """Shares that are named rightly, of each draw of examples, by both methods.

    Args:
      rows: embeddings [n d] of length 1.
      labels: [n], what each is.
      shots: examples of each; all other clips are to be recognised.
      draws: times that examples are drawn anew; both methods see the same ones.
      seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    methods: tuple[fewshot.Method, ...] = ("mean", "probe")
    result: dict[str, list[float]] = {method: [] for method in methods}
    for _ in range(draws):
        chosen = np.concatenate(
            [rng.permutation(np.flatnonzero(labels == k))[:shots] for k in np.unique(labels)]
        )
        rest = np.setdiff1d(np.arange(len(rows)), chosen)
        names = [f"{labels[k]:03}" for k in chosen]
        for method in methods:
            taught = fewshot.teach(rows[chosen], names, method)
            best = taught.scores(rows[rest]).argmax(axis=1)
            right = np.array([int(taught.names[k]) for k in best]) == labels[rest]
            result[method].append(float(right.mean()))
    return result


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.recognition.fewshot")
    parser.add_argument("--held", nargs="+", default=["spin", "orbit"], metavar="WORD")
    parser.add_argument("--clips", type=int, default=200, help="of each motion, to train on")
    parser.add_argument("--test-clips", type=int, default=50, help="of each motion")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--size", type=int, default=64, help="of the frames")
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    config = configs.CONFIGS["cnn_small_shift"]
    try:
        config = dataclasses.replace(
            config, epochs=chosen.epochs, seed=chosen.seed,
            data=dataclasses.replace(
                config.data, size=chosen.size, decode_size=chosen.size + chosen.size // 8
            ),
        )  # fmt: skip
        held = held_out(chosen.held)
    except ValueError as error:
        parser.error(str(error))
    if not 1 <= chosen.shots < chosen.test_clips:
        parser.error(f"--shots {chosen.shots} leave none of {chosen.test_clips} --test-clips over")
    if chosen.draws < 1:
        parser.error(f"--draws is {chosen.draws}: set 1 or more")
    seen = tuple(motion for motion in MOTIONS if motion not in held)
    if len(seen) * chosen.clips < config.batch_size:
        parser.error(f"--clips {chosen.clips} of {len(seen)} motions fill no batch")
    print(f"trained on {', '.join(seen)}; held out: {', '.join(held)}", flush=True)
    started = time.process_time()
    before, after = fit(config, *clips_of(seen, "train", chosen.clips, config))
    record: dict[str, Any] = {"held": held, "chance": 1 / len(held)}
    for title, motions in (("held out", held), ("trained on", seen)):
        clips, labels = clips_of(motions, "test", chosen.test_clips, config)
        for when, variables in (("untrained", before), ("trained", after)):
            rows = embeddings(config, variables, clips)
            found = accuracies(rows, labels, shots=chosen.shots, draws=chosen.draws)
            for method, values in found.items():
                record[f"{title}, {when} network, {method}"] = (
                    round(float(np.mean(values)), 3), round(float(np.std(values)), 3),
                )  # fmt: skip
    record["processor seconds"] = round(time.process_time() - started)
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
