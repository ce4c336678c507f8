"""The program of a search: one train step and one evaluation for all members.

Members differ in numbers only, which are arrays here. They read the same batches, or each its own
of a few streams of them, one for each seed and fold. Batches have the smallest size that a member
wants; a member that wants k times as many clips takes k of them for each update. A member whose
loss is not finite stops where it is and harms no other.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from experiments import train
from experiments.config import Config, changed
from experiments.part import Part
from experiments.train import Batch, TrainState
from experiments.trials import Run, structure

AXIS = "devices"


class Members(NamedTuple):
    """What does not change while members are trained; every array has an entry for each.

    varying: those of `train.Numbers` in which they differ. stream, held: which of the streams of
    training and of validation batches a member reads. limit: steps of an epoch that count for it,
    0 once it has finished.
    """

    varying: dict[str, Array]
    stream: Int[Array, "k"]
    held: Int[Array, "k"]
    limit: Int[Array, "k"]


class Carry(NamedTuple):
    """What changes; every array has an entry for each member.

    alive: whether every loss was finite so far. loss, top1: sums over the steps of the epoch.
    """

    state: TrainState
    alive: Bool[Array, "k"]
    loss: Float[Array, "k"]
    top1: Float[Array, "k"]


@dataclasses.dataclass(frozen=True)
class Program:
    """What the runs of a group have in common.

    config: of any run, with the largest dropout. fixed: the numbers that all share. parts: steps
    of the largest batch; whatever a member wants divides it.
    """

    config: Config
    model: Any
    classes: int
    fixed: train.Numbers
    batch_size: int
    parts: int

    def init(self, varying: dict[str, Array]) -> Carry:
        """Members that have seen nothing, their initial parameters drawn from their seeds or those
        of published weights."""

        def one(varying: dict[str, Array]) -> TrainState:
            given, weights = self.fixed._replace(**varying), self.config.model.pretrained
            state = train.init_state(self.model, self.config, given)
            return train.start_from(state, weights) if weights else state

        count = len(next(iter(varying.values())))
        zero = jnp.zeros(count)
        return Carry(jax.vmap(one)(varying), jnp.ones(count, bool), zero, zero)

    def advance(
        self,
        carry: Carry,
        members: Members,
        batch: Batch,
        first: Int[Array, ""],
        number: Int[Array, ""],
    ) -> Carry:
        """All members after one step, of which `parts` use a batch.

        It is a program of one step and not a scan over them, in which XLA's CPU backend computes
        convolutions by plain loops, dozens of times slower.

        Args:
            batch: clip uint8 [s n t h w c] and label int32 [s n] for s streams and n =
                parts * batch_size.
            first: number of the first of these steps in the epoch.
            number: which of them this is, counted from 0.
        """
        single = len(batch["label"]) == 1

        def one(state: Any, alive: Array, varying: Any, stream: Array, limit: Array) -> Any:
            # One stream is not indexed: then what depends on clips alone is computed once for all.
            own = {name: x[0] if single else x[stream] for name, x in batch.items()}
            counts = alive & (first + number < limit)
            return self._step(self.fixed._replace(**varying), own, counts, number, state)

        state, diverged, loss, top1 = jax.vmap(one)(
            carry.state, carry.alive, members.varying, members.stream, members.limit
        )
        return Carry(state, carry.alive & ~diverged, carry.loss + loss, carry.top1 + top1)

    def _step(
        self, given: train.Numbers, batch: Batch, counts: Array, number: Array, state: Any
    ) -> tuple[Any, Array, Array, Array]:
        """One step of one member where it counts, which it does until the member has stopped or is
        done with the epoch: its state, whether it diverged, and loss and top1."""
        size = self.batch_size
        taken, part = batch, None
        if self.parts > 1:
            taken = {
                name: jax.lax.dynamic_slice_in_dim(x, number * size, size)
                for name, x in batch.items()
            }
            part = self._part(given, batch, number)
        new, values = train.train_step(
            self.model, self.config, self.classes, given, state, taken, part
        )
        finite = jnp.isfinite(values["loss"])
        counted = counts & finite
        return (
            jax.tree.map(lambda a, b: jnp.where(counted, a, b), new, state),
            counts & ~finite,
            jnp.where(counted, values["loss"], 0),
            jnp.where(counted, values["top1"], 0),
        )

    def _part(self, given: train.Numbers, batch: Batch, number: Array) -> Part:
        """Which part of a member's own batch step `number` is."""
        size = self.batch_size
        first = number % given.parts * size
        start = number * size - first
        previous_row = jnp.where(first == 0, given.parts * size, first) - 1

        def previous(clips: Array, targets: Array) -> tuple[Array, Array]:
            row = start + previous_row
            return batch["clip"][row], jax.nn.one_hot(batch["label"][row], self.classes)

        return Part(self.parts * size, first, previous, previous_row)

    def evaluate(
        self, carry: Carry, members: Members, batch: Batch
    ) -> tuple[Float[Array, "k"], Float[Array, "k"]]:
        """Sums of the cross-entropy and of the right clips, for each member.

        Args:
            batch: clip uint8 [s b v t h w c], label and weight [s b].
        """
        single = len(batch["label"]) == 1

        def one(state: TrainState, held: Array) -> tuple[Array, Array]:
            own = {name: x[0] if single else x[held] for name, x in batch.items()}
            variables = train.evaluated_variables(state)
            found = train.eval_step(self.model, self.config, 1, variables, own["clip"])
            right = jnp.argmax(found, -1) == own["label"]
            loss = -jnp.take_along_axis(found, own["label"][:, None], 1)[:, 0]
            return (loss * own["weight"]).sum(), (right * own["weight"]).sum()

        return jax.vmap(one)(carry.state, members.held)


