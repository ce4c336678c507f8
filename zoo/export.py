"""Models with weights as files for others: a StableHLO program, or the publisher's state dict.

The program takes uint8 frames and gives logits: scaling, crop, normalisation and the weights are
in it. It is made of the operators' XLA definitions, so that it runs wherever XLA does, and jax
guarantees for half a year that later versions load it (docs.jax.dev, "Export and serialization").
"""

import dataclasses
import hashlib
import importlib.util
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.export  # not part of `import jax`
import jax.numpy as jnp
import numpy as np

from zoo import cost, registry
from zoo.video import geometry, transform
from zoo.weights import convert, load
from zoo.weights.errors import WeightsError
from zoo.weights.pretrained import Pretrained
from zoo.weights.spec import WeightsSpec

VERSION = 1
PLATFORMS = ("cpu", "cuda", "tpu")
TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Program:
    """An exported program. call: uint8 frames [b t h w 3] to float32 logits [b n].

    record: what stands beside the program: "input", and under "spec" the record of the weights
    with their classes, licence and the choice of frames.
    """

    exported: jax.export.Exported
    record: dict[str, Any]

    def call(self, frames: Any) -> Any:
        """Logits of frames."""
        return self.exported.call(frames)


def stablehlo(
    path: str | os.PathLike,
    name: str,
    pretrained: Pretrained,
    *,
    frame: tuple[int, int] | None = None,
    batch: int | None = 1,
    platforms: Sequence[str] = PLATFORMS,
) -> Program:
    """Writes the program to `path` and its record to `path`.json, loads both again and compares.

    Args:
      path: file to write; what `jax.export.deserialize` takes.
      name: of the weights.
      pretrained: the model with its weights.
      frame: height and width of the frames that the program takes; by default what the record
        says that they are scaled to.
      batch: clips of a call; None for any number.
      platforms: on which it will run.

    Raises:
      ValueError: the frames are smaller than the crop, or of another size than the one that
        frames are stretched to.
      WeightsError: what was loaded again does not compute the same.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise WeightsError("a program is written with flatbuffers: pip install flatbuffers")
    path, spec = pathlib.Path(path), pretrained.spec
    height, width = frame = frame or default_frame(spec)
    if min(frame) < spec.size:
        raise ValueError(
            f"frames of {height}x{width} are smaller than the crop of {spec.size}x{spec.size}; "
            "give larger ones"
        )
    if spec.fit != "short_side" and frame != default_frame(spec):
        wanted = "x".join(map(str, default_frame(spec)))
        raise ValueError(
            f"frames of {height}x{width} are not those that {name} was trained with; scale "
            f"them to {wanted} before the program gets them"
        )

    def logits(frames: jax.Array) -> Any:
        clips = jax.vmap(lambda clip: prepare(clip, spec))(frames)
        return pretrained.model.apply(pretrained.variables, clips)

    count = "b" if batch is None else str(batch)
    shape = jax.export.symbolic_shape(f"{count}, {spec.frames}, {height}, {width}, 3")
    argument = jax.ShapeDtypeStruct(shape, jnp.uint8)
    with cost.xla_definitions():
        exported = jax.export.export(jax.jit(logits), platforms=platforms)(argument)
    content = exported.serialize()
    record = {
        "version": VERSION,
        "weights": name,
        "input": {"dtype": "uint8", "shape": [batch, spec.frames, height, width, 3]},
        "platforms": list(platforms),
        "jax": jax.__version__,
        "calling_convention": exported.calling_convention_version,
        "sha256": hashlib.sha256(content).hexdigest(),
        "spec": json.loads(spec.to_json()),
    }
    path.write_bytes(content)
    _record_path(path).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    program = read(path)
    _compare(path, program, logits, (batch or 2, spec.frames, height, width, 3))
    return program


def read(path: str | os.PathLike) -> Program:
    """A program that `stablehlo` wrote.

    Raises:
      WeightsError: it is absent, damaged, or of a version that this one does not know.
    """
    path = pathlib.Path(path)
    try:
        content = path.read_bytes()
        record = json.loads(_record_path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: the program or its record cannot be read: {error}") from error
    if not isinstance(record, dict) or record.get("version") != VERSION:
        raise WeightsError(f"{path}: not a program of version {VERSION}; export it again")
    if hashlib.sha256(content).hexdigest() != record.get("sha256"):
        raise WeightsError(f"{path}: is not the program of its record; export it again")
    return Program(jax.export.deserialize(bytearray(content)), record)


def prepare(clip: jax.Array, spec: WeightsSpec) -> jax.Array:
    """Frames [t h w c] in 0..255 as the record's model takes them: scaled, cropped, normalised."""
    if spec.fit == "short_side":
        assert isinstance(spec.decode_size, int)
        clip = geometry.resize_short_side(clip, spec.decode_size)
    clip = geometry.center_crop(clip, (spec.size, spec.size))
    return transform.normalize(clip, spec.mean, spec.std)


def default_frame(spec: WeightsSpec) -> tuple[int, int]:
    """Height and width of frames as the record says that they are scaled."""
    size = spec.decode_size
    return (size, size) if isinstance(size, int) else size


def torch_named(path: str | os.PathLike, pretrained: Pretrained) -> int:
    """Writes the weights under the publisher's names and in its layouts, as safetensors.

    `model.load_state_dict(safetensors.torch.load_file(path))` takes it.

    Returns:
      The number of entries.

    Raises:
      WeightsError: the model's publisher has no names for it.
    """
    import safetensors.numpy

    model = pretrained.spec.model
    family = registry.MODELS[model]()
    if family.table is None:
        raise WeightsError(f"{model} is of this project, so there are no torch names for it")
    state = convert.to_state_dict(family.table(pretrained.model.config), pretrained.variables)
    pathlib.Path(path).write_bytes(safetensors.numpy.save(state))
    return len(state)


def safetensors(path: str | os.PathLike, pretrained: Pretrained) -> int:
    """Writes the variables under their own names, as `zoo.read_weights` reads them.

    Returns the number of bytes.
    """
    load.save(path, pretrained.variables, json.loads(pretrained.spec.to_json()))
    return pathlib.Path(path).stat().st_size


def _record_path(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f"{path.name}.json")


def _compare(path: pathlib.Path, program: Program, logits: Any, shape: tuple[int, ...]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    expected = np.asarray(jax.jit(logits)(frames))
    found = np.asarray(program.call(frames))
    error = np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-30)
    if not error <= TOLERANCE:
        raise WeightsError(
            f"{path}: loaded again it differs from the model by {error:.2g} (relative), more than "
            f"{TOLERANCE:g}; do not use it"
        )
