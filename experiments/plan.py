"""`python -m experiments.run --config NAME --plan v5e:2x4`: what training takes on other machines.

The train step is compiled for the devices of the plan, which need not be here: TPU slices through
libtpu, an NVIDIA chip through jax's CUDA plugin, and this machine as `cpu`. The compiler says how
much memory the program needs, and the program what is sent between devices; nothing is run. The
largest batch is found by compiling the step at a few sizes. None of it says how long a step takes.
"""

import dataclasses
import importlib
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from experiments import finetune, train
from experiments.config import Config, ConfigError, Search
from experiments.parallel import Devices
from experiments.part import Part
from experiments.population import memory_needed, memory_of
from kernels.targets import Target, TargetError
from zoo import cost

GIB = 2**30
# Memory of a chip: Google's documentation of the versions; of the GPU its driver's description.
MEMORY = {"v4": 32 * GIB, "v5e": 16 * GIB, "v5p": 95 * GIB, "v6e": 32 * GIB, "h200": 143771000000}
# JAX takes this share of a GPU's memory and no more, unless XLA_PYTHON_CLIENT_MEM_FRACTION says so.
GPU_SHARE = 0.75
_COMPILERS = {"tpu": "targets_tpu", "cuda": "targets_cuda"}
# Without its clips a dataset does not tell its classes; they matter to the last layer alone.
CLASSES = 400
COMPILATIONS = 10  # at most, in search of the largest batch
GROWTH = 16  # at most, from one size to the next: small sizes tell little about large ones
CLOSE = 0.05  # the largest batch is known to this share of it

_COLLECTIVE = re.compile(
    r" = (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?\((.*)"
)
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_GROUPS = re.compile(r"replica_groups=(?:\{\{([\d,]*)\}|\[\d+,(\d+)\])")


@dataclasses.dataclass(frozen=True)
class Machine:
    """What a plan is for. memory, usable: bytes that a device has, and that a program may take."""

    name: str
    devices: Devices
    memory: int
    usable: int


@dataclasses.dataclass(frozen=True)
class Compiled:
    """One compiled train step, by device.

    memory: bytes at the peak: state, batch and temporary arrays. state, batch: bytes of these.
    sent: bytes that a device sends. reduced: bytes of all arrays that are summed over devices.
    """

    memory: int
    state: int
    batch: int
    sent: int
    reduced: int


def machine(name: str) -> Machine:
    """The machine called `name`: `cpu` or a name of `kernels.targets`.

    Raises:
        ConfigError: there is no such name, or its compiler is not installed.
    """
    if name == "cpu":
        devices = Devices()
        each = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // devices.count
        usable = memory_of(devices.devices[0]) // devices.count
        return Machine(name, devices, each, usable)
    try:
        target = Target.parse(name)
        found = importlib.import_module(f"kernels.{_COMPILERS[target.platform]}").devices(target)
    except ValueError as error:
        raise ConfigError(f"--plan: {error}, or cpu for this machine.") from error
    except TargetError as error:
        raise ConfigError(f"--plan: {error}.") from error
    chips = math.prod(target.topology)
    memory = MEMORY[target.chip] * chips // len(found)  # v4's chips are two devices each
    usable = int(GPU_SHARE * memory) if target.platform == "cuda" else memory
    return Machine(name, Devices(found), memory, usable)


