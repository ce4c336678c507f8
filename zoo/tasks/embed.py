"""Embeddings: what a model knows of a video, as vectors whose dot product is likeness."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo.tasks.engine import Part
from zoo.tasks.model import ClipModel
from zoo.tasks.windows import Window


@dataclasses.dataclass(frozen=True)
class Embedding:
    """Of a video.

    Attributes:
      vectors: float32 [windows d], each of length 1.
      times: float64 [windows 2], seconds from and to which each stands for.
    """

    vectors: np.ndarray
    times: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """One vector [d] of length 1 for the whole video."""
        return unit(self.vectors.mean(axis=0))


class Embed(ClipModel):
    """The task: every window through a model without its last layer, crops averaged.

    `Embed(zoo.load_pretrained("x3d_s.k400", num_classes=0))` goes to `zoo.tasks.engine.run`; the
    other arguments are those of `zoo.tasks.classify.Classify`.
    """

    name = "embed"

    def finish(self, outputs: Any) -> Any:
        """Vectors [b d] of length 1 from features [b crops d]."""
        import jax.numpy as jnp

        mean = outputs.mean(axis=1)
        # A model may answer with nothing but zeros; they stay zeros, like nothing.
        return mean / jnp.maximum(jnp.linalg.norm(mean, axis=-1, keepdims=True), 1e-12)

    def compute(self, windows: Sequence[Window]) -> Sequence[np.ndarray]:
        """The vector [d] of each window."""
        return list(self.run([window.frames for window in windows]))

    def result(self, parts: Sequence[Part[np.ndarray]]) -> Embedding:
        """Puts the vectors of a video together."""
        vectors = np.stack([part.value for part in parts]).astype(np.float32)
        return Embedding(vectors, np.array([(part.start, part.end) for part in parts], np.float64))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors [... d] scaled to length 1; zeros stay zeros."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.maximum(length, 1e-12)).astype(np.float32)
