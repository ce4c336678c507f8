"""What is seen in a video: the most probable classes, of all of it and window by window."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo.tasks.engine import Part
from zoo.tasks.model import ClipModel
from zoo.tasks.windows import Window
from zoo.weights.pretrained import Pretrained


@dataclasses.dataclass(frozen=True)
class Guess:
    """A class and its probability in [0, 1]."""

    name: str
    probability: float


@dataclasses.dataclass(frozen=True)
class WindowClasses:
    """The most probable classes from `start` to `end`, in seconds, the best first."""

    start: float
    end: float
    top: tuple[Guess, ...]


@dataclasses.dataclass(frozen=True)
class Classes:
    """The most probable classes of a video: `top` of the mean over all windows and crops."""

    top: tuple[Guess, ...]
    windows: tuple[WindowClasses, ...]


class Classify(ClipModel):
    """The task: every window through a classifier, in one crop or three, probabilities averaged.

    `Classify(zoo.load_pretrained("x3d_s.k400"))` goes to `zoo.tasks.engine.run`.
    """

    name = "classify"

    def __init__(
        self,
        pretrained: Pretrained,
        *,
        top: int = 5,
        crops: int = 1,
        seconds: float = 2.0,
        every: float | None = None,
        batch: int = 8,
    ) -> None:
        """Prepares a model.

        Args:
          pretrained: a model with its weights and record.
          top: classes that are named.
          crops: places along a frame's longer side: 1 (the middle) or 3.
          seconds: length of a window of a model that was trained on frames spread over a clip;
            others say themselves how far apart their frames are.
          every: seconds from window to window; None for windows that touch.
          batch: windows of one call of the model.
        """
        if top < 1:
            raise ValueError(f"top is {top}; name at least 1 class")
        super().__init__(pretrained, crops=crops, seconds=seconds, every=every, batch=batch)
        self.classes = pretrained.spec.classes
        self.top = min(top, len(self.classes))

    def finish(self, outputs: Any) -> Any:
        """Probabilities [b n], averaged over the crops, from logits [b crops n]."""
        import jax

        return jax.nn.softmax(outputs, axis=-1).mean(axis=1)

    def compute(self, windows: Sequence[Window]) -> Sequence[np.ndarray]:
        """The probabilities [n] of each window."""
        return list(self.run([window.frames for window in windows]))

    def result(self, parts: Sequence[Part[np.ndarray]]) -> Classes:
        """Names the best classes."""
        mean = np.mean([part.value for part in parts], axis=0)
        windows = tuple(
            WindowClasses(part.start, part.end, self._best(part.value)) for part in parts
        )
        return Classes(self._best(mean), windows)

    def _best(self, probabilities: np.ndarray) -> tuple[Guess, ...]:
        # Of equal ones the first class comes first.
        order = np.argsort(-probabilities, kind="stable")[: self.top]
        return tuple(Guess(self.classes[k], float(probabilities[k])) for k in order)
