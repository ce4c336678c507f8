"""Spatial and temporal information (ITU-T P.910): how much detail and how much change a video has.

Measured on brightness of the full range at the video's own size, which costs far more than shots.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from zoo.tasks.engine import Part
from zoo.tasks.windows import Cut, Window
from zoo.video.stream import View

# Parts of a video whose largest values are kept.
_PARTS = 240


@dataclasses.dataclass(frozen=True)
class Complexity:
    """Of a video.

    Attributes:
      si: spatial information, the largest over all frames of the deviation of the Sobel gradient.
      ti: temporal information, the largest over all frames of the deviation of the difference
        from the frame before; 0 of a video of one frame. A cut counts.
      si_mean, ti_mean: means instead of the largest.
      times: seconds at which parts of the video begin, at most 240 of as many frames each.
      si_over_time, ti_over_time: the largest values in each part.
    """

    si: float
    ti: float
    si_mean: float
    ti_mean: float
    times: tuple[float, ...] = ()
    si_over_time: tuple[float, ...] = ()
    ti_over_time: tuple[float, ...] = ()

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Complexity":
        """From the plain values that a JSON file of results holds under "complexity"."""
        rows = {key: tuple(value) for key, value in record.items() if isinstance(value, list)}
        return cls(**{**record, **rows})


class _Frames(NamedTuple):
    """Of a window: the number of its first frame, and times and values of each frame."""

    first: int
    times: np.ndarray
    si: np.ndarray
    ti: np.ndarray


class MeasureComplexity:
    """The task: `engine.run(paths, [MeasureComplexity()])`; a `Complexity` under "complexity"."""

    name = "complexity"
    batch = 1
    view = View(None, pixels="gray")
    cut = Cut(16, overlap=1)

    def compute(self, windows: Sequence[Window]) -> Sequence["_Frames"]:
        """Both values of each frame of each window; a window's first frame has no difference."""
        result = []
        for window in windows:
            if min(window.frames.shape[1:3]) < 3:
                h, w = window.frames.shape[1:3]
                raise ValueError(f"frames of {h}x{w} are too small for gradients of 3x3 pixels")
            si, ti = (np.asarray(part) for part in self._program(window.frames[..., 0]))
            count = len(window.times)  # The rest repeats the last frame.
            result.append(_Frames(window.first, window.times, si[:count], ti[:count]))
        return result

    def result(self, parts: Sequence[Part["_Frames"]]) -> Complexity:
        """The largest and the mean values, and how they go on."""
        values = [part.value for part in parts]
        si = np.zeros(max(value.first + len(value.si) for value in values))
        ti, times = np.zeros(len(si)), np.zeros(len(si))
        for value in values:
            times[value.first : value.first + len(value.si)] = value.times
            si[value.first : value.first + len(value.si)] = value.si
            ti[value.first + 1 : value.first + len(value.ti)] = value.ti[1:]
        changes = ti[1:] if len(ti) > 1 else ti
        starts = np.arange(0, len(si), -(-len(si) // _PARTS))
        return Complexity(
            float(si.max()), float(changes.max()), float(si.mean()), float(changes.mean()),
            tuple(times[starts].tolist()),
            tuple(np.maximum.reduceat(si, starts).tolist()),
            tuple(np.maximum.reduceat(ti, starts).tolist()),
        )  # fmt: skip

    @functools.cached_property
    def _program(self) -> Any:
        import jax
        import jax.numpy as jnp

        def program(frames: Any) -> tuple[Any, Any]:
            luma = frames.astype(jnp.float32)
            # The Sobel filter of both directions, as products of a smoothing and a difference;
            # the outermost pixels have no gradient.
            down = luma[:, 2:] - luma[:, :-2]
            down = down[:, :, 2:] + 2 * down[:, :, 1:-1] + down[:, :, :-2]
            right = luma[:, :, 2:] - luma[:, :, :-2]
            right = right[:, 2:] + 2 * right[:, 1:-1] + right[:, :-2]
            change = jnp.diff(luma, axis=0, prepend=luma[:1])
            return jnp.hypot(down, right).std((1, 2)), change.std((1, 2))

        return jax.jit(program)
