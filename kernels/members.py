"""`python -m kernels.bench --members N`: N small CNNs in one vmapped train step, or one by one.

The network is cnn_small (three blocks of convolution, ReLU and pool, two dense layers) on images of
64x64 with Adam, written on the operators alone. Both ways run the same step function, compiled and
with donated state, and start from the same state; they alternate, and after the first step their
losses are compared. Processor seconds, which other work on the machine hardly changes, are
reported beside the wall clock.
"""

import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import kernels

_WIDTHS, _HIDDEN, _CLASSES = (32, 64, 128), 128, 10
_SIZE = 64


def parameters(key: jax.Array, size: int = _SIZE) -> list[tuple[jax.Array, jax.Array]]:
    """Random (weights, bias) of every layer, for images of size x size."""
    shapes, inputs = [], 3
    for width in _WIDTHS:
        shapes.append((3, 3, inputs, width))
        inputs, size = width, (size - 2) // 2
    shapes += [(size * size * inputs, _HIDDEN), (_HIDDEN, _CLASSES)]
    found = []
    for number, shape in enumerate(shapes):
        fan = 1
        for extent in shape[:-1]:
            fan *= extent
        w = jax.random.normal(jax.random.fold_in(key, number), shape) * (2 / fan) ** 0.5
        found.append((w, jnp.zeros(shape[-1])))
    return found


def loss(layers: list[tuple[jax.Array, jax.Array]], x: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy of images x [n, h, w, 3] with labels [n]."""
    *blocks, hidden, head = layers
    for w, b in blocks:
        x = kernels.conv_bias_relu_pool(x, w, b)
    x = jax.nn.relu(x.reshape(x.shape[0], -1) @ hidden[0] + hidden[1])
    scores = jax.nn.log_softmax(x @ head[0] + head[1])
    return -jnp.take_along_axis(scores, labels[:, None], 1).mean()


def initial(key: jax.Array, size: int = _SIZE) -> Any:
    """The state of a train step: parameters, Adam's two moments, and the number of steps."""
    layers = parameters(key, size)
    first, second = (jax.tree.map(jnp.zeros_like, layers) for _ in range(2))
    return layers, first, second, jnp.zeros(())


def step(state: Any, x: jax.Array, labels: jax.Array) -> tuple[Any, jax.Array]:
    """One update by Adam (rate 1e-3); returns the new state and the loss before it."""
    layers, first, second, count = state
    value, slopes = jax.value_and_grad(loss)(layers, x, labels)
    count = count + 1
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, slopes)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, slopes)

    def update(p: jax.Array, m: jax.Array, v: jax.Array) -> jax.Array:
        return p - 1e-3 * (m / (1 - 0.9**count)) / (jnp.sqrt(v / (1 - 0.999**count)) + 1e-8)

    return (jax.tree.map(update, layers, first, second), first, second, count), value


def _processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def compare(
    members: int, batch: int, rounds: int, shared: bool, size: int = _SIZE
) -> dict[str, float]:
    """Median seconds of a step of all members: "loop" and "vmap", and "... processor".

    batch: images of size x size of each member. shared: whether all members see the same ones.
    Raises RuntimeError where the two ways disagree.
    """
    key = jax.random.key(0)
    sets = 1 if shared else members
    images = [
        jax.random.normal(jax.random.fold_in(key, number), (batch, size, size, 3))
        for number in range(sets)
    ]
    labels = [
        jax.random.randint(jax.random.fold_in(key, 1000 + number), (batch,), 0, _CLASSES)
        for number in range(sets)
    ]
    x, y = (images[0], labels[0]) if shared else (jnp.stack(images), jnp.stack(labels))
    axes = (0, None, None) if shared else (0, 0, 0)
    alone = jax.jit(step, donate_argnums=0)
    together = jax.jit(jax.vmap(step, axes), donate_argnums=0)
    states = [initial(jax.random.key(number), size) for number in range(members)]
    stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *states)

    def loop() -> jax.Array:
        values = []
        for number in range(members):
            one = number % sets
            states[number], value = alone(states[number], images[one], labels[one])
            values.append(value)
        jax.block_until_ready(states)
        return jnp.stack(values)

    def vmap() -> jax.Array:
        nonlocal stacked
        stacked, values = together(stacked, x, y)
        jax.block_until_ready(stacked)
        return values

    apart = float(abs(loop() - vmap()).max())
    if not apart < 1e-3:
        raise RuntimeError(f"the losses of vmap and loop differ by {apart}: the rule is wrong")
    runs: dict[str, Callable[[], jax.Array]] = {"loop": loop, "vmap": vmap}
    samples: dict[str, list[float]] = {n + kind: [] for n in runs for kind in ("", " processor")}
    for number in range(rounds):
        for name in sorted(runs, reverse=bool(number % 2)):
            began, spent = time.perf_counter(), _processor_seconds()
            runs[name]()
            samples[name].append(time.perf_counter() - began)
            samples[name + " processor"].append(_processor_seconds() - spent)
    return {name: statistics.median(values) for name, values in samples.items()}


def report(members: int, batch: int, rounds: int) -> None:
    """Prints the comparison for members with the same images and with images of their own."""
    for shared in (True, False):
        found = compare(members, batch, rounds, shared)
        print(
            f"{members} members, {batch} images each, {'the same' if shared else 'its own'}: "
            f"loop {found['loop'] * 1e3:.1f} ms, vmap {found['vmap'] * 1e3:.1f} ms, "
            f"{found['loop'] / found['vmap']:.2f} times as fast; processor time "
            f"{found['loop processor'] * 1e3:.1f} and {found['vmap processor'] * 1e3:.1f} ms, "
            f"{found['loop processor'] / found['vmap processor']:.2f} times",
            flush=True,
        )
