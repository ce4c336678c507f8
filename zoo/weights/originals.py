"""Files of others: fetched or imported, converted by their name tables, and kept converted.

In the cache each of `zoo.weights.published.PUBLISHED` has a folder with the file as it was
published and `converted.safetensors`, which is read from then on. The latter remembers the table
and the model that it was made for; where they have changed it is made again.
"""

import dataclasses
import hashlib
import os
import pathlib
import sys
from typing import Any

from zoo import cache, registry
from zoo.weights import load
from zoo.weights.errors import WeightsError
from zoo.weights.published import PUBLISHED, Published
from zoo.weights.spec import WeightsSpec

_ORIGINAL, _CONVERTED = "original", "converted.safetensors"


def published(name: str) -> tuple[dict[str, Any], WeightsSpec]:
    """The variables and the record of weights that others published.

    Fetched and converted at the first use. The record has no `results` where a file was imported
    that is not the published one.

    Raises:
      WeightsError: the file can be neither fetched nor read, or does not fit the model.
    """
    record = PUBLISHED[name]
    place = folder(name)
    found = _cached(name, record)
    if found is None:
        from zoo.weights import download

        if not record.url:
            raise WeightsError(f"{name}: not one file, so download {record.note}")
        path = place / _ORIGINAL
        digest = download.download(
            record.url,
            path,
            _expected(record),
            advice=f"where there is a connection download {record.url}, copy it here and run: "
            f"python -m zoo import {name} FILE",
            say=_say,
        )
        found = _convert(name, record, path, digest, True)
    return found


def import_file(name: str, path: str | os.PathLike) -> tuple[dict[str, Any], WeightsSpec]:
    """As `published`, from a file that is here already; later calls of `published` find it.

    Any file that fits the model is taken. One that is not the published file is said to be so, and
    has no published `results`.
    """
    from zoo.weights import download

    record = PUBLISHED[name]
    path = pathlib.Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: there is no such file; give a downloaded weight file")
    digest = download.sha256(path)
    original = folder(name) / _ORIGINAL
    expected = _expected(record)
    known = str(expected) or download.pinned(original)
    right = expected.fits(path, digest) and digest.startswith(download.pinned(original))
    result = _convert(name, record, path, digest, right)
    if right:
        download.pin(original, digest)
    elif known:
        _say(
            f"{path} is not the published file of {name}: its sha256 is {digest}; it is used as "
            f"{name} until {folder(name)} is deleted"
        )
    return result


def folder(name: str) -> pathlib.Path:
    """Where the files of published weights are kept."""
    return cache.folder("weights") / name


def _expected(record: Published) -> Any:
    from zoo.weights.download import Expected

    return Expected(record.sha256, record.git_blob)


def _cached(name: str, record: Published) -> tuple[dict[str, Any], WeightsSpec] | None:
    path = folder(name) / _CONVERTED
    if not path.exists():
        return None
    try:
        variables, metadata = load.read(path)
    except WeightsError as error:  # made again
        _say(str(error))
        return None
    if metadata.get("conversion") != _conversion(record):
        return None
    return variables, _spec(record, metadata["sha256"], metadata["published"])


def _convert(
    name: str, record: Published, path: pathlib.Path, digest: str, right: bool
) -> tuple[dict[str, Any], WeightsSpec]:
    from zoo.weights import convert, state_files, tf_checkpoint

    table = _table(record, tf_checkpoint.is_checkpoint(path))
    state = state_files.read(path, own_names=table.own_names)
    variables = convert.to_variables(table, state, _shapes(record), str(path))
    place = folder(name)
    metadata = {"sha256": digest, "published": right, "conversion": _conversion(record)}
    try:
        place.mkdir(parents=True, exist_ok=True)
        load.save(place / _CONVERTED, variables, {"weights": name, **metadata})
    except OSError as error:
        raise WeightsError(
            f"{place}: the converted weights cannot be kept ({error.strerror}); make room or set "
            "ZOO_CACHE to another folder"
        ) from error
    return variables, _spec(record, digest, right)


def _spec(record: Published, digest: str, right: bool) -> WeightsSpec:
    spec = dataclasses.replace(record.spec(), sha256=digest)
    return spec if right else dataclasses.replace(spec, results={}, views="", data="unknown")


def _table(record: Published, tensorflow: bool) -> Any:
    family = registry.MODELS[record.model]()
    table = family.tf_table if tensorflow else family.table
    if table is None:
        of = "TensorFlow's weights of" if tensorflow else "published weights of"
        raise WeightsError(f"there is no name table for {of} {record.model}, so none fit it")
    return table(_config(record))


def _config(record: Published) -> Any:
    preset = registry.MODELS[record.model]().presets[record.model]
    return dataclasses.replace(preset, **record.overrides)


def _shapes(record: Published) -> Any:
    from zoo import cost

    spec = record.spec()
    model = registry.create_model(record.model, num_classes=len(spec.classes), **record.overrides)
    return cost.variable_shapes(model, (spec.frames, spec.size, spec.size, spec.channels))


def _conversion(record: Published) -> str:
    """What the converted file depends on beside the original."""
    table = _table(record, False)
    derived = [rule.source for rule in table.derived]
    parts = [table.rules, table.aliases, derived, _config(record)]
    if registry.MODELS[record.model]().tf_table is not None:
        other = _table(record, True)
        parts += [other.rules, other.aliases, other.filled, other.ignored]
    return hashlib.sha256(repr(tuple(parts)).encode()).hexdigest()


def _say(line: str) -> None:
    print(line, file=sys.stderr)
