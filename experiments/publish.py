"""`python -m experiments.publish RUN NAME`: makes a finished run's weights part of the package.

Writes the file and its card into zoo/weights/files and prints the record that belongs into
`zoo.registry.WEIGHTS`. Only runs of a named configuration are published, so that the command on
the card trains the same weights again.
"""

import argparse
import json
import pathlib
import pprint
import sys

from experiments import configs
from experiments.config import Config, ConfigError
from zoo.weights import load
from zoo.weights.spec import WeightsSpec

RESULTS = ("test/top1", "test/top5", "test/macro_f1", "test/ece", "val/top1")


def record(config: Config, metrics: dict, command: str) -> WeightsSpec:
    """What is known about the weights of a run."""
    d, clips = config.data, metrics["clips"]
    return WeightsSpec(
        model=config.model.name,
        classes=tuple(metrics["classes"]),
        frames=d.frames,
        size=d.size,
        decode_size=d.decode_size,
        mean=config.augment.mean,
        std=config.augment.std,
        licence="Apache-2.0",
        data=f"{d.dataset}/{d.task}, seed {d.seed}; clips: {clips['train']} train, "
        f"{clips['val']} val, {clips['test']} test",
        command=command,
        results={name: metrics[name] for name in RESULTS},
        sampling="dense" if d.sampling == "dense" else "uniform",
        stride=d.stride if d.sampling == "dense" else 1,
        fit=d.fit,
        overrides={} if config.model.activation == "relu" else {"activation": "sigmoid"},
    )


def publish(run_dir: pathlib.Path, name: str, folder: pathlib.Path = load.FILES) -> WeightsSpec:
    """Writes NAME.safetensors and NAME.md for the run in `run_dir`.

    Raises:
        ConfigError: the run is not finished, or is not of a named configuration.
    """
    config = configs.load(str(run_dir / "config.json"))
    named = [key for key, value in configs.CONFIGS.items() if value == config]
    if not named:
        raise ConfigError(f"{run_dir} is not of a named configuration: publish one that is.")
    try:
        metrics = json.loads((run_dir / "metrics.json").read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{run_dir} is not finished: go on with it first.") from error
    variables, _ = load.read(run_dir / "model.safetensors")
    command = f"python -m experiments.run --config {named[0]}"
    return load.publish(name, variables, record(config, metrics, command), folder)


def main() -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m experiments.publish", description=__doc__)
    parser.add_argument("run", type=pathlib.Path, help="folder of a finished run")
    parser.add_argument("name", help="name of the weights, such as cnn_small.moving_shapes")
    arguments = parser.parse_args()
    try:
        spec = publish(arguments.run, arguments.name)
    except (ConfigError, load.WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    pprint.pp({arguments.name: spec}, width=100)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
