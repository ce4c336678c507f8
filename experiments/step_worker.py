"""One library's train step, for `experiments.bench step`; also run by Pythons that have no jax.

    python -P step_worker.py LIBRARY MODEL SIZE FRAMES

LIBRARY is zoo, torch, torch_channels_last, keras or keras_compiled (by XLA). Every library trains
the same network (three 3x3 convolutions of 32, 64 and 128 channels with ReLU and 2x2 max-pooling, a
dense layer with ReLU, ten classes) with Adam on the same number of random frames that are in memory
already. It answers each line of standard input, a number of steps, with a line of JSON: the seconds
they took and the processor seconds. The file imports nothing of the project but for "zoo".
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

WIDTHS, CLASSES, RATE = (32, 64, 128), 10, 1e-3
HIDDEN = {"cnn_base": 1024, "cnn_small": 128}
# Before each line meant for the parent: libraries print, too.
MARK = "step_worker "

# Runs some steps and waits for the last; the loss.
Step = Callable[[int], float]


def zoo_step(model: str, size: int, frames: int) -> tuple[str, Step]:
    """This project: its model, loss and optimizer, without augmentation."""
    import jax
    import jax.numpy as jnp
    import optax

    import zoo
    from experiments import train
    from experiments.config import Config, Optim

    network: Any = zoo.create_model(model, num_classes=CLASSES)
    optim = Optim(learning_rate=RATE)
    optimizer = train.make_optimizer(optim, train.numbers(Config(optim=optim), 1))
    clips = jax.random.normal(jax.random.key(0), (frames, 1, size, size, 3))
    labels = jax.random.randint(jax.random.key(1), (frames,), 0, CLASSES)
    params = jax.jit(network.init)(jax.random.key(2), clips)["params"]
    state = params, jax.jit(optimizer.init)(params)

    def loss(params: Any, clips: jax.Array, labels: jax.Array) -> jax.Array:
        logits = network.apply({"params": params}, clips, train=True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def step(state: Any, clips: jax.Array, labels: jax.Array) -> Any:
        params, memory = state
        value, slopes = jax.value_and_grad(loss)(params, clips, labels)
        changes, memory = optimizer.update(slopes, memory, params)
        return (train.apply_updates(params, changes), memory), value

    compiled = jax.jit(step, donate_argnums=0)

    def run(count: int) -> float:
        nonlocal state
        value = jnp.zeros(())
        for _ in range(count):
            state, value = compiled(state, clips, labels)
        jax.block_until_ready(state)
        return float(value)

    return f"jax {jax.__version__}", run


def torch_step(model: str, size: int, frames: int, channels_last: bool) -> tuple[str, Step]:
    """PyTorch with its fused Adam."""
    import torch  # pyright: ignore[reportMissingImports]

    nn = torch.nn
    layers, inputs, side = [], 3, size
    for width in WIDTHS:
        layers += [nn.Conv2d(inputs, width, 3), nn.ReLU(), nn.MaxPool2d(2)]
        inputs, side = width, (side - 2) // 2
    layers += [nn.Flatten(), nn.Linear(side * side * inputs, HIDDEN[model]), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Linear(HIDDEN[model], CLASSES))
    images = torch.randn(frames, 3, size, size)
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(CLASSES, (frames,))
    optimizer = torch.optim.Adam(network.parameters(), RATE, fused=True)

    def run(count: int) -> float:
        loss = torch.zeros(())
        for _ in range(count):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(images), labels)
            loss.backward()
            optimizer.step()
        return loss.item()

    return f"torch {torch.__version__}", run


def keras_step(model: str, size: int, frames: int, compiled: bool) -> tuple[str, Step]:
    """Keras on TensorFlow: compile and train_on_batch."""
    import os

    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras  # pyright: ignore[reportMissingImports]
    import tensorflow as tf  # pyright: ignore[reportMissingModuleSource]

    layers = [keras.Input((size, size, 3))]
    for width in WIDTHS:
        layers += [keras.layers.Conv2D(width, 3, activation="relu"), keras.layers.MaxPool2D()]
    layers += [keras.layers.Flatten(), keras.layers.Dense(HIDDEN[model], activation="relu")]
    network = keras.Sequential([*layers, keras.layers.Dense(CLASSES)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(RATE), loss, jit_compile=compiled)
    images = tf.random.normal((frames, size, size, 3))
    labels = tf.random.uniform((frames,), 0, CLASSES, tf.int32)

    def run(count: int) -> float:
        value = 0.0
        for _ in range(count):
            value = network.train_on_batch(images, labels)
        return float(value)

    return f"keras {keras.__version__}, tensorflow {tf.__version__}", run


STEPS: dict[str, Callable[[str, int, int], tuple[str, Step]]] = {
    "zoo": zoo_step,
    "torch": lambda *what: torch_step(*what, channels_last=False),
    "torch_channels_last": lambda *what: torch_step(*what, channels_last=True),
    "keras": lambda *what: keras_step(*what, compiled=False),
    "keras_compiled": lambda *what: keras_step(*what, compiled=True),
}


def main(library: str, model: str, size: str, frames: str) -> None:
    """Compiles with two steps, tells the versions, then answers until its input ends."""
    version, run = STEPS[library](model, int(size), int(frames))
    run(2)
    print(MARK + json.dumps({"version": version}), flush=True)
    for line in sys.stdin:
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        loss = run(int(line))
        seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        answer = {"seconds": seconds, "processor": spent, "loss": loss}
        print(MARK + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
