"""Depthwise convolution over time, height and width with what usually follows it.

    z = conv(x, w, groups=c); y = activation(z * scale + bias); sums = y summed over t, h, w

Scale and bias are those of a folded or frozen batch normalisation, the sums are what squeeze-excite
needs; written together they need no further pass over y where the platform can fuse them.
The convolution and its derivatives are those of `kernels.conv` with one group a channel.

"pallas_gpu" is one kernel for all of it, forward (kernels/depthwise_gpu.py). Its derivative keeps
nothing but the inputs and computes the convolution again. By name only, like the convolution.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from kernels import dispatch
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
    settings = (activation, _fixed(stride), _fixed(padding), _fixed(dilation), implementation)
    if dispatch.requested(implementation) == "pallas_gpu":
        # Refuses what the kernel does not take.
        jax.eval_shape(functools.partial(_unfused, settings), x, w, None, None)
        scale = jnp.ones(x.shape[-1]) if scale is None else scale
        bias = jnp.zeros(x.shape[-1]) if bias is None else bias
        return _fused(settings, x, w, scale, bias)
    return _unfused(settings, x, w, scale, bias)


def _fixed(value: Any) -> Any:
    """Lists as tuples, all the way down."""
    return value if isinstance(value, int | str) else tuple(map(_fixed, value))


def _unfused(
    settings: tuple[Any, ...],
    x: jax.Array,
    w: jax.Array,
    scale: jax.Array | None,
    bias: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    activation, stride, padding, dilation, implementation = settings
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _fused(
    settings: tuple[Any, ...], x: jax.Array, w: jax.Array, scale: jax.Array, bias: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The whole in one kernel; vmap calls it one after the other."""

    def plain(x: jax.Array, w: jax.Array, scale: jax.Array, bias: jax.Array) -> Any:
        return dispatch.call(
            "depthwise_conv3d", [_GPU], "pallas_gpu", x, w, scale, bias, activation=settings[0]
        )

    run = custom_vmap(plain)

    @run.def_vmap
    def rule(size: int, batched: list[bool], *arrays: jax.Array) -> tuple[Any, Any]:
        full = [
            a if b else jnp.broadcast_to(a, (size, *a.shape))
            for a, b in zip(arrays, batched, strict=True)
        ]
        return lax.map(lambda parts: run(*parts), tuple(full)), (True, True)

    return run(x, w, scale, bias)


def _on_gpu(
    x: jax.Array, w: jax.Array, scale: jax.Array, bias: jax.Array, *, activation: str | None
) -> tuple[jax.Array, jax.Array]:
    from kernels import depthwise_gpu  # only here: it takes 0.3 s to import Pallas

    return depthwise_gpu.fused(x, w, jnp.stack([scale, bias]), activation)


def _fused_backward(settings: tuple[Any, ...], saved: Any, slopes: Any) -> Any:
    return jax.vjp(functools.partial(_unfused, settings), *saved)[1](slopes)


_GPU = dispatch.Implementation("pallas_gpu", _on_gpu, platforms=())
_fused.defvjp(lambda settings, *arrays: (_fused(settings, *arrays), arrays), _fused_backward)
