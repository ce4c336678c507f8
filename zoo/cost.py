"""What a model costs: parameters and arithmetic, without running it."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

import kernels
from zoo import layers


def variable_shapes(model: nn.Module, clip_shape: tuple[int, int, int, int]) -> Any:
    """The variables that the model has for clips [t h w c], as shapes and dtypes."""
    clips = jax.ShapeDtypeStruct((1, *clip_shape), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), clips)


def parameters(model: nn.Module, clip_shape: tuple[int, int, int, int]) -> int:
    """How many numbers are trained, for clips [t h w c]."""
    variables = variable_shapes(model, clip_shape)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


def flops(model: nn.Module, clip_shape: tuple[int, int, int, int]) -> int:
    """Multiplications and additions in the convolutions and dense layers for one clip [t h w c].

    A multiply-add counts as two, and biases, activations and pooling as nothing, which is the
    usual way to compare networks. Counted from the layers' shapes, so that it does not depend on
    how `kernels` computes them.
    """
    total = 0

    def count(
        call: Callable, arguments: tuple, keywords: dict, context: nn.module.InterceptorContext
    ) -> Any:
        nonlocal total
        result = call(*arguments, **keywords)
        layer = context.module
        counted = isinstance(layer, layers.Conv | layers.ConvPool | nn.Dense)
        if counted and context.method_name == "__call__":
            kernel = layer.variables["params"]["kernel"]
            sums = result
            if isinstance(layer, layers.ConvPool):
                sums = jax.eval_shape(kernels.conv, arguments[0], kernel)  # before the pool
            # Each sum is over one window of inputs, as many as a kernel has for it.
            total += 2 * math.prod(sums.shape) * math.prod(kernel.shape[:-1])
        return result

    variables = variable_shapes(model, clip_shape)
    clips = jax.ShapeDtypeStruct((1, *clip_shape), jnp.float32)
    with nn.intercept_methods(count):
        jax.eval_shape(model.apply, variables, clips)
    return total
