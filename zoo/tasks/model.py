"""A clip model as a task runs it: the crops it wants, one compiled program, full batches."""

import functools
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from zoo.tasks.windows import Cut
from zoo.video.stream import View
from zoo.weights.pretrained import Pretrained
from zoo.weights.spec import WeightsSpec


class ClipModel:
    """What tasks that run a clip model on windows share.

    Attributes:
      view, cut, batch: see `zoo.tasks.engine.Task`.
    """

    def __init__(
        self,
        pretrained: Pretrained,
        *,
        crops: int = 1,
        seconds: float = 2.0,
        every: float | None = None,
        batch: int = 8,
    ) -> None:
        """See `zoo.tasks.classify.Classify`."""
        if crops not in (1, 3):
            raise ValueError(f"crops is {crops}; use 1 (the middle) or 3 (along the longer side)")
        if batch < 1:
            raise ValueError(f"batch is {batch}; give at least 1 window")
        self.pretrained, self.crops, self.batch = pretrained, crops, batch
        self.view = view(pretrained.spec, crops)
        self.cut = cut(pretrained.spec, seconds, every)

    def finish(self, outputs: Any) -> Any:
        """What the device still does with the model's outputs [b crops n]: their mean [b n]."""
        return outputs.mean(axis=1)

    def run(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        """Outputs [b n] for at most `batch` uint8 clips [t h w c]."""
        size = self.pretrained.spec.size
        crops = np.stack([spatial_crops(clip, size, self.crops) for clip in clips])
        # One program for every call: the batch is always full.
        padded = np.zeros((self.batch, *crops.shape[1:]), np.uint8)
        padded[: len(crops)] = crops
        return np.asarray(self._program(self._variables, padded))[: len(crops)]

    @functools.cached_property
    def _variables(self) -> Any:
        import jax

        return jax.device_put(self.pretrained.variables)

    @functools.cached_property
    def _program(self) -> Any:
        import jax

        from zoo.video.transform import normalize

        model, spec = self.pretrained.model, self.pretrained.spec

        def program(variables: Any, clips: Any) -> Any:
            b, v = clips.shape[:2]
            pixels = normalize(clips.reshape(b * v, *clips.shape[2:]), spec.mean, spec.std)
            outputs: Any = model.apply(variables, pixels)
            return self.finish(outputs.reshape(b, v, -1))

        return jax.jit(program)


def view(spec: WeightsSpec, crops: int) -> View:
    """How the decoder has to show a video for weights."""
    pixels = "rgb" if spec.channels == 3 else "gray"
    fps = None if spec.fps is None else Fraction(spec.fps).limit_denominator(1001)
    side = spec.decode_size
    if spec.fit == "short_side" and isinstance(side, int):
        # The middle crop needs no more than the middle square of the frame.
        if crops == 1:
            return View((side, side), "crop", pixels, fps)
        return View(side, pixels=pixels, fps=fps)
    size = (side, side) if isinstance(side, int) else side
    for fit in ("stretch", "crop", "pad"):
        if spec.fit == fit:
            return View(size, fit, pixels, fps)
    raise ValueError(
        f"{spec.model}: its record scales frames by {spec.fit!r}; it must be one of "
        "stretch, crop, pad and short_side"
    )


def cut(spec: WeightsSpec, seconds: float, every: float | None) -> Cut:
    """Which frames of a video make a clip for weights."""
    if spec.sampling == "dense":
        return Cut(spec.frames, spec.stride, every=every)
    return Cut(spec.frames, seconds=seconds, every=every)


def spatial_crops(clip: np.ndarray, size: int, crops: int) -> np.ndarray:
    """Crops [v t size size c] of a clip [t h w c], one (the middle) or evenly spread.

    As `zoo.video.geometry.spatial_crops`, on the host, where a copy is all it takes.
    """
    _, h, w, _ = clip.shape
    slack = h - size, w - size
    if min(slack) < 0:
        raise ValueError(f"frames of {h}x{w} are smaller than the crop of {size}x{size}")
    corner = [slack[0] // 2, slack[1] // 2]
    longer = int(slack[1] >= slack[0])
    result = []
    for crop in range(crops):
        if crops > 1:
            corner[longer] = round(crop * slack[longer] / (crops - 1))
        top, left = corner
        result.append(clip[:, top : top + size, left : left + size])
    return np.stack(result)
