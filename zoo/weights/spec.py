"""The record of one weight file: what made it, what it needs and what it is worth."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class WeightsSpec:
    """Everything that is known about a weight file, as plain values.

    `zoo.registry.WEIGHTS` holds one for each file of this project, and the file itself holds it
    too; `zoo.weights.published` makes one for each file of others.
    """

    model: str
    """Name of the model, one of `zoo.list_models()`."""
    classes: tuple[str, ...]
    """What each logit stands for."""
    frames: int
    """Frames of a clip."""
    size: int
    """Height and width of the crop that the model sees."""
    decode_size: int | tuple[int, int]
    """What frames are scaled to before that crop is taken: height and width, or the one number
    that both are; with fit "short_side" the length of the shorter side."""
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
    """How a frame of another shape is scaled to `decode_size`, as in `zoo.video.decode`, or
    "short_side": it keeps its shape."""
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Fields of the model's config that differ from its preset."""
    sha256: str = ""
    """Digest of the file, 64 hexadecimal digits; empty in the copy inside the file."""
    fps: float | None = None
    """Frames per second that a video is brought to before frames are taken; None keeps its own."""
    views: str = ""
    """Which clips and crops of a video `results` are averaged over; empty for a single one."""
    url: str = ""
    """Where others published the file; empty for files of this project."""

    def to_json(self) -> str:
        """The record without the digest, as it stands in the file."""
        values = dataclasses.asdict(self)
        del values["sha256"]
        # Younger than the first files, which do not hold them.
        for field, default in (("fps", None), ("views", ""), ("url", "")):
            if values[field] == default:
                del values[field]
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
| frames | scaled to {scaling(spec)}, center crop {_square(spec.size)} |
| normalisation | pixels in [0, 1], mean {_numbers(spec.mean)}, std {_numbers(spec.std)} |
| classes | {", ".join(spec.classes)} |

| measured | value |
|---|---|
{results}
"""


def scaling(spec: WeightsSpec) -> str:
    """What frames are scaled to, in words; height before width."""
    if spec.fit == "short_side":
        return f"{spec.decode_size} on the shorter side"
    return f"{_square(spec.decode_size)} ({spec.fit})"


def _square(side: int | tuple[int, int]) -> str:
    height, width = (side, side) if isinstance(side, int) else side
    return f"{height}x{width}"


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)
