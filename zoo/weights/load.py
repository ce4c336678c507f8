"""Weight files: safetensors of a model's variables, written, checked and read.

A file holds every array under its path in the variables ("params/conv1/kernel") and one metadata
entry, "zoo", with JSON: for shipped files their `WeightsSpec`.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from zoo import registry
from zoo.weights.errors import WeightsError
from zoo.weights.paths import flatten, unflatten
from zoo.weights.spec import WeightsSpec, card

FILES = pathlib.Path(__file__).parent / "files"
_METADATA = "zoo"


def save(path: str | os.PathLike, variables: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    """Writes nested dicts of arrays to a safetensors file; a reader never sees half of it.

    Args:
      path: file to write or replace.
      variables: {"params": ..., ...}; the arrays keep their dtype (floats of 16 bits or more,
        integers, booleans).
      metadata: plain values for JSON.

    Returns:
      The file's sha256, the same for the same arguments.

    Raises:
      WeightsError: an array is of a dtype that numpy does not have itself, such as bfloat16.
    """
    return _write(pathlib.Path(path), variables, json.dumps(metadata, sort_keys=True))


def read(
    path: str | os.PathLike, sha256: str | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The variables (numpy arrays) and the metadata of a file that `save` wrote.

    Raises:
      WeightsError: the file is absent, is not safetensors, or has another digest than `sha256`.
    """
    variables, metadata = _read(pathlib.Path(path), sha256)
    return variables, json.loads(metadata)


def publish(
    name: str, variables: Mapping[str, Any], spec: WeightsSpec, folder: pathlib.Path | None = None
) -> WeightsSpec:
    """Writes NAME.safetensors and its card NAME.md, by default to where the package keeps them.

    Returns:
      The record with the digest filled in, for `registry.WEIGHTS`: its repr is its source.

    Raises:
      WeightsError: the variables do not fit the model that the record names.
    """
    require_fit(name, variables, spec)
    folder = folder or FILES
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    digest = _write(path, variables, spec.to_json())
    spec = dataclasses.replace(spec, sha256=digest)
    text = card(name, spec, _size(variables), path.stat().st_size)
    path.with_suffix(".md").write_text(text, "utf-8")
    return spec


def shipped(name: str) -> tuple[dict[str, Any], WeightsSpec]:
    """The variables and the record of a file inside the package.

    Raises:
      WeightsError: the file is absent or damaged, or does not fit the model.
    """
    spec = registry.WEIGHTS[name]
    variables, stored = _read(FILES / f"{name}.safetensors", spec.sha256)
    if stored != spec.to_json():
        raise WeightsError(
            f"{name}: the record in the file differs from the one in zoo.registry.WEIGHTS; "
            "publish the file again"
        )
    require_fit(name, variables, spec)
    return variables, spec


def _write(path: pathlib.Path, variables: Mapping[str, Any], metadata: str) -> str:
    import numpy as np
    import safetensors.numpy

    # ascontiguousarray would make [] into [1].
    arrays = {key: np.asarray(value, order="C") for key, value in flatten(variables).items()}
    for key, value in arrays.items():
        if value.dtype.kind not in "fiub":
            raise WeightsError(f"{path}: {key} is {value.dtype}; convert it to float32 to save it")
    content = safetensors.numpy.save(arrays, {_METADATA: metadata})
    # Written beside its final name and renamed, so that a killed process leaves no half file.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return hashlib.sha256(content).hexdigest()


def _read(path: pathlib.Path, sha256: str | None) -> tuple[dict[str, Any], str]:
    import safetensors

    try:
        if sha256 is not None:
            _require_digest(path, sha256)
        # Maps the file, so that each array is copied once and not twice.
        with safetensors.safe_open(path, "numpy") as file:
            metadata = (file.metadata() or {})[_METADATA]
            names = file.keys()
            arrays = {name: file.get_tensor(name) for name in names}
    except WeightsError:  # is a ValueError itself
        raise
    except OSError as error:
        raise WeightsError(
            f"{path}: the weight file cannot be read ({error.strerror or error}); install the "
            "package again"
        ) from error
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise WeightsError(
            f"{path}: not a weight file of this project ({error}); give one that zoo.save_weights "
            "wrote"
        ) from error
    return unflatten(arrays), metadata


def _require_digest(path: pathlib.Path, sha256: str) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != sha256:
        raise WeightsError(
            f"{path}: the sha256 is {digest}, not {sha256} as recorded; the file is damaged or "
            "was replaced, so install the package again"
        )


def require_fit(name: str, variables: Mapping[str, Any], spec: WeightsSpec) -> None:
    """Raises WeightsError that lists every array that is missing, unknown or of another shape."""
    import jax
    import jax.numpy as jnp

    classes = len(spec.classes)
    model = registry.create_model(spec.model, num_classes=classes, **spec.overrides)
    shape = (1, spec.frames, spec.size, spec.size, spec.channels)
    clips = jax.ShapeDtypeStruct(shape, jnp.float32)
    wanted = flatten(jax.eval_shape(model.init, jax.random.key(0), clips))
    given = flatten(variables)
    problems = [f"{key} is missing" for key in sorted(wanted.keys() - given.keys())]
    problems += [f"{key} is unknown" for key in sorted(given.keys() - wanted.keys())]
    problems += [
        f"{key} is {given[key].shape}, not {wanted[key].shape}"
        for key in sorted(wanted.keys() & given.keys())
        if given[key].shape != wanted[key].shape
    ]
    if problems:
        raise WeightsError(f"{name}: the weights do not fit {spec.model}: {'; '.join(problems)}")


def _size(variables: Mapping[str, Any]) -> int:
    return sum(value.size for value in flatten(variables).values())
