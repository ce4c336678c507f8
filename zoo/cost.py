"""What a model costs: parameters and arithmetic, without running it."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def input_dtype(model: nn.Module) -> jnp.dtype:
    """What clips of a model consist of: normalised float32, unless the module says otherwise."""
    return jnp.dtype(getattr(model, "input_dtype", jnp.float32))


def _clip(model: nn.Module, clip_shape: tuple[int, int, int, int]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *clip_shape), input_dtype(model))


def variable_shapes(model: nn.Module, clip_shape: tuple[int, int, int, int]) -> Any:
    """The variables that the model has for clips [t h w c], as shapes and dtypes."""
    return jax.eval_shape(model.init, jax.random.key(0), _clip(model, clip_shape))


def parameters(model: nn.Module, clip_shape: tuple[int, int, int, int]) -> int:
    """How many numbers are trained, for clips [t h w c]."""
    variables = variable_shapes(model, clip_shape)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


@dataclasses.dataclass(frozen=True)
class Layer:
    """One of the modules that a model consists of, in the order in which they run.

    output: shape for one clip. parameters: how many numbers are trained in it.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    output_bytes: int
    parameters: int


def layers(model: nn.Module, clip_shape: tuple[int, int, int, int]) -> list[Layer]:
    """The modules directly inside a model, for one clip [t h w c]."""
    variables = variable_shapes(model, clip_shape)
    clips = _clip(model, clip_shape)
    found: dict[str, Layer] = {}

    def note(call: Any, arguments: Any, keywords: Any, context: Any) -> Any:
        result = call(*arguments, **keywords)
        path = context.module.path
        if len(path) == 1 and context.method_name == "__call__":
            arrays = [a for a in jax.tree.leaves(result) if hasattr(a, "shape")]
            trained = jax.tree.leaves(variables["params"].get(path[0], {}))
            found[path[0]] = Layer(
                path[0],
                type(context.module).__name__,
                arrays[0].shape if arrays else (),
                sum(math.prod(a.shape) * a.dtype.itemsize for a in arrays),
                sum(math.prod(leaf.shape) for leaf in trained),
            )
        return result

    with nn.intercept_methods(note):
        jax.eval_shape(model.apply, variables, clips)
    return list(found.values())


def flops(model: nn.Module, clip_shape: tuple[int, int, int, int]) -> int:
    """Multiplications and additions in convolutions and products for one clip [t h w c].

    A multiply-add counts as two, and biases, activations and pooling as nothing, which is the
    usual way to compare networks. Counted from the program that the operators' XLA definitions
    make, so that it does not depend on how `kernels` computes them, and products without weights,
    as those of attention, count too.
    """
    variables = variable_shapes(model, clip_shape)
    clips = _clip(model, clip_shape)

    def logits(variables: Any, clips: jax.Array) -> Any:  # new, so that no trace is reused
        return model.apply(variables, clips)

    with xla_definitions():
        return program_flops(logits, variables, clips)


def program_flops(function: Callable[..., Any], *arguments: Any) -> int:
    """Multiplications and additions in the convolutions and products of `function(*arguments)`.

    Arguments are arrays or shapes. Call it within `xla_definitions`: what other implementations of
    an operator do is not seen.
    """
    return 2 * multiply_accumulates(jax.make_jaxpr(function)(*arguments).jaxpr)


@contextlib.contextmanager
def xla_definitions() -> Iterator[None]:
    """While it lasts, every operator is its XLA definition."""
    before = os.environ.get("ZOO_KERNELS")
    os.environ["ZOO_KERNELS"] = "xla"
    try:
        yield
    finally:
        if before is None:
            del os.environ["ZOO_KERNELS"]
        else:
            os.environ["ZOO_KERNELS"] = before


def multiply_accumulates(program: Any, *, alone: bool = False) -> int:
    """Those of a jaxpr's convolutions and products, and of the programs inside it.

    alone: float multiplications that belong to no sum count, too.
    """
    total = 0
    for equation in program.eqns:
        operator, parameters = equation.primitive.name, equation.params
        if operator == "conv_general_dilated":
            # Each sum is over one window of inputs, as many as a kernel has for it.
            kernel = equation.invars[1].aval.shape
            out_features = parameters["dimension_numbers"].rhs_spec[0]
            window = math.prod(kernel) // kernel[out_features]
            total += math.prod(equation.outvars[0].aval.shape) * window
        elif operator == "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            terms = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += math.prod(equation.outvars[0].aval.shape) * terms
        elif operator == "mul" and alone:
            product = equation.outvars[0].aval
            total += math.prod(product.shape) * jnp.issubdtype(product.dtype, jnp.floating)
        elif operator == "cond":
            total += max(
                multiply_accumulates(branch.jaxpr, alone=alone) for branch in parameters["branches"]
            )
        else:
            inner = sum(
                multiply_accumulates(inside, alone=alone) for inside in _programs(parameters)
            )
            total += inner * (parameters["length"] if operator == "scan" else 1)
    return total


def _programs(parameters: Mapping[str, Any]) -> Iterator[Any]:
    """The jaxprs among the parameters of an equation."""
    for value in parameters.values():
        for entry in value if isinstance(value, list | tuple) else [value]:
            program = getattr(entry, "jaxpr", entry)  # of a closed one
            if hasattr(program, "eqns"):
                yield program
