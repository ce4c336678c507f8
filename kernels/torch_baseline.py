"""The operators in PyTorch on a CPU, for `python -m kernels.bench --against torch`.

In the default layout and with the channels last, on as many threads as PyTorch takes by itself. For
attention these are [b, h, n, d] and, as here, [b, n, h, d] in memory.
"""

from collections.abc import Callable
from typing import Any

from kernels import calls, specs
from kernels.windows import Windows

_LAYOUTS = {"torch": False, "torch channels_last": True}


def candidates(
    operator: str, spec: specs.Spec, gradients: bool, sets: int
) -> dict[str, Callable[[int], Any]]:
    """The same call with random inputs, for each layout, as a function of the set of inputs.

    Raises SystemExit where PyTorch is not installed.
    """
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise SystemExit("--against torch needs PyTorch: pip install torch") from None
    axes = len(spec.x) - 2
    order = (0, axes + 1, *range(1, axes + 1))
    last = torch.channels_last if axes == 2 else torch.channels_last_3d

    def candidate(channels_last: bool) -> Callable[[int], Any]:
        layout = last if channels_last else torch.contiguous_format

        def array(shape: tuple[int, ...]) -> Any:
            a = torch.randn(shape)
            if a.ndim == axes + 2:
                a = a.contiguous(memory_format=layout)
            return a.requires_grad_(gradients)

        def heads(tokens: int) -> Any:
            a = torch.randn(spec.x[0], tokens, *spec.x[2:]).transpose(1, 2)
            return (a if channels_last else a.contiguous()).requires_grad_(gradients)

        rest = []
        if operator == "attention":
            xs = [heads(spec.x[1]) for _ in range(sets)]
            rest += [heads(spec.keys or spec.x[1]) for _ in range(2)]
        else:
            xs = [array(tuple(spec.x[axis] for axis in order)) for _ in range(sets)]
        if spec.outputs:
            rest.append(array((spec.outputs, spec.x[-1] // spec.groups, *spec.window)))
        if operator == "conv_bias_relu_pool":
            rest.append(array((spec.outputs,)))
        if operator == "depthwise_conv3d":
            rest += [array((spec.outputs, *(1,) * axes)) for _ in range(2)]
        forward = _forward(torch, operator, spec)
        with torch.no_grad():
            slopes = [torch.randn_like(y) for y in forward(xs[0], *rest)]

        def run(number: int) -> tuple[()]:
            if gradients:
                arrays = [xs[number], *rest]
                torch.autograd.grad(forward(*arrays), arrays, slopes)
            else:
                with torch.no_grad():
                    forward(xs[number], *rest)
            return ()

        return run

    return {name: candidate(channels_last) for name, channels_last in _LAYOUTS.items()}


def _forward(torch: Any, operator: str, spec: specs.Spec) -> Callable[..., tuple[Any, ...]]:
    """The operator on PyTorch's arrays [n, c, *spatial]; its results as a tuple."""
    library, axes = torch.nn.functional, len(spec.x) - 2
    if operator == "attention":
        return lambda q, k, v: (library.scaled_dot_product_attention(q, k, v),)
    spatial = tuple(range(2, axes + 2))
    if operator == "channel_sums":  # PyTorch's one pass gives the same two numbers a channel
        return lambda x: torch.var_mean(x, (0, *spatial), correction=0)
    if operator == "spatial_sum":
        return lambda x: (x.sum(spatial),)
    pool = library.max_pool2d if axes == 2 else library.max_pool3d
    conv = library.conv2d if axes == 2 else library.conv3d
    windows = Windows.of(spec.x, spec.window, spec.stride, spec.padding)
    even = all(low == high for low, high in windows.padding)
    inside = [low for low, _ in windows.padding] if even else 0
    around = [size for pair in reversed(windows.padding) for size in pair]

    def padded(x: Any) -> Any:
        value = -torch.inf if operator == "max_pool" else 0.0
        return x if even else library.pad(x, around, value=value)

    def filtered(x: Any, w: Any, b: Any = None) -> Any:
        return conv(padded(x), w, b, spec.stride, inside, 1, spec.groups)

    def depthwise(x: Any, w: Any, scale: Any, bias: Any) -> tuple[Any, ...]:
        y = filtered(x, w) * scale + bias
        if spec.activation:
            names = {"silu": "silu", "relu": "relu", "hard_swish": "hardswish"}
            y = getattr(library, names[spec.activation])(y)
        return y, y.sum(spatial)

    if operator == "max_pool":
        return lambda x: (pool(padded(x), spec.window, spec.stride, inside),)
    if operator == "conv_bias_relu_pool":
        return lambda x, w, b: (pool(library.relu(filtered(x, w, b)), calls.POOL),)
    if operator == "depthwise_conv3d":
        return depthwise
    return lambda x, w: (filtered(x, w),)
