"""Flax blocks that more than one family uses, on the compiled operators of `kernels`.

Which implementation an operator runs is chosen by `kernels` (environment variable ZOO_KERNELS),
never here.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

import kernels

ACTIVATIONS = {"relu": nn.relu, "sigmoid": nn.sigmoid}


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
