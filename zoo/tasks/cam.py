"""Where a model looks: Grad-CAM (Selvaraju et al. 2017) over space and time, and a film of it."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from zoo.tasks import model as clip_model
from zoo.tasks.model import spatial_crops
from zoo.tasks.windows import Cut, Cutter, Window
from zoo.video.stream import VideoStream
from zoo.weights.pretrained import Pretrained

Interceptor = Callable[[Callable[..., Any], Any, Any, Any], Any]


@dataclasses.dataclass(frozen=True)
class Layer:
    """A part of a network whose output is a map of features, and the shape of that."""

    path: tuple[str, ...]
    shape: tuple[int, ...]


def last_map(model: Any, variables: Any, clips: Any) -> Layer:
    """The last part of a network that gives features [b t h w c] (or [b*t h w c]) of places.

    Of networks with several paths, it is in the one that is computed last.

    Args:
      model, variables: of a network.
      clips: floats [b t h w c], or their shape and dtype.

    Raises:
      ValueError: no part does; networks of tokens have no such map.
    """
    import flax.linen as nn
    import jax

    frames = clips.shape[0] * clips.shape[1]
    found: list[Layer] = []

    def watch(run: Callable[..., Any], arguments: Any, named: Any, context: Any) -> Any:
        result = run(*arguments, **named)
        if context.method_name == "__call__" and isinstance(result, jax.Array):
            shape = result.shape
            if len(shape) == 3 and shape[1] > clips.shape[1]:
                found.clear()  # Tokens: the map before them was not the network's last word.
            per_frame = len(shape) == 4 and frames % shape[0] == 0 and shape[0] > clips.shape[0]
            if (len(shape) == 5 or per_frame) and min(shape[-3:-1]) > 1:
                found.append(Layer(context.module.path, shape))
        return result

    def apply(variables: Any, clips: Any) -> Any:
        with nn.intercept_methods(watch):
            return model.apply(variables, clips)

    jax.eval_shape(apply, variables, clips)
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no map of features in space: Grad-CAM is for networks of "
            "convolutions"
        )
    return found[-1]


class GradCam:
    """Heat maps of a model."""

    def __init__(self, pretrained: Pretrained) -> None:
        """Finds the layer that is looked at.

        Raises ValueError where there is none, see `last_map`.
        """
        import jax
        import jax.numpy as jnp

        spec = pretrained.spec
        shape = (1, spec.frames, spec.size, spec.size, spec.channels)
        clips = jax.ShapeDtypeStruct(shape, jnp.float32)
        self.pretrained = pretrained
        self.layer = last_map(pretrained.model, pretrained.variables, clips)

    def __call__(self, clip: np.ndarray, number: int) -> np.ndarray:
        """How much each pixel speaks for a class: float32 [t h w] in [0, 1], the largest being 1.

        All 0 where nothing does.

        Args:
          clip: uint8 [t h w c], as the model sees it.
          number: of the class.
        """
        heat = np.asarray(self._program(self.pretrained.variables, clip, number))
        return heat / max(float(heat.max()), 1e-12)

    @functools.cached_property
    def _program(self) -> Any:
        import flax.linen as nn
        import jax
        import jax.numpy as jnp

        from zoo.video.transform import normalize

        model, spec, layer = self.pretrained.model, self.pretrained.spec, self.layer

        def program(variables: Any, clip: Any, number: Any) -> Any:
            pixels = normalize(clip[None], spec.mean, spec.std)

            def score(change: Any) -> tuple[Any, Any]:
                maps = []

                def watch(run: Callable[..., Any], given: Any, named: Any, context: Any) -> Any:
                    result = run(*given, **named)
                    here = context.module.path == layer.path
                    if here and context.method_name == "__call__":
                        maps.append(result)
                        result = result + change
                    return result

                with nn.intercept_methods(watch):
                    logits: Any = model.apply(variables, pixels)
                return logits[0, number], maps[-1]

            nothing = jnp.zeros(layer.shape, jnp.float32)
            slopes, found = jax.grad(score, has_aux=True)(nothing)
            places = (-1, *layer.shape[-3:])
            slopes, found = slopes.reshape(places), found.reshape(places)
            heat = jax.nn.relu((found * slopes.mean((0, 1, 2))).sum(-1))
            return jax.image.resize(heat.astype(jnp.float32), clip.shape[:3], "linear")

        return jax.jit(program)


def overlay(frames: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Frames with heat over them, uint8 [t h w 3]: from blue over green to red, where there is any.

    Args:
      frames: uint8 [t h w c], of 1 or 3 channels.
      heat: [t h w] in [0, 1].
    """
    grey = frames.astype(np.float32) @ np.full((frames.shape[-1], 1), 1 / frames.shape[-1])
    colour = np.clip(1.5 - np.abs(4 * heat[..., None] - np.array([3.0, 2.0, 1.0])), 0, 1)
    weight = 0.6 * np.minimum(2 * heat, 1)[..., None]
    return (grey * (1 - weight) + 255 * colour * weight).round().astype(np.uint8)


def write_film(
    cam: GradCam,
    video: str | os.PathLike,
    result: Mapping[str, Any],
    path: pathlib.Path,
    *,
    seconds: float = 2.0,
    every: float | None = None,
) -> None:
    """Writes the window in which the best class is surest, with what speaks for it, as MP4.

    The file is decoded again up to that window.

    Args:
      cam: of the model that classified.
      video: the file.
      result: plain values of `zoo.tasks.classify.Classes`.
      path: of the film.
      seconds, every: as they were given to `Classify`.

    Raises:
      VideoError: the file cannot be read any more, or the film not be written.
    """
    from zoo.video import encode

    spec = cam.pretrained.spec
    best = result["top"][0]["name"]
    windows = result["windows"]

    def sure(number: int) -> float:
        return max([g["probability"] for g in windows[number]["top"] if g["name"] == best] + [0.0])

    wanted = max(range(len(windows)), key=sure)
    cut = clip_model.cut(spec, seconds, every)
    window = _window(video, spec, cut, wanted)
    (crop,) = spatial_crops(window.frames, spec.size, 1)
    shown = overlay(crop, cam(crop, spec.classes.index(best)))
    lasts = max(window.end - window.start, 1e-3)
    rate = min(max(round(len(shown) / lasts), 1), 30)
    # Codecs want even sizes.
    h, w = (2 * (side // 2) for side in shown.shape[1:3])
    path.parent.mkdir(parents=True, exist_ok=True)
    encode(shown[:, :h, :w], path, fps=rate)


def _window(video: str | os.PathLike, spec: Any, cut: Cut, wanted: int) -> Window:
    """One window of a file by its number."""
    cutter, count = Cutter(cut), 0
    with VideoStream(video, [clip_model.view(spec, 1)]) as stream:
        for piece in stream:
            for window in cutter.take(piece.frames, piece.times):
                if count == wanted:
                    return window
                count += 1
    return next(iter(cutter.end()))
