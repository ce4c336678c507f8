"""Flax blocks that more than one family uses, on the compiled operators of `kernels`.

Which implementation an operator runs is chosen by `kernels` (environment variable ZOO_KERNELS),
never here.
"""

import contextlib
import contextvars
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

import kernels

ACTIVATIONS = {"relu": nn.relu, "sigmoid": nn.sigmoid}

# He, Zhang, Ren and Sun 2015, by the number of outputs: what residual networks start from.
HE_FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def check_clips(clips: Array, *, frames: int = 1, size: int = 1) -> None:
    """Raises ValueError for anything but float clips [b t h w c] of at least this many frames and
    pixels a side."""
    if clips.ndim != 5 or not jnp.issubdtype(clips.dtype, jnp.floating):
        raise ValueError(
            f"clips are {clips.dtype} of shape {clips.shape}; they must be normalised floats "
            "[b t h w c], as zoo.video.transform.prepare makes them"
        )
    _, t, h, w, _ = clips.shape
    if t < frames or min(h, w) < size:
        raise ValueError(
            f"clips of {t} frames of {h}x{w} are too small for this model; give at least {frames} "
            f"of {size}x{size}, or create it with its fields frames and size set to what you have"
        )


def check_rates(config: Any) -> None:
    """Raises ValueError where a config's dropout or drop_path is no rate."""
    for field in ("dropout", "drop_path"):
        rate = getattr(config, field, 0.0)
        if not 0 <= rate < 1:
            raise ValueError(
                f"{type(config).__name__}.{field} is {rate}; it must be from 0 to below 1"
            )


def drop_path(rate: float, train: bool) -> nn.Dropout:
    """Stochastic depth: drops the whole residual branch of an example, [b t h w c], in training.

    Huang et al. 2016, "Deep Networks with Stochastic Depth".
    """
    return nn.Dropout(rate, broadcast_dims=(1, 2, 3, 4), deterministic=not train)


def drop_path_rates(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """A rate for each block of each stage, from 0 at the first block to `rate` at the last."""
    last = max(1, sum(depths) - 1)
    blocks = itertools.count()
    return [[rate * next(blocks) / last for _ in range(depth)] for depth in depths]


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
        return kernels.channel_affine(x, factor, bias - mean * factor, dtype=self.dtype)


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


class ConvNorm(nn.Module):
    """A 3D convolution, batch normalisation, and a ReLU where wanted.

    padding: half the window where None. Submodules conv (no bias) and norm. Computes in `dtype`.
    """

    features: int
    window: tuple[int, int, int]
    stride: tuple[int, int, int] = (1, 1, 1)
    groups: int = 1
    relu: bool = True
    dtype: jnp.dtype = jnp.float32
    scale_init: Callable = nn.initializers.ones
    padding: str | None = None
    epsilon: float = 1e-5
    momentum: float = 0.9
    kernel_init: Callable = HE_FAN_OUT

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"], train: bool) -> Float[Array, "b u v x n"]:
        """The block's result; `train` as of `BatchNorm`."""
        x = Conv(
            self.features,
            self.window,
            self.stride,
            self.padding or [(size // 2, size // 2) for size in self.window],
            groups=self.groups,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            name="conv",
        )(x)
        x = BatchNorm(
            self.epsilon, self.momentum, self.dtype, scale_init=self.scale_init, name="norm"
        )(x, train)
        return nn.relu(x) if self.relu else x


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
    x: Float[Array, "b t *rest c"],
    fraction: float = 1 / 8,
    difference: bool = False,
    causal: bool = False,
    before: Float[Array, "b *rest c"] | None = None,
) -> Float[Array, "b t *rest c"]:
    """Moves a share of the channels one frame back and an equal share one frame on.

    The first `fraction` of the channels (one at least) come from the next frame, the second from
    the frame before, the rest stay; zeros come in at the ends. No parameters, yet what follows
    sees three frames. From Lin, Gan and Han 2019, "TSM: Temporal Shift Module for Efficient Video
    Understanding" (github.com/mit-han-lab/temporal-shift-module).

    With `difference` the frame's own value is subtracted from what came, so that these channels
    are 0 wherever nothing changes (the motion features of Jiang et al. 2019, "STM: SpatioTemporal
    and Motion Encoding for Action Recognition", without their convolutions).

    With `causal` the first share comes from the frame before and all else stays, which is that
    paper's shift for streams; `before` is then the frame before the first, where there is one.
    """
    fold = max(1, int(x.shape[-1] * fraction)) if fraction else 0
    first, last = x[:, :1], x[:, -1:]
    if not difference:
        first, last = jnp.zeros_like(first), jnp.zeros_like(last)
    if before is not None:
        first = before[:, None]
    future = jnp.concatenate([x[:, 1:], last], axis=1)
    past = jnp.concatenate([first, x[:, :-1]], axis=1)
    if difference:
        future, past = future - x, past - x
    # Choosing by channel is one pass over x. Joining slices of channels reads less and yet takes
    # three times as long on a CPU, which then copies a few numbers at a time.
    channel = jnp.arange(x.shape[-1])
    if causal:
        return jnp.where(channel < fold, past, x)
    return jnp.where(channel < fold, future, jnp.where(channel < 2 * fold, past, x))


def window_means(
    x: Float[Array, "b t h w c"], window: tuple[int, ...]
) -> Float[Array, "b u v x c"]:
    """The mean of each window, at every position where it fits, in float32.

    The head of many published networks: one position at the clip size of their training, several
    for larger clips, whose results are then averaged. The window must fit.
    """
    if x.shape[1:4] != window:
        return nn.avg_pool(x.astype(jnp.float32), window)
    means = kernels.spatial_sum(x) / math.prod(window)
    return means[:, None, None, None]


def classify(
    x: Float[Array, "b t h w c"], num_classes: int, dropout: float, train: bool
) -> Float[Array, "b n"]:
    """Dropout and the dense layer `head` at every position, averaged; features without classes.

    Called inside a compact `__call__`. As the layer is linear, it follows the average.
    """
    x = x.astype(jnp.float32)
    if num_classes == 0:
        return x.mean((1, 2, 3))
    x = nn.Dropout(dropout, deterministic=not train)(x).mean((1, 2, 3))
    return nn.Dense(num_classes, kernel_init=nn.initializers.normal(0.01), name="head")(x)
