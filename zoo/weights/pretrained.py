"""Models with their trained weights: those inside the package and those that others published."""

import dataclasses
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from zoo import registry
from zoo.weights import runs
from zoo.weights.published import PUBLISHED
from zoo.weights.spec import WeightsSpec

if TYPE_CHECKING:
    import flax.linen as nn


class Pretrained(NamedTuple):
    """A model with trained variables; `model.apply(variables, clips)` gives logits.

    spec says what clips the model wants and what it is worth.
    """

    model: "nn.Module"
    variables: dict[str, Any]
    spec: WeightsSpec


def load_pretrained(
    name: str, *, num_classes: int | None = None, dtype: str = "float32"
) -> Pretrained:
    """A model with its trained weights.

    Weights of this project are inside the package. Those that others published are fetched at the
    first use, verified, converted and kept in the cache; without a connection the error says how
    to bring the file here.

    Args:
      name: one of `zoo.list_weights()`, or the folder of a finished run of `experiments.run`.
      num_classes: None for the classes that it was trained on; 0 for features without the last
        layer; any other number for a new last layer, drawn from a normal distribution of
        deviation 0.01 with zero biases (the same in each call), which has to be trained.
      dtype: what the model computes in.

    Raises:
      ValueError: an unknown name (the message names the nearest).
      WeightsError: the file is absent or damaged, or does not fit the model.
    """
    require_weights(name)
    return _pretrained(name, _load(name), num_classes, dtype)


def require_weights(name: str) -> None:
    """Raises ValueError, naming the nearest, where `load_pretrained` knows no such weights."""
    if not runs.is_run(name):
        registry.require_name("weights", name, registry.list_weights())


def import_weights(
    name: str,
    path: str | os.PathLike,
    *,
    num_classes: int | None = None,
    dtype: str = "float32",
) -> Pretrained:
    """As `load_pretrained`, from a file that is here already.

    That is a .pth, .pyth or .safetensors, or a TensorFlow checkpoint: a .tar.gz, or an .index with
    its .data files beside it.

    Reads it without running anything in it, converts it and keeps the result in the cache, where
    `load_pretrained` finds it. A file that is not the published one is taken if it fits; the
    record then has no accuracy.

    Args:
      name: one of `zoo.list_weights()` that others published, or a model with one such.
      path: the file.
      num_classes, dtype: as for `load_pretrained`.

    Raises:
      ValueError: an unknown name.
      WeightsError: the file is absent, damaged or unsafe, or does not fit the model; every entry
        that is missing, unknown or of another shape is named.
    """
    from zoo.weights import originals

    name = default_weights(name, path)
    return _pretrained(name, originals.import_file(name, path), num_classes, dtype)


def default_weights(name: str, path: str | os.PathLike | None = None) -> str:
    """The published weights of that name, or those of the model of that name.

    Of the same weights in two files the one that `path` is like, which is to be imported.

    Raises ValueError where there are none or more than one, and for a model whose only weights
    may not be used commercially: those are used where they are named and never by default.
    """
    from zoo.weights import tf_checkpoint

    published = [key for key in registry.list_weights() if key in PUBLISHED]
    if name in published:
        return name
    models = sorted({PUBLISHED[key].model for key in published})
    registry.require_name("published weights or model", name, [*published, *models])
    candidates = [key for key in published if PUBLISHED[key].model == name]
    copies = [key for key in candidates if PUBLISHED[key].copy_of]
    if not (copies and path is not None and tf_checkpoint.is_checkpoint(path)):
        copies = [key for key in candidates if key not in copies]
    free = [key for key in copies if PUBLISHED[key].commercial]
    if len(free) != 1:
        licences = ", ".join(f"{key} ({PUBLISHED[key].licence})" for key in candidates)
        raise ValueError(f"{name} alone does not say which weights are meant; name {licences}")
    return free[0]


def _load(name: str) -> tuple[dict[str, Any], WeightsSpec]:
    if name in registry.WEIGHTS:
        from zoo.weights import load

        return load.shipped(name)
    if runs.is_run(name):
        return runs.read(name)
    from zoo.weights import originals

    return originals.published(name)


def _pretrained(
    name: str,
    loaded: tuple[dict[str, Any], WeightsSpec],
    num_classes: int | None,
    dtype: str,
) -> Pretrained:
    variables, spec = loaded
    classes = len(spec.classes) if num_classes is None else num_classes
    model = registry.create_model(spec.model, num_classes=classes, dtype=dtype, **spec.overrides)
    if classes == 0:
        variables["params"].pop("head")
    elif classes != len(spec.classes):
        variables["params"]["head"] = new_head(variables["params"]["head"], classes)
        spec = dataclasses.replace(spec, classes=(), results={}, views="")
    return Pretrained(model, variables, spec)


def new_head(head: Mapping[str, Any], classes: int) -> dict[str, Any]:
    """Parameters of a last layer for other classes, in place of those of `head`."""
    import numpy as np

    features, dtype = head["kernel"].shape[0], head["kernel"].dtype
    kernel = 0.01 * np.random.default_rng(0).standard_normal((features, classes))
    result = {"kernel": kernel.astype(dtype)}
    if "bias" in head:
        result["bias"] = np.zeros(classes, dtype)
    return result
