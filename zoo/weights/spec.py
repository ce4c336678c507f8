"""The record of one weight file: what made it, what it needs and what it is worth."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class WeightsSpec:
    """Everything that is known about a weight file, as plain values.

    `zoo.registry.WEIGHTS` holds one for each file, and the file itself holds it too.
    """

    model: str
    """Name of the model, one of `zoo.list_models()`."""
    classes: tuple[str, ...]
    """What each logit stands for."""
    frames: int
    """Frames of a clip."""
    size: int
    """Height and width of the crop that the model sees."""
    decode_size: int
    """Height and width that frames are scaled to before that crop is taken."""
    mean: tuple[float, ...]
    """Subtracted from pixels in [0, 1]."""
    std: tuple[float, ...]
    """Divides what is left."""
    licence: str
    """SPDX identifier."""
    data: str
    """What it was trained on."""
    command: str
    """What trained it."""
    results: Mapping[str, float]
    """What was measured, by the names of metrics.json."""
    channels: int = 3
    """Channels of a frame: 3 is RGB."""
    sampling: str = "uniform"
    """How the frames were chosen: "uniform" (over the whole clip) or "dense" (`stride` apart)."""
    stride: int = 1
    """Distance of dense frames."""
    fit: str = "stretch"
    """How a frame of another shape becomes square, as in `zoo.video.decode`."""
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Fields of the model's config that differ from its preset."""
    sha256: str = ""
    """Digest of the file, 64 hexadecimal digits; empty in the copy inside the file."""

    def to_json(self) -> str:
        """The record without the digest, as it stands in the file."""
        values = dataclasses.asdict(self)
        del values["sha256"]
        return json.dumps(values, sort_keys=True)


def card(name: str, spec: WeightsSpec, parameters: int, file_bytes: int) -> str:
    """The model card of a weight file, in Markdown."""
    # Sorted, so that the card does not depend on the order in which a record was written down.
    results = "\n".join(f"| {key} | {value:.4f} |" for key, value in sorted(spec.results.items()))
    overrides = ", ".join(f"{key}={value!r}" for key, value in spec.overrides.items())
    dense = f", {spec.stride} apart" if spec.sampling == "dense" else ""
    return f"""# {name}

`zoo.load_pretrained("{name}")`

| | |
|---|---|
| model | `{spec.model}`{f" with {overrides}" if overrides else ""}, {parameters:,} parameters |
| file | `{name}.safetensors`, {file_bytes:,} bytes, float32 |
| sha256 | `{spec.sha256}` |
| licence | {spec.licence} |
| data | {spec.data} |
| command | `{spec.command}` |
| input | {spec.frames} frames ({spec.sampling}{dense}), {spec.channels} channels |
| frames | scaled to {_square(spec.decode_size)} ({spec.fit}), center crop {_square(spec.size)} |
| normalisation | pixels in [0, 1], mean {_numbers(spec.mean)}, std {_numbers(spec.std)} |
| classes | {", ".join(spec.classes)} |

| measured | value |
|---|---|
{results}
"""


def _square(side: int) -> str:
    return f"{side}x{side}"


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)
