"""Predicts the memory of a train step, runs it twice, and prints what it took: two numbers.

Run by test_plan.py in a process of its own, in which malloc gives memory back. What it took is the
highest resident memory while the state, the batch and the steps were there, above what the process
had before them; Linux tells it.
"""

import pathlib

import jax
import numpy as np

from experiments import train
from experiments.config import Config, Data, Model, Optim
from experiments.parallel import Devices
from experiments.plan import Planned
from zoo.video.policy import Augmentation

CLIPS = 64


def resident(name: str) -> int:
    """VmRSS or VmHWM of this process in bytes."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{name}:")]
    return 1024 * int(line.split()[1])


def main() -> None:
    config = Config(
        model=Model(name="cnn_small", dropout=0.3),
        data=Data(frames=4, size=64, decode_size=72),
        augment=Augmentation(crop="random", brightness=0.1),
        optim=Optim(ema_decay=0.9),
        batch_size=CLIPS,
    )
    planned = Planned(config, 10, Devices())
    program = planned.program(CLIPS)
    found = planned.read(program)
    # What has to be compiled or started is, before the memory is looked at.
    init = jax.jit(lambda: train.init_state(planned.model, config, planned.given))
    jax.block_until_ready(init())
    before = resident("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the highest so far is forgotten
    state = init()
    batch = {
        name: jax.device_put(np.zeros(x.shape, x.dtype)) for name, x in planned.batch(CLIPS).items()
    }
    for _ in range(2):
        state, values = program(state, batch)
        jax.block_until_ready(values)
    print(found.memory, resident("VmHWM") - before)


if __name__ == "__main__":
    main()
