"""What is seen right now: a video that comes through a pipe, frame by frame, in constant memory."""

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from zoo.tasks.classify import Guess
from zoo.tasks.model import spatial_crops, view
from zoo.video.ffmpeg import Pipe
from zoo.video.stream import VideoStream, View
from zoo.weights.pretrained import Pretrained

# Frames that may wait for the model: of a source that waits too, and of one that does not.
_WAITING, _WAITING_DROP = 8, 1
# Latencies are counted in classes this many times as long as the one before.
_GROWTH = 1.02
_SHORTEST = 1e-4


@dataclasses.dataclass(frozen=True)
class Moment:
    """What is seen after a frame.

    Attributes:
      number: of the frame among those that came, dropped ones included; the first is 0.
      time: seconds from the start of the video.
      latency: seconds from when the frame was decoded to when its classes were known.
      top: the most probable classes, the best first.
    """

    number: int
    time: float
    latency: float
    top: tuple[Guess, ...]


class Latencies:
    """Quantiles of any number of latencies, within 2 %, in constant memory."""

    def __init__(self) -> None:
        self.count = 0
        self._counts = np.zeros(1000, np.int64)

    def add(self, seconds: float) -> None:
        """Counts one."""
        self.count += 1
        place = math.log(max(seconds, _SHORTEST) / _SHORTEST) / math.log(_GROWTH)
        self._counts[min(int(place), len(self._counts) - 1)] += 1

    def quantile(self, share: float) -> float:
        """The latency, in seconds, that this share of all does not exceed; 0 of none."""
        if self.count == 0:
            return 0.0
        place = int(np.searchsorted(np.cumsum(self._counts), share * self.count))
        return _SHORTEST * _GROWTH ** (place + 1)


class LiveClassifier:
    """A model as it sees one stream.

    Models that stream (`zoo.streaming`) go on from frame to frame; any other sees the last frames
    again with each new one, which costs as much as a clip each time.
    """

    def __init__(
        self,
        pretrained: Pretrained,
        *,
        fps: float | None = None,
        seconds: float = 2.0,
        restart: float | None = None,
        top: int = 5,
    ) -> None:
        """Prepares a model.

        Args:
          pretrained: a model with its weights and record.
          fps: frames a second that it sees; 0 for all; None for those that it was trained on.
          seconds: length of a clip of a model that was trained on frames spread over a clip.
          restart: seconds after which a model that streams forgets all frames; None for never.
            Its classes are those of all frames since, so that it gets slower to change its mind.
          top: classes that are named.

        Raises:
          ValueError: `fps` is needed, or cannot be used.
        """
        from zoo import streaming

        spec = pretrained.spec
        if top < 1:
            raise ValueError(f"top is {top}; name at least 1 class")
        if fps is not None and not 0 <= fps < float("inf"):
            raise ValueError(f"fps is {fps}; give frames per second, or 0 for all")
        shown = view(spec, 1)
        if fps is not None:
            rate = Fraction(fps).limit_denominator(1001) if fps else None
            shown = dataclasses.replace(shown, fps=rate)
        self.view = shown
        self._pretrained, self._size = pretrained, spec.size
        self.classes, self.top = spec.classes, min(top, len(spec.classes))
        if restart is not None and not restart > 0:
            raise ValueError(f"restart is {restart}; give seconds greater than 0, or None")
        model: Any = pretrained.model
        state: Any = None
        if hasattr(model, "init_state"):
            # A network that needs later frames says so, and gets the last frames again and again.
            with contextlib.suppress(ValueError):
                state = model.init_state(1, spec.size, spec.size)
        self._restart = restart
        if state is None:
            self._restart = None  # It has forgotten what is older than its clip.
            model = streaming.SlidingWindow(
                model, spec.frames, _stride(pretrained, shown, seconds), spec.channels
            )
            state = model.init_state(1, spec.size, spec.size)
        self._model, self._fresh, self._state = model, state, state
        self._since = 0.0

    @property
    def state_bytes(self) -> int:
        """Of what is kept from frame to frame."""
        import jax

        return sum(leaf.nbytes for leaf in jax.tree.leaves(self._state))

    def warm_up(self) -> None:
        """Compiles, so that the first frame has not to wait for it."""
        spec = self._pretrained.spec
        frame = np.zeros((1, spec.size, spec.size, spec.channels), np.uint8)
        self._step(self._variables, frame, self._fresh)[0].block_until_ready()

    def __call__(self, frame: np.ndarray, at: float) -> tuple[Guess, ...]:
        """The best classes after one more frame, uint8 [h w c] as `view` shows it at that time."""
        if self._restart is not None and at - self._since >= self._restart:
            self._state, self._since = self._fresh, at
        (crop,) = spatial_crops(frame[None], self._size, 1)
        values, self._state = self._step(self._variables, crop, self._state)
        probabilities = np.asarray(values)[0]
        order = np.argsort(-probabilities, kind="stable")[: self.top]
        return tuple(Guess(self.classes[k], float(probabilities[k])) for k in order)

    @functools.cached_property
    def _variables(self) -> Any:
        import jax

        return jax.device_put(self._pretrained.variables)

    @functools.cached_property
    def _step(self) -> Any:
        import jax

        from zoo.video.transform import normalize

        spec, model = self._pretrained.spec, self._model

        def step(variables: Any, frame: Any, state: Any) -> tuple[Any, Any]:
            pixels = normalize(frame, spec.mean, spec.std)
            logits, state = model.step(variables, pixels, state)
            return jax.nn.softmax(logits, axis=-1), state

        return jax.jit(step)


def _stride(pretrained: Pretrained, shown: View, seconds: float) -> int:
    """Frames from one frame of a clip to the next."""
    spec = pretrained.spec
    if spec.sampling == "dense":
        return spec.stride
    if shown.fps is None:
        raise ValueError(
            f"{spec.model} was trained on frames spread over a clip; say with fps how many frames "
            "a second it is to see"
        )
    return max(1, round(seconds * float(shown.fps) / spec.frames))


class Live:
    """Classes after each frame of a pipe, by iterating over it; a context manager.

    Attributes:
      latencies: of the frames so far.
    """

    def __init__(self, pipe: Pipe, classifier: LiveClassifier, *, drop: bool = False) -> None:
        """Begins to read.

        Args:
          pipe: with the bytes of a video of any container that can be read without seeking.
          classifier: whose model has to be compiled, or the first frames wait for that.
          drop: drop frames that come while the model is busy (a camera does not wait), instead of
            making the source wait.
        """
        self._classifier = classifier
        side = classifier.view.size
        h, w = side if isinstance(side, tuple) else (side or 0, side or 0)
        waiting = (_WAITING_DROP if drop else _WAITING) * h * w * 3
        self._stream = VideoStream(
            pipe, [classifier.view], name="standard input", ahead=waiting, drop=drop
        )
        self.latencies = Latencies()

    def __enter__(self) -> "Live":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    @property
    def dropped(self) -> int:
        """Frames that the model never saw."""
        return self._stream.dropped

    def __iter__(self) -> Iterator[Moment]:
        """Moments, as they come; raises what `VideoStream` raises."""
        for piece in self._stream:
            for k, (frame, at) in enumerate(zip(piece.frames, piece.times.tolist(), strict=True)):
                top = self._classifier(frame, at)
                latency = time.monotonic() - piece.arrived
                self.latencies.add(latency)
                yield Moment(piece.first + k, at, latency, top)
