"""Depthwise convolution over time, height and width with what usually follows it.

    z = conv(x, w, groups=c); y = activation(z * scale + bias); sums = y summed over t, h, w

Scale and bias are those of a folded or frozen batch normalisation, the sums are what squeeze-excite
needs; written together they need no further pass over y where the platform can fuse them.
The convolution and its derivatives are those of `kernels.conv` with one group a channel.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp

from kernels.affine import channel_affine
from kernels.convolution import conv
from kernels.moments import spatial_sum
from kernels.windows import Padding

Activation = Literal["relu", "silu", "hard_swish"]
_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "hard_swish": jax.nn.hard_swish,
}


def depthwise_conv3d(
    x: jax.Array,
    w: jax.Array,
    *,
    scale: jax.Array | None = None,
    bias: jax.Array | None = None,
    activation: Activation | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
    implementation: str | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Returns (y, sums): y [n, *outputs, c] in the type of x, sums float32 [n, c].

    x: [n, t, h, w, c]. w: [kt, kh, kw, c]. scale, bias: [c] or None. The sums cost nothing where
    they are not used. stride, padding, dilation, implementation: as for `kernels.conv`.
    Raises ValueError where shapes do not fit together or the activation is unknown.
    """
    if x.ndim != 5 or w.ndim != 4 or w.shape[-1] != x.shape[-1]:
        raise ValueError(
            f"x has shape {x.shape} and w {w.shape}: "
            "depthwise_conv3d takes [n, t, h, w, c] and [kt, kh, kw, c]"
        )
    if activation is not None and activation not in _ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}: use None or one of {list(_ACTIVATIONS)}")
    y = conv(
        x,
        w[..., None, :],
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=x.shape[-1],
        implementation=implementation,
    )
    plain = "xla" if implementation == "xla" else None
    if scale is None and bias is not None:
        scale = jnp.ones_like(bias)
    if scale is not None:
        y = channel_affine(y, scale, bias, implementation=plain)
    if activation is not None:
        y = _ACTIVATIONS[activation](y)
    return y, spatial_sum(y, implementation=plain)
