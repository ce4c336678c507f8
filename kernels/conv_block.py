"""The block of the plain video CNN: convolution, bias, ReLU, max-pool.

    conv_bias_relu_pool(x, w, b, window) == max_pool(relu(conv(x, w) + b), window)

Adding a constant and ReLU keep the order of numbers, so that the pool may come first
("xla_rewrite"): then bias, ReLU, their derivatives and the sum for the bias work on a quarter of
the numbers, and the derivative of the whole block reads nothing as large as the convolution's
result but writes it once. The values are the same to the last bit; where two numbers of a window
become equal only by the rounding of the addition, their gradient goes to the one that was larger.
"""

from collections.abc import Sequence

import jax

from kernels import dispatch
from kernels.convolution import conv
from kernels.moments import add_bias
from kernels.pooling import max_pool
from kernels.windows import Padding


def conv_bias_relu_pool(
    x: jax.Array,
    w: jax.Array,
    b: jax.Array,
    window: int | Sequence[int] = 2,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    pool_stride: int | Sequence[int] | None = None,
    implementation: str | None = None,
) -> jax.Array:
    """x: [n, *spatial, c], w: [*window, c, o], b: [o], 2 or 3 spatial axes.

    window, pool_stride: of the pool, which has no padding. stride, padding: of the convolution.
    implementation: "xla" (definition), "xla_rewrite" or None.
    Returns [n, *outputs, o]. Raises ValueError where the shapes do not fit together.
    """

    def definition(x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
        y = conv(x, w, stride=stride, padding=padding, implementation="xla")
        y = jax.nn.relu(y + b)
        return max_pool(y, window, stride=pool_stride, implementation="xla")

    def pool_first(x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
        y = conv(x, w, stride=stride, padding=padding)
        return jax.nn.relu(add_bias(max_pool(y, window, stride=pool_stride), b))

    candidates = (
        dispatch.Implementation("xla_rewrite", pool_first),
        dispatch.Implementation("xla", definition),
    )
    name = dispatch.requested(implementation)
    return dispatch.call("conv_bias_relu_pool", candidates, name, x, w, b)
