"""Trains twenty steps on the devices that the environment gives, and saves what came out.

Run by test_parallel.py: OUTPUT BATCH_SIZE [COORDINATOR PROCESSES NUMBER].
"""

import sys

import flax.linen as nn
import jax
import numpy as np

from experiments import train
from experiments.config import Config, Data, Model, Optim
from experiments.parallel import Devices
from zoo import layers
from zoo.video.policy import Augmentation

CLASSES = 4


class Net(nn.Module):
    """Convolution, batch statistics, dropout: what a batch shares and what a clip draws."""

    @nn.compact
    def __call__(self, clips, train):
        b, t, h, w, c = clips.shape
        x = layers.Conv(8, (3, 3), 2)(clips.reshape(b * t, h, w, c))
        x = nn.relu(layers.BatchNorm()(x, train))
        x = nn.Dropout(0.3, deterministic=not train)(x.mean((1, 2)))
        x = nn.Dropout(0.1, deterministic=not train)(x)
        return nn.Dense(CLASSES)(x.reshape(b, t, -1).mean(1))


def batch(number: int, size: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    label = rng.integers(0, CLASSES, size).astype(np.int32)
    clip = rng.integers(0, 120, (size, 2, 18, 18, 3)).astype(np.uint8)
    clip[:, :, :9] += (30 * label[:, None, None, None, None]).astype(np.uint8)
    return {"clip": clip, "label": label, "weight": np.ones(size, np.float32)}


def main() -> None:
    output, size = sys.argv[1], int(sys.argv[2])
    host, hosts = 0, 1
    if len(sys.argv) > 3:
        hosts, host = int(sys.argv[4]), int(sys.argv[5])
        jax.distributed.initialize(sys.argv[3], hosts, host)
    config = Config(
        model=Model(dropout=0.3),
        data=Data(frames=2, size=16, decode_size=18),
        augment=Augmentation(
            crop="random", horizontal_flip=0.5, brightness=0.2, mixup=0.4, cutmix=1.0
        ),
        optim=Optim(optimizer="sgd", learning_rate=0.05, weight_decay=1e-3, ema_decay=0.9),
        batch_size=size,
    )
    devices, net = Devices(), Net()
    given = train.numbers(config, 20)
    state = devices.replicate(jax.jit(lambda: train.init_state(net, config, given))())
    step = devices.train_step(
        lambda state, batch, part: train.train_step(
            net, config, CLASSES, given, state, batch, part
        ),
        size,
    )
    places = devices.each(size) * devices.count
    own = slice(places // hosts * host, places // hosts * (host + 1))
    metrics = []
    for number in range(20):
        whole = batch(number, size)
        padded = {
            name: np.concatenate([x, np.zeros((places - size, *x.shape[1:]), x.dtype)])[own]
            for name, x in whole.items()
        }
        if places == size:
            del padded["weight"]
        state, values = step(state, devices.put(padded))
        metrics.append([float(values[name]) for name in ("loss", "top1", "grad_norm")])
    evaluate = devices.eval_step(
        lambda variables, clip: train.eval_step(net, config, 1, variables, clip[:, None])
    )
    padded = {
        name: np.concatenate([x, np.zeros((places - size, *x.shape[1:]), x.dtype)])[own]
        for name, x in batch(99, size).items()
    }
    found = jax.device_get(evaluate(train.evaluated_variables(state), devices.put(padded)))
    real = found["weight"] > 0
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(state))
    if host == 0:
        arrays = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
        np.savez(
            output,
            devices=devices.count,
            metrics=metrics,
            probabilities=np.exp(found["log_probabilities"][real]),
            labels=found["label"][real],
            **arrays,
        )


if __name__ == "__main__":
    main()
