"""The operators on the named shapes as functions of arrays alone, and what a call has to do."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import kernels
from kernels import specs
from kernels.windows import Windows

POOL = (2, 2)  # of conv_bias_relu_pool


def known() -> dict[str, tuple[str, specs.Spec]]:
    """The operator and the shape for each name."""
    return {spec.name: (operator, spec) for operator, group in specs.ALL.items() for spec in group}


def is_depthwise(spec: specs.Spec) -> bool:
    """Whether a convolution filters each channel alone."""
    return 1 < spec.groups == spec.outputs == spec.x[-1]


def function_of(operator: str, spec: specs.Spec, name: str | None) -> Callable[..., Any]:
    """The operator with the implementation `name` as a function of the arrays of `arrays_of`."""
    if operator == "attention":
        return lambda q, k, v: kernels.attention(q, k, v, implementation=name)
    if operator in ("channel_sums", "spatial_sum"):
        sums = getattr(kernels, operator)
        return lambda x: sums(x, implementation=name)
    shared: dict[str, Any] = {
        "stride": spec.stride,
        "padding": spec.padding,
        "implementation": name,
    }
    if operator == "max_pool":
        return lambda x: kernels.max_pool(x, spec.window, **shared)
    if operator == "conv_bias_relu_pool":
        return lambda x, w, b: kernels.conv_bias_relu_pool(x, w, b, POOL, **shared)
    if operator == "depthwise_conv3d":
        shared["activation"] = spec.activation
        return lambda x, w, scale, bias: kernels.depthwise_conv3d(
            x, w, scale=scale, bias=bias, **shared
        )
    return lambda x, w: kernels.conv(x, w, groups=spec.groups, **shared)


def arrays_of(operator: str, spec: specs.Spec, dtype: Any) -> list[jax.ShapeDtypeStruct]:
    """The shapes and types of the operator's arrays."""
    arrays = [jax.ShapeDtypeStruct(spec.x, dtype)]
    if operator == "attention":
        b, n, *head = spec.x
        return arrays + [jax.ShapeDtypeStruct((b, spec.keys or n, *head), dtype)] * 2
    per_channel = jax.ShapeDtypeStruct((spec.outputs,), dtype)
    if operator == "depthwise_conv3d":
        window = jax.ShapeDtypeStruct((*spec.window, spec.outputs), dtype)
        return [*arrays, window, per_channel, per_channel]
    if spec.outputs:
        shape = (*spec.window, spec.x[-1] // spec.groups, spec.outputs)
        arrays.append(jax.ShapeDtypeStruct(shape, dtype))
    if operator == "conv_bias_relu_pool":
        arrays.append(per_channel)
    return arrays


def random_arrays(operator: str, spec: specs.Spec, dtype: Any, seed: int) -> tuple[jax.Array, ...]:
    """Normal numbers; after ReLU for a pool, which meets ties in practice."""
    keys = jax.random.split(jax.random.key(seed), 4)
    shapes = arrays_of(operator, spec, dtype)
    arrays = [jax.random.normal(key, a.shape, dtype) for key, a in zip(keys, shapes, strict=False)]
    if operator == "max_pool":
        arrays[0] = jax.nn.relu(arrays[0])
    return tuple(arrays)


def with_gradients(function: Callable[..., Any]) -> Callable[..., Any]:
    """The value and the gradients by all arguments, for a gradient given as the first argument."""

    def run(dy: Any, *arrays: jax.Array) -> Any:
        y, pull = jax.vjp(function, *arrays)
        return y, pull(dy)

    return run


def work(operator: str, spec: specs.Spec, dtype: Any, gradients: bool) -> tuple[float, float]:
    """Operations, and bytes moved if every array is read or written once.

    With gradients the forward pass counts too, and the backward pass reads the input again, as one
    that has no memory for more does. A multiplication with its addition counts as two operations, a
    comparison as one. Of attention the two products are counted, and two more in the derivative of
    each, but not the softmax.
    """
    size = jnp.dtype(dtype).itemsize
    inputs = math.prod(spec.x)
    if operator == "attention":
        b, n, h, d = spec.x
        keys = spec.keys or n
        operations = 2 * 2 * b * h * n * keys * d
        queries, rest = inputs * size, 2 * b * keys * h * d * size
        if not gradients:
            return operations, 2 * queries + rest
        return 3 * operations, 5 * queries + 3 * rest
    if not spec.window:
        squares = operator == "channel_sums"
        operations = inputs * (3 if squares else 1)
        if not gradients:
            return operations, inputs * size
        return 2 * operations, inputs * size * (3 if squares else 2)
    shapes = arrays_of(operator, spec, dtype)
    result = jax.eval_shape(function_of(operator, spec, None), *shapes)
    outputs = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(result))
    parameters = sum(math.prod(array.shape) for array in shapes[1:])
    windows = Windows.of(spec.x, spec.window, spec.stride, spec.padding)
    places = spec.x[0] * math.prod(windows.outputs)
    taps = math.prod(spec.window)
    if operator == "max_pool":
        operations = places * spec.x[-1] * taps
    else:
        operations = 2 * places * spec.outputs * taps * spec.x[-1] // spec.groups
    if not gradients:
        return operations, (inputs + outputs + parameters) * size
    times = 2 if operator == "max_pool" else 3  # dx and dw cost what the forward pass costs
    reads = 2 if operator == "max_pool" else 3
    return times * operations, (reads * inputs + 2 * outputs + 3 * parameters) * size
