"""Weights of a run of one's own: what training left in a folder, as a model with its record."""

import json
import os
import pathlib
from typing import Any

from zoo.weights import load
from zoo.weights.errors import WeightsError
from zoo.weights.spec import WeightsSpec


def is_run(path: str | os.PathLike) -> bool:
    """Whether it is a folder that `python -m experiments.run` wrote a configuration to."""
    return (pathlib.Path(path) / "config.json").is_file()


def read(path: str | os.PathLike) -> tuple[dict[str, Any], WeightsSpec]:
    """The variables of a finished run and their record.

    Raises:
      WeightsError: the run is not finished, or its files do not say what they have to.
    """
    folder = pathlib.Path(path)
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
        data, clips, model = config["data"], metrics["clips"], config["model"]
        dense = data["sampling"] == "dense"
        spec = WeightsSpec(
            model=model["name"],
            classes=tuple(metrics["classes"]),
            frames=data["frames"],
            size=data["size"],
            decode_size=data["decode_size"],
            mean=tuple(config["augment"]["mean"]),
            std=tuple(config["augment"]["std"]),
            licence="",
            data=f"{data['dataset']}; clips: {clips['train']} train, {clips['val']} val",
            command="",
            results={k: v for k, v in metrics.items() if k.startswith(("test/", "val/"))},
            sampling="dense" if dense else "uniform",
            stride=data["stride"] if dense else 1,
            fit=data["fit"],
            overrides={} if model["activation"] == "relu" else {"activation": model["activation"]},
        )
    except OSError as error:
        raise WeightsError(
            f"{folder} is not a finished run ({error}); go on with it first"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{folder} is not a run of this version: its config.json or metrics.json lacks "
            f"{error}; train it again"
        ) from error
    variables, _ = load.read(folder / "model.safetensors")
    load.require_fit(str(folder), variables, spec)
    return variables, spec
