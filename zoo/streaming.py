"""Frame by frame: one interface for models that see a video as it comes.

    state = model.init_state(batch, height, width)
    logits, state = model.step(variables, frame, state)

`frame` is [b h w c]; the state is a pytree of arrays whose sizes do not depend on the number of
frames, and `step` is a pure function: it may be jitted, scanned, and vmapped over cameras.

Models whose operators over time look back alone have these two methods themselves: the stream
MoViNets and the CNN with a causal shift. After every step their logits are those of a call on the
clip of all frames so far. Any other model streams through `SlidingWindow`, and its logits are those
of a call on the clip of the last frames.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

# A pytree of arrays.
State = Any
# Frames counted; the mean of a longer stream goes on as an exponential average.
MOST_FRAMES = 2**30


class Streaming(Protocol):
    """What runs frame by frame."""

    def init_state(self, batch: int, height: int, width: int) -> State: ...

    def step(
        self, variables: Mapping[str, Any], frames: Array, state: State
    ) -> tuple[Array, State]: ...


@dataclasses.dataclass(frozen=True)
class SlidingWindow:
    """Runs a clip model on the last `frames` of every `stride`-th frame.

    A step on which a frame is taken (the first one, and every `stride`-th after it) runs the model
    on the clip that ends with it; the other steps return the same logits again and cost nothing,
    unless vmapped. Until there are enough frames the first one stands for those before it. A
    window whose model is a stream network works, and wastes what `step` of the model saves.

    Attributes:
      model: of `zoo.create_model`.
      frames: of the clips that the model gets.
      stride: frames of the video from one frame of the clip to the next, as it was trained with.
      channels: of a frame.
    """

    model: nn.Module
    frames: int
    stride: int = 1
    channels: int = 3

    def __post_init__(self) -> None:
        for field in ("frames", "stride", "channels"):
            if getattr(self, field) < 1:
                raise ValueError(
                    f"SlidingWindow.{field} is {getattr(self, field)}; it must be at least 1"
                )

    def init_state(self, batch: int, height: int, width: int) -> State:
        """The state before the first frame of `batch` streams of height x width.

        Raises ValueError, as the model does, for clips that are too short or too small for it.
        """
        clips = jnp.zeros((batch, self.frames, height, width, self.channels), jnp.float32)
        logits = jax.eval_shape(lambda: self.model.init_with_output(jax.random.key(0), clips)[0])
        return {
            "empty": jnp.ones((), jnp.bool_),
            "skip": jnp.zeros((), jnp.int32),  # frames before the next one that is taken
            "clips": clips,
            "logits": jnp.zeros(logits.shape, logits.dtype),
        }

    def step(
        self, variables: Mapping[str, Any], frames: Float[Array, "b h w c"], state: State
    ) -> tuple[Array, State]:
        """The logits of the last window, and the state after the next frame.

        Raises ValueError for a frame that does not fit the state.
        """
        clips = state["clips"]
        if frames.shape != clips[:, 0].shape:
            raise ValueError(
                f"a frame has shape {frames.shape} and the state is for {clips[:, 0].shape}; "
                "give one frame [b h w c] a step, and begin with init_state for its size"
            )

        def take() -> State:
            frame = frames[:, None].astype(clips.dtype)
            before = jnp.where(state["empty"], frame, clips[:, 1:])
            window = jnp.concatenate([before, frame], axis=1)
            return {
                "empty": jnp.zeros((), jnp.bool_),
                "skip": jnp.full((), self.stride - 1, jnp.int32),
                "clips": window,
                "logits": self.model.apply(variables, window),
            }

        if self.stride == 1:
            state = take()
        else:
            waiting = {**state, "skip": state["skip"] - 1}
            state = lax.cond(state["skip"] == 0, take, lambda: waiting)
        return state["logits"], state


def scan(
    model: Streaming, variables: Mapping[str, Any], clips: Float[Array, "b t h w c"], state: State
) -> tuple[Array, State]:
    """`model.step` over the frames of clips: the logits after each, [b t n], and the last state."""

    def step(state: State, frame: Array) -> tuple[State, Array]:
        logits, state = model.step(variables, frame, state)
        return state, logits

    state, logits = lax.scan(step, state, jnp.moveaxis(clips, 1, 0))
    return jnp.moveaxis(logits, 0, 1), state


def running_mean(
    x: Float[Array, "b t c"], past: Float[Array, "b c"] | None, seen: Int[Array, "b"] | None
) -> Float[Array, "b t c"]:
    """The mean of each frame and all before it, where `past` is the mean of `seen` frames before.

    Kept as a mean, for in a sum of float32 that goes on for days a frame would no longer count.
    """
    frames = jnp.arange(1, x.shape[1] + 1, dtype=jnp.float32)[:, None]
    if past is None or seen is None:
        return jnp.cumsum(x, axis=1) / frames
    total = seen.astype(jnp.float32)[:, None, None] + frames
    return past[:, None] + jnp.cumsum(x - past[:, None], axis=1) / total


def count(seen: Int[Array, "b"], frames: int) -> Int[Array, "b"]:
    """How many frames were seen after `frames` more, at most `MOST_FRAMES`."""
    return jnp.minimum(seen + frames, MOST_FRAMES)


def as_clips(frames: Array) -> Float[Array, "b t h w c"]:
    """One frame [b h w c] as clips of one frame; clips as they are."""
    return frames[:, None] if frames.ndim == 4 else frames


def check_state(clips: Float[Array, "b t h w c"], state: State, fitting: State) -> None:
    """Raises ValueError where a state has not the arrays of `fitting`, the one for these clips."""
    if jax.tree.structure(state) == jax.tree.structure(fitting) and all(
        jnp.shape(a) == b.shape
        for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(fitting), strict=True)
    ):
        return
    b, _, h, w, _ = clips.shape
    raise ValueError(
        f"the state is not one for {b} streams of {h}x{w} frames of this model; begin with "
        f"model.init_state({b}, {h}, {w})"
    )
