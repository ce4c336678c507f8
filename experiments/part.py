"""A part of a batch: what a step has to know to compute as if it were given the whole."""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from zoo.video.mixing import Rows
from zoo.video.policy import is_off

Number = float | Array


class Part(NamedTuple):
    """Which part of a batch a step is given, on a device or in a search.

    count: clips in the whole batch, or more.
    first: position of the part's first clip in it.
    previous: gives for the part's clips [b ...] and targets [b k] those of the clip before the
        first, and previous_row that clip's position; before the first of all comes the last.
    axis_name: of the devices that hold the other parts, where they do.
    """

    count: int
    first: int | Int[Array, ""]
    previous: Callable[[Array, Array], tuple[Array, Array]]
    previous_row: int | Int[Array, ""]
    axis_name: str | None = None

    def rows(self, size: int) -> Rows:
        """The positions of the part's `size` clips in the whole batch."""
        return Rows(self.count, self.first + jnp.arange(size))

    def with_previous(self, clips: Array, targets: Array) -> tuple[Array, Array, Rows]:
        """Clips and targets with those of the clip before the first, and all their positions."""
        numbers = self.first + jnp.arange(len(clips))
        clip, target = self.previous(clips, targets)
        clips = jnp.concatenate([clip[None], clips])
        targets = jnp.concatenate([target[None], targets])
        first = jnp.asarray(self.previous_row, numbers.dtype)[None]
        return clips, targets, Rows(self.count, jnp.concatenate([first, numbers]))


def dropout_of(
    rate: Number, configured: float, part: Part | None, clips: Array
) -> contextlib.AbstractContextManager[Any]:
    """While it lasts, `nn.Dropout` modules of the rate `configured` drop `rate` of what they get.

    `rate` may be an array, which Flax does not take. Each of `clips` [b ...] loses what it would
    lose in the whole batch: arrays in a model hold as many entries for each, one after another. A
    module that draws numbers of its own does so anew on each device.
    """

    def intercept(
        following: Callable[..., Any],
        arguments: tuple[Any, ...],
        named: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        module = context.module
        if not isinstance(module, nn.Dropout) or context.method_name != "__call__":
            return following(*arguments, **named)
        x, deterministic, key = _dropout_arguments(*arguments, **named)
        if deterministic is None:
            deterministic = module.deterministic
        own = rate if module.rate == configured else module.rate
        if deterministic or is_off(own) or module.rate == 0:
            return x
        shape = [1 if axis in module.broadcast_dims else n for axis, n in enumerate(x.shape)]
        if key is None:
            key = module.make_rng(module.rng_collection)
        each = shape[0] // len(clips)  # entries of a clip
        if part is None or each == 0:
            kept = jax.random.bernoulli(key, 1 - own, shape)
        else:
            whole = jax.random.bernoulli(key, 1 - own, [each * part.count, *shape[1:]])
            kept = jax.lax.dynamic_slice_in_dim(whole, each * part.first, shape[0])
        return jnp.where(kept, x / (1 - own), jnp.zeros_like(x)).astype(x.dtype)

    return nn.intercept_methods(intercept)


def _dropout_arguments(
    inputs: Array, deterministic: bool | None = None, rng: Any = None
) -> tuple[Array, bool | None, Any]:
    """The arguments of `nn.Dropout.__call__`, however they are passed."""
    return inputs, deterministic, rng