def program(runs: Sequence[Run], batch_size: int, clips: Sequence[int], classes: int) -> Program:
    """The program of the runs of a group, whose training splits have `clips` clips."""
    config = structure(runs[0].config)
    dropout = max(run.config.model.dropout for run in runs)
    config = changed(config, {"model.dropout": dropout, "batch_size": batch_size})
    numbers = [_numbers(run, batch_size, n) for run, n in zip(runs, clips, strict=True)]
    return Program(
        config=config,
        model=train.make_model(config, classes),
        classes=classes,
        fixed=numbers[0],
        batch_size=batch_size,
        parts=int(np.lcm.reduce([int(given.parts) for given in numbers])),
    )


def varying(runs: Sequence[Run], batch_size: int, clips: Sequence[int]) -> dict[str, np.ndarray]:
    """The numbers in which the runs of a group differ, each as an array; the seed at least."""
    numbers = [_numbers(run, batch_size, n) for run, n in zip(runs, clips, strict=True)]
    found = {}
    for name in train.Numbers._fields:
        values = [getattr(given, name) for given in numbers]
        if name == "seed" or len(set(values)) > 1:
            kind = np.float32 if isinstance(values[0], float) else np.int32
            found[name] = np.array(values, kind)
    return found


def _numbers(run: Run, batch_size: int, clips: int) -> train.Numbers:
    config = run.config
    given = train.numbers(config, clips // config.batch_size)
    if config.optim.schedule == "constant":  # its end is nowhere
        given = given._replace(updates=1 + given.warmup)
    return given._replace(parts=config.batch_size // batch_size)


class Population:
    """A program compiled for some members, spread over the devices of this process.

    Where `mapped`, all members of a device are one program, by vmap. On a CPU that is computed one
    member after the other, as fast as a program of one member that is called for each of them, and
    takes as many times as long to compile as there are members: so there the latter is done. What
    holds an entry for each member is then a list of trees that hold one.

    Args:
        mapped: None: as is best for the devices.
    """

    def __init__(
        self, program: Program, devices: Sequence[Any], mapped: bool | None = None
    ) -> None:
        self.program, self.devices = program, list(devices)
        several = len(self.devices) > 1
        self.mapped = several or self.devices[0].platform != "cpu" if mapped is None else mapped
        self._alone = jax.jit(program.advance, donate_argnums=0)
        if not several:
            self._train = self._alone
            self._evaluate = jax.jit(program.evaluate)
            self._init: Callable[..., Carry] = jax.jit(program.init)
            return
        mesh = jax.sharding.Mesh(np.array(self.devices), (AXIS,))
        self._everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        mapping = functools.partial(jax.pmap, axis_name=AXIS, devices=self.devices)
        axes = (0, 0, None, None, None)
        self._train = mapping(program.advance, in_axes=axes, donate_argnums=0)
        self._evaluate = mapping(program.evaluate, in_axes=(0, 0, None))
        self._init = mapping(program.init)

    def init(self, values: Any) -> Any:
        """Members that have seen nothing, from what `divide` makes of the numbers that vary."""
        return self._init(values) if self.mapped else [self._init(one) for one in values]

    def train(self, carry: Any, members: Any, batch: Batch, first: int) -> Any:
        """All members after the steps that use a batch; `first` is the first one's number in the
        epoch, and the other arguments are as for `Program.advance`."""

        def steps(carry: Carry, members: Members) -> Carry:
            for number in range(self.program.parts):
                carry = self._train(carry, members, batch, np.int32(first), np.int32(number))
            return carry

        if self.mapped:
            return steps(carry, members)
        return [steps(one, own) for one, own in zip(carry, members, strict=True)]

    def evaluate(self, carry: Any, members: Any, batch: Batch) -> Any:
        """What `Program.evaluate` gives."""
        if self.mapped:
            return self._evaluate(carry, members, batch)
        pairs = zip(carry, members, strict=True)
        return [self._evaluate(one, own, batch) for one, own in pairs]

    def begin_epoch(self, carry: Any) -> Any:
        """The members with sums of zero."""

        def without(carry: Carry) -> Carry:
            zero = jnp.zeros_like(carry.loss)
            return carry._replace(loss=zero, top1=jnp.copy(zero))

        return without(carry) if self.mapped else list(map(without, carry))

    def summary(self, carry: Any, members: int) -> Carry:
        """All but the states on the host; of these the steps."""

        def brief(carry: Carry) -> Carry:
            return carry._replace(state=carry.state.step)

        return self.gather(brief(carry) if self.mapped else list(map(brief, carry)), members)

    def bytes_needed(self, values: dict[str, np.ndarray], streams: int) -> int:
        """Memory that a device needs to train members of these values, found by compiling a step.

        On a single device this is the step that is then computed, and is not compiled again.
        """
        program, d = self.program, self.program.config.data
        count = len(values["seed"]) if self.mapped else 1
        shape = (streams, program.parts * program.batch_size)
        clip = (*shape, d.frames, d.decode_size, d.decode_size, 3)
        batch = {
            "clip": jax.ShapeDtypeStruct(clip, np.uint8),
            "label": jax.ShapeDtypeStruct(shape, np.int32),
        }
        shapes: Any = {
            name: jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype) for name, x in values.items()
        }
        one: Any = jax.ShapeDtypeStruct((count,), np.int32)
        members = Members(shapes, one, one, one)
        carry = jax.eval_shape(program.init, members.varying)
        number = jax.ShapeDtypeStruct((), np.int32)
        step = self._alone.lower(carry, members, batch, number, number).compile()
        others = (len(values["seed"]) - count) * sum(
            x.size * x.dtype.itemsize for x in jax.tree.leaves(carry)
        )
        return memory_needed(step.memory_analysis()) + others

    def most_members(self, values: dict[str, np.ndarray], streams: int, memory: int) -> int:
        """How many of the members fit together into `memory` bytes of a device; one at least."""
        count = len(values["seed"])
        while count > 1:
            some = {name: x[:count] for name, x in values.items()}
            needed = self.bytes_needed(some, streams)
            if needed <= memory:
                break
            count = max(1, min(count - 1, int(count * memory / needed)))
        return count

    def divide(self, tree: Any) -> Any:
        """Arrays with an entry for each member, on the devices; the last member fills up."""
        if not self.mapped:
            count = len(jax.tree.leaves(tree)[0])
            places = [slice(place, place + 1) for place in range(count)]
            return [jax.device_put(jax.tree.map(lambda x, p=p: x[p], tree)) for p in places]
        count = len(self.devices)
        if count == 1:
            return jax.device_put(tree)

        def put(x: np.ndarray) -> Array:
            fill = -len(x) % count
            x = np.concatenate([x, np.repeat(np.asarray(x)[-1:], fill, axis=0)])
            return jnp.asarray(x.reshape(count, -1, *x.shape[1:]))

        return jax.tree.map(put, tree)

    def share(self, batch: dict[str, np.ndarray]) -> dict[str, Array]:
        """A batch that all members read, on all devices."""
        if len(self.devices) == 1:
            return jax.device_put(batch)
        return jax.device_put(batch, self._everywhere)

    def state(self, carry: Any, place: int) -> TrainState:
        """The state of one member."""
        if not self.mapped:
            return jax.tree.map(lambda x: x[0], carry[place].state)
        if len(self.devices) == 1:
            return jax.tree.map(lambda x: x[place], carry.state)
        return jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:])[place], carry.state)

    def gather(self, tree: Any, members: int) -> Any:
        """The arrays of `members` members on the host, one entry each."""
        tree = jax.device_get(tree)
        if not self.mapped:
            return jax.tree.map(lambda *leaves: np.concatenate(leaves), *tree[:members])
        if len(self.devices) == 1:
            return jax.tree.map(lambda x: x[:members], tree)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:members], tree)


def memory_needed(use: Any) -> int:
    """Bytes on a device that a program with this `memory_analysis` takes, arguments included."""
    return (
        use.argument_size_in_bytes
        + use.output_size_in_bytes
        - use.alias_size_in_bytes
        + use.temp_size_in_bytes
    )


def memory_of(device: Any) -> int:
    """Bytes that a program may take on a device."""
    known = device.memory_stats() or {}
    if "bytes_limit" in known:
        return int(0.9 * known["bytes_limit"])
    # The host's own memory, of which decoded clips and other processes need a part.
    return int(0.5 * os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
