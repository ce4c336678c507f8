"""Trains the network that finds shot boundaries: python -m experiments.shots.train --clips ROOT.

Sequences are composed once and turned into signals, which a small network then reads for some
epochs. Every tenth clip is kept for the sequences on which thresholds are chosen.
"""

import argparse
import dataclasses
import json
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.shots import compose, scenes, scoring
from zoo.tasks.shots import boundaries, network
from zoo.tasks.shots.signals import COUNT, signals
from zoo.video import files
from zoo.weights import load


@dataclasses.dataclass(frozen=True)
class Config:
    """What is trained.

    Attributes:
      train, val: sequences.
      frames: of a sequence.
      epochs, batch, learning_rate, weight_decay: of the training (AdamW, cosine to zero).
      width: of the network.
      seed: of everything random.
    """

    train: int = 700
    val: int = 100
    frames: int = 256
    epochs: int = 25
    batch: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    width: int = 64
    seed: int = 0


CONFIGS = {"shots": Config(), "shots_tiny": Config(train=8, val=4, frames=96, epochs=2, batch=4)}


def dataset(
    config: Config, clips: list[np.ndarray], count: int, seed: int
) -> dict[str, np.ndarray]:
    """Signals [n t s] in half precision and labels [n t] of so many sequences."""
    run = jax.jit(signals)
    rng = np.random.default_rng([config.seed, seed])
    parts: dict[str, list[np.ndarray]] = {"signals": [], "cuts": [], "gradual": []}
    for _ in range(count):
        composed = compose.compose(rng, clips, config.frames)
        parts["signals"].append(np.asarray(run(composed.frames), np.float16))
        parts["cuts"].append(composed.cuts)
        parts["gradual"].append(composed.gradual)
    return {name: np.stack(values) for name, values in parts.items()}


def loss(logits: jax.Array, cuts: jax.Array, gradual: jax.Array) -> jax.Array:
    """Cross-entropy; frames beside a cut are neither, and cuts are rare and count more."""
    near = jnp.maximum(jnp.roll(cuts, 1, 1), jnp.roll(cuts, -1, 1)) * (1 - cuts)
    terms = optax.sigmoid_binary_cross_entropy(logits[..., 0], cuts) * (1 - near) * (1 + 4 * cuts)
    return terms.mean() + 0.5 * optax.sigmoid_binary_cross_entropy(logits[..., 1], gradual).mean()


def fit(config: Config, data: dict[str, np.ndarray]) -> dict[str, Any]:
    """Trained variables."""
    model = network.ShotNet(config.width)
    steps = config.epochs * (len(data["cuts"]) // config.batch)
    rate = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, steps // 20 + 1, steps)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=config.weight_decay)
    )
    flat = data["signals"].reshape(-1, COUNT).astype(np.float32)
    variables: Any = model.init(jax.random.key(config.seed), jnp.zeros((1, 8, COUNT)))
    params = dict(variables["params"])
    # The signals' own mean and spread; they are constants of the network, not trained.
    fixed = {"mean": jnp.array(flat.mean(0)), "scale": jnp.array(1 / (flat.std(0) + 0.01))}
    params = {name: value for name, value in params.items() if name not in fixed}
    state = optimizer.init(params)

    @jax.jit
    def step(params: Any, state: Any, key: Any, batch: Any) -> tuple[Any, Any, Any]:
        def objective(params: Any) -> Any:
            logits: Any = model.apply(
                {"params": {**params, **fixed}}, batch["signals"], train=True,
                rngs={"dropout": key},
            )  # fmt: skip
            return loss(logits, batch["cuts"], batch["gradual"])

        value, gradient = jax.value_and_grad(objective)(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    rng = np.random.default_rng(config.seed)
    key = jax.random.key(config.seed + 1)
    for epoch in range(config.epochs):
        order, total = rng.permutation(len(data["cuts"])), 0.0
        for start in range(0, len(order) - config.batch + 1, config.batch):
            chosen = order[start : start + config.batch]
            batch = {name: values[chosen].astype(np.float32) for name, values in data.items()}
            key, own = jax.random.split(key)
            params, state, value = step(params, state, own, batch)
            total += float(value)
        print(f"epoch {epoch + 1}: loss {total / (len(order) // config.batch):.4f}", flush=True)
    return {"params": {**params, **fixed}}


def probabilities(config: Config, variables: Any, data: dict[str, np.ndarray]) -> np.ndarray:
    """[n t 2]."""
    model = network.ShotNet(config.width)
    run = jax.jit(lambda x: jax.nn.sigmoid(model.apply(variables, x)))  # pyright: ignore[reportArgumentType]
    parts = [run(part[None].astype(np.float32))[0] for part in data["signals"]]
    return np.asarray(jnp.stack(parts))


def choose(
    found: np.ndarray, data: dict[str, np.ndarray]
) -> tuple[dict[str, float], scoring.Score]:
    """The thresholds with the best F1 over both kinds, and the counts there."""
    best: tuple[float, dict[str, float], scoring.Score] | None = None
    truths = [
        scoring.truth_of(cuts, gradual)
        for cuts, gradual in zip(data["cuts"], data["gradual"], strict=True)
    ]
    for cut in np.arange(0.2, 0.96, 0.05):
        for gradual in np.arange(0.2, 0.91, 0.1):
            total = scoring.Score({}, {}, 0)
            for truth, rows in zip(truths, found, strict=True):
                answer = boundaries.find(rows, cut, gradual)
                total += scoring.score(truth, [(b.first, b.last) for b in answer])
            if best is None or total.f1() > best[0]:
                best = total.f1(), {"cut": round(cut, 3), "gradual": round(gradual, 3)}, total
    assert best is not None
    return best[1], best[2]


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.shots.train", description=__doc__)
    parser.add_argument("--clips", nargs="+", required=True, help="folders of single shots")
    parser.add_argument("--config", choices=CONFIGS, default="shots")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="weight file to write")
    parser.add_argument("--data", help="what the clips are, for the record")
    chosen = parser.parse_args()
    config = CONFIGS[chosen.config]
    started = time.monotonic()
    clips = scenes.load([video.path for video in files.find(chosen.clips)])
    held = clips[::10]
    clips = [clip for k, clip in enumerate(clips) if k % 10]
    print(f"{len(clips)} clips to train on, {len(held)} to choose thresholds on", flush=True)
    train = dataset(config, clips, config.train, 0)
    val = dataset(config, held, config.val, 1)
    print(f"composed after {time.monotonic() - started:.0f} s", flush=True)
    variables = fit(config, train)
    thresholds, total = choose(probabilities(config, variables, val), val)
    results = {"val/f1_cut": total.f1("cut"), "val/f1_gradual": total.f1("gradual")}
    record = {
        "config": dataclasses.asdict(config),
        "thresholds": thresholds,
        "data": chosen.data or f"{len(clips) + len(held)} clips and drawn scenes",
        "results": {name: round(value, 4) for name, value in results.items()},
        "licence": "Apache-2.0",
    }
    digest = load.save(chosen.out, jax.device_get(variables), record)
    print(json.dumps({**record, "sha256": digest}, indent=1))
    print(f"after {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
