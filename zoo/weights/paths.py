"""Variables as nested dicts, and as one dict of paths."""

from collections.abc import Mapping
from typing import Any


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict of paths such as "params/conv1/kernel"."""
    result = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            result |= flatten(value, f"{prefix}{key}/")
        else:
            result[f"{prefix}{key}"] = value
    return result


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, last = path.split("/")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return tree
