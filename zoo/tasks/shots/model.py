"""The shipped network for shot boundaries, as it is run on windows of frames."""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from zoo.tasks.shots.signals import HEIGHT, WIDTH

WEIGHTS = pathlib.Path(__file__).parent / "shots.safetensors"
SHA256 = "f6485b31d6801c3c0416394deedd7be25cde0c33c64be0276015cb1841adce2e"
# Of a window, and how much of its ends is seen better by its neighbours.
FRAMES = 256
MARGIN = 32


class Seen(NamedTuple):
    """What is known of the frames of a window; each array has one row a frame.

    Attributes:
      probabilities: float32 [t 2], see `boundaries.find`.
      colours: uint8 [t 36], mean colours of 3x4 blocks.
      sharpness: float32 [t], mean steepness of brightness, in [0, 1].
      luma: float32 [t], mean brightness in [0, 1].
      motion: float32 [t], mean difference of brightness from the frame before, each of 3x4 blocks
        after the best of 15 coarse shifts; in [0, 1].
    """

    probabilities: np.ndarray
    colours: np.ndarray
    sharpness: np.ndarray
    luma: np.ndarray
    motion: np.ndarray


class ShotModel:
    """The network with its weights."""

    def __init__(self, weights: pathlib.Path | None = None) -> None:
        """Loads the shipped weights, or a file that `python -m experiments.shots.train` wrote."""
        from zoo.weights import load

        path, digest = (WEIGHTS, SHA256) if weights is None else (weights, None)
        self._variables, self.record = load.read(path, digest)
        self.thresholds: dict[str, float] = self.record["thresholds"]

    def __call__(self, windows: Sequence[np.ndarray]) -> list[Seen]:
        """Looks at windows of FRAMES frames, uint8 [t 27 48 3], one after the other."""
        return [Seen(*(np.asarray(part) for part in self._program(self._variables, window)))
                for window in windows]  # fmt: skip

    @functools.cached_property
    def _program(self) -> Any:
        import jax
        import jax.numpy as jnp

        from zoo.tasks.shots import network, signals

        model = network.ShotNet(self.record["config"]["width"])

        def program(variables: Any, frames: Any) -> tuple[Any, ...]:
            found = signals.signals(frames)
            logits: Any = model.apply(variables, found[None])
            parts = frames.reshape(-1, 3, HEIGHT // 3, 4, WIDTH // 4, 3)
            colours = jnp.round(parts.astype(jnp.float32).mean((2, 4))).astype(jnp.uint8)
            motion = found[:, 9 * len(signals.LAGS)]
            luma, _, edges, _ = jnp.moveaxis(found[:, -4:], -1, 0)
            return (
                jax.nn.sigmoid(logits[0]),
                colours.reshape(len(frames), -1),
                edges,
                luma,
                motion,
            )

        return jax.jit(program)