class Planned:
    """The train step of a configuration, to be compiled for a machine at any batch size."""

    def __init__(self, config: Config, classes: int, devices: Devices) -> None:
        self.config, self.classes, self.devices = config, classes, devices
        self.model = train.make_model(config, classes)
        self.given = train.numbers(config, 100)
        self.state = jax.eval_shape(lambda: train.init_state(self.model, config, self.given))

    def _step(self, state: Any, batch: train.Batch, part: Part | None) -> tuple[Any, Any]:
        return train.train_step(
            self.model, self.config, self.classes, self.given, state, batch, part
        )

    def batch(self, size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """The shapes of a batch of `size` clips, padded to equal parts."""
        d, padded = self.config.data, self.devices.each(size) * self.devices.count
        clip = (padded, d.frames, d.decode_size, d.decode_size, 3)
        found = {
            "clip": jax.ShapeDtypeStruct(clip, np.uint8),
            "label": jax.ShapeDtypeStruct((padded,), np.int32),
        }
        if padded != size:
            found["weight"] = jax.ShapeDtypeStruct((padded,), np.float32)
        return found

    def program(self, size: int) -> Any:
        """The compiled train step for batches of `size` clips."""
        return self.devices.lower(self._step, self.state, self.batch(size), size).compile()

    def compile(self, size: int) -> Compiled | None:
        """What that program takes; None: the compiler says that it does not fit.

        Raises:
            ConfigError: the compiler refuses the program for another reason.
        """
        try:
            program = self.program(size)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" in str(error):
                return None
            raise ConfigError(
                f"The train step does not compile: {str(error).splitlines()[0]}."
            ) from error
        return self.read(program)

    def read(self, program: Any) -> Compiled:
        """What a program of `program` takes."""
        use = program.memory_analysis()
        sends = list(communicated(program.as_text() or "", self.devices.count))
        return Compiled(
            memory=memory_needed(use),
            state=bytes_of(self.state),
            batch=use.argument_size_in_bytes - bytes_of(self.state),
            sent=sum(sent for _, _, sent in sends),
            reduced=sum(size for kind, size, _ in sends if kind == "all-reduce"),
        )

    def flops(self) -> int:
        """Multiplications and additions in convolutions and products, of one clip in a step."""
        alone = self.devices.count
        shapes = {name: x for name, x in self.batch(alone).items() if name != "weight"}
        with cost.xla_definitions():
            total = cost.program_flops(
                lambda state, batch: self._step(state, batch, None), self.state, shapes
            )
        return total // alone

    def gradients(self) -> int:
        """Bytes of the parameters that are trained, which is what gradients take."""
        trained, _ = finetune.split(self.state.params, finetune.trained(self.model, self.config))
        return bytes_of(trained)


def bytes_of(tree: Any) -> int:
    """Bytes of arrays or shapes."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def communicated(text: str, devices: int) -> Iterator[tuple[str, int, int]]:
    """The collectives of an optimised program: (kind, bytes of their results, bytes sent).

    Sent is what each device of a ring sends, which is the least that is possible: 2 (n - 1) / n of
    an array that is summed over n devices, (n - 1) / n of one that is gathered or exchanged.
    """
    for line in text.splitlines():
        match = _COLLECTIVE.search(line)
        if not match:
            continue
        result, kind, started, rest = match.groups()
        sizes = [_bytes(*array) for array in _ARRAY.findall(result)]
        if started and kind == "all-gather":  # (operands, results)
            sizes = sizes[len(sizes) // 2 :]
        elif started and kind == "collective-permute":  # (operand, result, two numbers)
            sizes = sizes[1:2]
        size, groups = sum(sizes), _GROUPS.search(rest)
        n = devices
        if groups:
            n = int(groups[2]) if groups[2] else len(groups[1].split(",")) if groups[1] else devices
        share = {
            "all-reduce": 2 * (n - 1) / n,
            "all-gather": (n - 1) / n,
            "all-to-all": (n - 1) / n,
            "reduce-scatter": n - 1,
            "collective-permute": 1,
        }[kind]
        yield kind, size, round(share * size)


def _bytes(kind: str, sizes: str) -> int:
    bits = re.search(r"\d+", kind)
    each = max(1, int(bits[0]) // 8) if bits else 1
    return each * math.prod(int(n) for n in sizes.split(",") if n)


def largest(
    needed: Callable[[int], int | None], start: int, usable: int, compilations: int = COMPILATIONS
) -> tuple[int, int | None]:
    """The most clips on a device that were found to fit, and the fewest that were found not to.

    Args:
        needed: bytes for so many clips; None: more than there is.
        start: clips to begin with.
        usable: bytes that there are.
        compilations: how often `needed` may be asked.

    Returns:
        0 where not even one fits; None where nothing was found that does not.
    """
    known: dict[int, int | None] = {}
    fits, fails = 0, None
    size = start
    for _ in range(compilations):
        use = known[size] = needed(size)
        if use is not None and use <= usable:
            fits = max(fits, size)
        else:
            fails = min(size, fails or size)
        if fails is not None and fails - fits <= max(1, CLOSE * fits):
            break
        size = _next(known, fits, fails, usable)
    return fits, fails


def _next(known: dict[int, int | None], fits: int, fails: int | None, usable: int) -> int:
    """The size to try next, where a line through the two largest known ones says memory ends."""
    if not fits:
        return max(1, (fails or 2) // 2)
    points = sorted((size, use) for size, use in known.items() if use is not None)
    line = None
    if len(points) > 1 and points[-1][1] > points[-2][1]:
        (x, y), (x2, y2) = points[-2:]
        line = int(x + (usable - y) * (x2 - x) / (y2 - y))
    size = min(GROWTH * fits, line or GROWTH * fits)
    if size <= fits:  # what fits is known; next is what does not
        size = math.ceil(fits * (1 + CLOSE))
    if fails is not None and size >= fails:
        # A little less than the line says; far from it, or without one, in the middle.
        near = line is not None and line < fails * (1 + 2 * CLOSE)
        size = int(fails * (1 - CLOSE)) if near else math.isqrt(fits * fails)
    return max(fits + 1, size)


def plan(
    config: Config,
    name: str,
    say: Callable[[str], None] = print,
    compilations: int = COMPILATIONS,
) -> None:
    """Says what training `config` takes on a machine.

    Args:
        config: a search stands for one of its members.
        name: see `machine`.
        say: where lines for the user go.
        compilations: how often the step may be compiled in search of the largest batch.

    Raises:
        ConfigError: there is no such machine, its compiler is not installed, or no such model.
    """
    began = time.perf_counter()
    # What is compiled runs nowhere; with libtpu installed JAX would look for a TPU.
    jax.config.update("jax_platforms", "cpu")
    where, d = machine(name), config.data
    if config.search.wanted:
        say("Planned is one member of the search, alone.")
        config = dataclasses.replace(config, search=Search())
    classes, devices = _classes(config, say), where.devices
    try:
        planned = Planned(config, classes, devices)
        clips, found = config.batch_size, planned.compile(config.batch_size)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"The model cannot be made: {error}.") from error
    each, flops = devices.each(clips), planned.flops()
    say(
        f"{config.model.name} on {name}: {devices.count} {_plural(devices.count, 'device')} of "
        f"{_size(where.memory)}, of which a program may take {_size(where.usable)}\n"
        f"batch         {clips} clips of {d.frames} {_plural(d.frames, 'frame')} of "
        f"{d.size}x{d.size}, {each} on a device\n"
        f"arithmetic    {flops * clips / 1e9:.1f} GFLOP a step, {flops * each / 1e9:.1f} on a "
        "device (convolutions and products)"
    )
    if found is None:
        say("memory        more than a device has")
    else:
        working = found.memory - found.state - found.batch
        say(
            f"memory        {_size(found.memory)} a device, {found.memory / where.memory:.1%} of "
            f"what it has: {_size(found.state)} parameters and optimizer, {_size(found.batch)} "
            f"clips, {_size(working)} working memory"
        )
        n = devices.count
        ideal = 2 * (n - 1) / n * planned.gradients()
        say(
            f"communicated  {_size(found.sent)} sent by a device in a step; the gradients alone "
            f"are {_size(planned.gradients())}, and data parallelism sends {_size(ideal)} for them"
            if n > 1
            else "communicated  nothing, there is one device"
        )

    compiled = {each: found}

    def needed(size: int) -> int | None:
        if size not in compiled:
            compiled[size] = planned.compile(size * devices.count)
        one = compiled[size]
        return None if one is None else one.memory

    fits, fails = largest(needed, each, where.usable, compilations)
    count = devices.count
    most = f"{fits} clips on a device, {fits * count} in all" if fits else "not even one clip"
    say(
        f"largest       {most}"
        + (f"; {fails} on a device do not fit" if fails and fits else "")
        + ("; no limit was found" if fails is None else "")
    )
    say(
        f"{len(compiled)} programs compiled with jax {jax.__version__} in "
        f"{time.perf_counter() - began:.0f} s; nothing was run."
    )


def _classes(config: Config, say: Callable[[str], None]) -> int:
    """The classes of a configuration's dataset, as far as they are known without its clips."""
    if config.data.dataset == "moving_shapes":
        from experiments.datasets.moving_shapes import CLASSES as known

        return len(known[config.data.task])
    say(f"{CLASSES} classes are assumed; they matter to the last layer alone.")
    return CLASSES


def _plural(count: int, what: str) -> str:
    return what if count == 1 else f"{what}s"


def _size(number: float) -> str:
    """Bytes as people read them."""
    for unit, name in ((GIB, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if number >= unit:
            return f"{number / unit:.2f} {name}"
    return f"{number:.0f} bytes"
