"""One train step on all devices: of this process by `jax.pmap`, of several hosts together.

Parameters are the same on every device; a batch is divided, padded with clips of weight 0 where it
does not divide evenly. Gradients and metrics are those of the whole batch, batch statistics are
taken over it, and a clip's random changes depend on its position in it: how many devices there are
changes the speed and, but for rounding, nothing else. On a single device the step is compiled as it
is, without any of this.

`jax.pmap` is `jax.jit` of `jax.shard_map` over a mesh of one axis. With several processes it would
also copy every argument between local and global arrays in each call, so that there the two are
called without it. The state is an ordinary array either way, replicated and not stacked, so that a
checkpoint does not know how many devices wrote it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from experiments.part import Part

AXIS = "devices"

Step = Callable[[Any, dict[str, Any], Part | None], tuple[Any, dict[str, Any]]]
Evaluate = Callable[[Any, Array], Array]


class Devices:
    """The devices that a run computes on, and how its steps are put on them.

    Args:
        devices: all of this run, of all hosts; every host has equally many.
    """

    def __init__(self, devices: Sequence[Any] | None = None) -> None:
        self.devices = list(devices or jax.devices())
        self.count = len(self.devices)
        self.hosts = len({device.process_index for device in self.devices})
        self.host = jax.process_index() if self.hosts > 1 else 0
        mesh = Mesh(np.array(self.devices), (AXIS,))
        self._mesh = mesh
        self._everywhere = NamedSharding(mesh, PartitionSpec())
        self._divided = NamedSharding(mesh, PartitionSpec(AXIS))

    def each(self, batch_size: int) -> int:
        """Clips of a batch that one device gets."""
        return -(-batch_size // self.count)

    def replicate(self, tree: Any) -> Any:
        """`tree`, whose arrays every host has, on every device."""
        if self.count == 1:
            return jax.device_put(tree, self.devices[0])
        if self.hosts == 1:
            return jax.device_put(tree, self._everywhere)

        def put(leaf: Any) -> jax.Array:
            leaf = np.asarray(leaf)
            return jax.make_array_from_callback(leaf.shape, self._everywhere, lambda i: leaf[i])

        return jax.tree.map(put, tree)

    def put(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """This host's rows of a batch, in equal parts on its devices."""
        if self.count == 1:
            return jax.device_put(batch, self.devices[0])
        local = self.count // self.hosts

        def put(rows: np.ndarray) -> jax.Array:
            if self.hosts == 1:  # one entry of the first axis for each device, as pmap takes it
                rows = rows.reshape(local, -1, *rows.shape[1:])
            return jax.make_array_from_process_local_data(self._divided, rows)

        return {name: put(rows) for name, rows in batch.items()}

    def train_step(self, step: Step, batch_size: int) -> Callable[[Any, Any], tuple[Any, Any]]:
        """`step(state, batch, part)` compiled for all devices, as a function of state and batch.

        The state is donated. A batch may also hold `stop`, a number for each device: their sum
        comes back among the values, so that all hosts know what one was asked.
        """
        return self._mapped(self._one(step, batch_size), donate=True)

    def lower(self, step: Step, state: Any, batch: Any, batch_size: int) -> Any:
        """The train step lowered for these devices, none of which needs to be here.

        Args:
            step: as for `train_step`.
            state: shapes and types of what every device holds.
            batch: those of a whole batch, padded to equal parts.
            batch_size: clips in it without the padding.
        """

        def placed(tree: Any, where: NamedSharding) -> Any:
            return jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree
            )

        one = self._one(step, batch_size)
        compiled = jax.jit(one if self.count == 1 else self._sharded(one), donate_argnums=0)
        return compiled.lower(placed(state, self._everywhere), placed(batch, self._divided))

    def _one(self, step: Step, batch_size: int) -> Callable[[Any, Any], tuple[Any, Any]]:
        """What each device computes in a train step."""
        if self.count == 1:
            return lambda state, batch: step(state, batch, None)

        def one(state: Any, batch: dict[str, Array]) -> tuple[Any, dict[str, Array]]:
            stop = batch.pop("stop", None)
            state, values = step(state, batch, self._part(batch_size))
            if stop is not None:
                values["stop"] = jax.lax.psum(stop.sum(), AXIS)
            return state, values

        return one

    def eval_step(self, evaluate: Evaluate) -> Callable[[Any, Any], dict[str, Any]]:
        """`evaluate(variables, clip)` compiled for all devices, as a function of variables and
        batch: its results for the whole batch, with the labels and weights of all hosts."""

        def one(variables: Any, batch: dict[str, Array]) -> dict[str, Array]:
            found = {
                "log_probabilities": evaluate(variables, batch["clip"]),
                "label": batch["label"],
                "weight": batch["weight"],
            }
            if self.count == 1:
                return found
            return jax.lax.all_gather(found, AXIS, tiled=True)

        return self._mapped(one, donate=False)

    def _mapped(self, function: Callable[[Any, Any], Any], donate: bool) -> Callable[..., Any]:
        """A function of what all devices hold and of a divided batch, to what all then hold."""
        donated = (0,) if donate else ()
        if self.count == 1:
            return jax.jit(function, donate_argnums=donated)
        if self.hosts == 1:
            return jax.pmap(
                function,
                axis_name=AXIS,
                in_axes=(None, 0),
                out_axes=None,
                devices=self.devices,
                donate_argnums=donated,
            )
        return jax.jit(self._sharded(function), donate_argnums=donated)

    def _sharded(self, function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """The function of arrays that are spread over all devices, those of other hosts too."""
        return jax.shard_map(
            function,
            mesh=self._mesh,
            in_specs=(PartitionSpec(), PartitionSpec(AXIS)),
            out_specs=PartitionSpec(),
            check_vma=False,
        )

    def _part(self, batch_size: int) -> Part:
        """The part of a batch that a device computes, inside of a mapped function."""
        each = self.each(batch_size)
        last, place = divmod(batch_size - 1, each)  # where the batch's last clip is
        index = jax.lax.axis_index(AXIS)

        def previous(clips: Array, targets: Array) -> tuple[Array, Array]:
            at = jnp.where(index == last, place, each - 1)
            ring = [(device, (device + 1) % (last + 1)) for device in range(last + 1)]
            return jax.lax.ppermute((clips[at], targets[at]), AXIS, ring)

        first = index * each
        previous_row = jnp.where(index == 0, batch_size - 1, first - 1)
        return Part(each * self.count, first, previous, previous_row, AXIS)
