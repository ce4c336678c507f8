"""Flax blocks that more than one family uses, on the compiled operators of `kernels`.

Which implementation an operator runs is chosen by `kernels` (environment variable ZOO_KERNELS),
never here.
"""

import contextlib
import contextvars
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

import kernels

ACTIVATIONS = {"relu": nn.relu, "sigmoid": nn.sigmoid}


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Over what a training step takes batch statistics.

    axis_name: of the mapped axis whose members share them, such as the devices of a `pmap`.
    mask: [b] booleans, False for examples that do not count, such as padding.
    frozen: use the running statistics in training too, and leave them alone.
    """

    axis_name: str | None = None
    mask: jax.Array | None = None
    frozen: bool = False


_EVERYTHING = Statistics()
_STATISTICS = contextvars.ContextVar("batch statistics", default=_EVERYTHING)


@contextlib.contextmanager
def batch_statistics(
    axis_name: str | None = None, mask: jax.Array | None = None, frozen: bool = False
) -> Iterator[None]:
    """While it lasts, `BatchNorm` takes its statistics as `Statistics` says.

    A setting of the step and not of the model: it would have to be handed through every block.
    """
    token = _STATISTICS.set(Statistics(axis_name, mask, frozen))
    try:
        yield
    finally:
        _STATISTICS.reset(token)


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the channels.

    Parameters scale and bias, batch statistics mean and var, all float32 [c]. The statistics of a
    batch come from one pass (`kernels.channel_sums`), in float32. In training they are those of
    the batch, or as `batch_statistics` says; else the running ones, to which each training step
    moves by 1 - momentum (PyTorch's momentum is that difference). The running variance is that of
    the batch, not PyTorch's unbiased estimate. Computes in float32 and returns `dtype`.
    """

    epsilon: float = 1e-5
    momentum: float = 0.9
    dtype: jnp.dtype = jnp.float32
    scale_init: Callable = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Float[Array, "b *rest c"], train: bool) -> Float[Array, "b *rest c"]:
        """x normalised. x may hold several entries an example, example by example."""
        shape = (x.shape[-1],)
        scale = self.param("scale", self.scale_init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        mean, var = running_mean.value, running_var.value
        if train and not _STATISTICS.get().frozen:
            mean, var = _batch_moments(x, _STATISTICS.get())
            if not self.is_initializing():
                keep = self.momentum
                running_mean.value = keep * running_mean.value + (1 - keep) * mean
                running_var.value = keep * running_var.value + (1 - keep) * var
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        return (x.astype(jnp.float32) * factor + (bias - mean * factor)).astype(self.dtype)


def _batch_moments(x: Array, over: Statistics) -> tuple[Array, Array]:
    """The mean and the variance of each channel."""
    count = jnp.float32(math.prod(x.shape[:-1]))
    if over.mask is not None:
        mask = jnp.repeat(over.mask, x.shape[0] // over.mask.shape[0])  # entries of an example
        count = mask.sum() * jnp.float32(math.prod(x.shape[1:-1]))
        x = jnp.where(mask.reshape(-1, *(1,) * (x.ndim - 1)), x, jnp.zeros((), x.dtype))
    sums = (*kernels.channel_sums(x), count)
    if over.axis_name is not None:
        sums = jax.lax.psum(sums, over.axis_name)
    total, squares, count = sums
    mean = total / jnp.maximum(count, 1)
    return mean, jnp.maximum(squares / jnp.maximum(count, 1) - mean**2, 0)


class Conv(nn.Module):
    """A convolution over the last `len(window)` axes before the channels, and its bias.

    Parameters: kernel [*window, c / groups, features] and bias [features], float32, Glorot
    uniform and zeros (the defaults of Keras). Computes in `dtype` and returns it.
    """

    features: int
    window: tuple[int, ...]
    stride: int | tuple[int, ...] = 1
    padding: str | Sequence[tuple[int, int]] = "VALID"
    dilation: int | tuple[int, ...] = 1
    groups: int = 1
    use_bias: bool = True
    dtype: jnp.dtype = jnp.float32
    kernel_init: Callable = nn.initializers.glorot_uniform()

    @nn.compact
    def __call__(self, x: Float[Array, "n *spatial c"]) -> Float[Array, "n *out features"]:
        """The convolution of x, whose axes are batch, space (2 or 3) and channels."""
        shape = (*self.window, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        y = kernels.conv(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype)
        return y


class ConvPool(nn.Module):
    """A convolution, its bias, an activation, and a max-pool without overlap; nothing is padded.

    Parameters as of `Conv`. Computes in `dtype` and returns it.
    """

    features: int
    window: tuple[int, ...]
    pool: tuple[int, ...]
    activation: Literal["relu", "sigmoid"] = "relu"
    dtype: jnp.dtype = jnp.float32
    kernel_init: Callable = nn.initializers.glorot_uniform()

    @nn.compact
    def __call__(self, x: Float[Array, "n *spatial c"]) -> Float[Array, "n *out features"]:
        """The block's result for x, whose axes are batch, space (2 or 3) and channels."""
        shape = (*self.window, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        bias = bias.astype(self.dtype)
        x = x.astype(self.dtype)
        if self.activation == "relu":
            return kernels.conv_bias_relu_pool(x, kernel, bias, self.pool)
        # An activation that never decreases may come after the pool: the same values and
        # gradients from a quarter of the evaluations.
        pooled = kernels.max_pool(kernels.conv(x, kernel), self.pool)
        return ACTIVATIONS[self.activation](pooled + bias)


def temporal_shift(
    x: Float[Array, "b t *rest c"], fraction: float = 1 / 8, difference: bool = False
) -> Float[Array, "b t *rest c"]:
    """Moves a share of the channels one frame back and an equal share one frame on.

    The first `fraction` of the channels (one at least) come from the next frame, the second from
    the frame before, the rest stay; zeros come in at the ends. No parameters, yet what follows
    sees three frames. From Lin, Gan and Han 2019, "TSM: Temporal Shift Module for Efficient Video
    Understanding" (github.com/mit-han-lab/temporal-shift-module).

    With `difference` the frame's own value is subtracted from what came, so that these channels
    are 0 wherever nothing changes (the motion features of Jiang et al. 2019, "STM: SpatioTemporal
    and Motion Encoding for Action Recognition", without their convolutions).
    """
    fold = max(1, int(x.shape[-1] * fraction)) if fraction else 0
    first, last = x[:, :1], x[:, -1:]
    if not difference:
        first, last = jnp.zeros_like(first), jnp.zeros_like(last)
    future = jnp.concatenate([x[:, 1:], last], axis=1)
    past = jnp.concatenate([first, x[:, :-1]], axis=1)
    if difference:
        future, past = future - x, past - x
    # Choosing by channel is one pass over x. Joining slices of channels reads less and yet takes
    # three times as long on a CPU, which then copies a few numbers at a time.
    channel = jnp.arange(x.shape[-1])
    return jnp.where(channel < fold, future, jnp.where(channel < 2 * fold, past, x))
