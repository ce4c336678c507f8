"""Compiled operators. Each has its XLA definition as specification; see the operator's module.

Importing the package imports jax only when the first operator is asked for, so that
`kernels.environment` can be used by a process that never computes. No module has the name of an
operator: importing the one would hide the other.
"""

import importlib
from typing import TYPE_CHECKING, Any

from kernels import environment

if TYPE_CHECKING:
    from kernels.affine import channel_affine as channel_affine
    from kernels.conv_block import conv_bias_relu_pool as conv_bias_relu_pool
    from kernels.convolution import conv as conv
    from kernels.depthwise import depthwise_conv3d as depthwise_conv3d
    from kernels.dot_product import attention as attention
    from kernels.moments import channel_sums as channel_sums
    from kernels.moments import product_sums as product_sums
    from kernels.moments import spatial_sum as spatial_sum
    from kernels.pooling import max_pool as max_pool

environment.prepare()  # XLA reads its flags once, so before anything below imports jax

_MODULES = {
    "attention": "dot_product",
    "channel_affine": "affine",
    "channel_sums": "moments",
    "conv": "convolution",
    "conv_bias_relu_pool": "conv_block",
    "depthwise_conv3d": "depthwise",
    "max_pool": "pooling",
    "product_sums": "moments",
    "spatial_sum": "moments",
}
__all__ = [
    "attention",
    "channel_affine",
    "channel_sums",
    "conv",
    "conv_bias_relu_pool",
    "depthwise_conv3d",
    "max_pool",
    "product_sums",
    "spatial_sum",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'kernels' has no operator {name!r}: it has {__all__}")
    operator = getattr(importlib.import_module(f"kernels.{_MODULES[name]}"), name)
    globals()[name] = operator
    return operator
