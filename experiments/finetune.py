"""Which of a model's blocks are trained, and how fast each.

A block is an entry at the top of the model's parameters: a residual block, a stem, a position
embedding. They are ordered as the model makes them, which is from the clips to the logits.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.config import Config, ConfigError
from zoo.weights.spec import WeightsSpec

HEAD = "head"


def blocks(model: Any, config: Config) -> tuple[str, ...]:
    """The names of the model's blocks in order of depth, the last layer at the end."""
    d = config.data
    clip = jax.ShapeDtypeStruct((1, d.frames, d.size, d.size, 3), jnp.float32)
    names: list[str] = []

    def init(clip: jax.Array) -> None:  # a traced dict is still in the order of its making
        names.extend(model.init(jax.random.key(0), clip)["params"])

    jax.eval_shape(init, clip)
    return (*(name for name in names if name != HEAD), HEAD)


def trained(model: Any, config: Config) -> frozenset[str] | None:
    """The blocks that are trained; None for all of them.

    Raises:
        ConfigError: the model has fewer blocks than are to be trained.
    """
    count = config.optim.trained_blocks
    if count < 0:
        return None
    *others, head = blocks(model, config)
    if count > len(others):
        raise ConfigError(
            f"optim.trained_blocks is {count}, but {config.model.name} has {len(others)} blocks "
            "before its last layer; set at most that, or -1 for all."
        )
    return frozenset((*others[len(others) - count :], head))


def split(params: Any, names: frozenset[str] | None) -> tuple[Any, Any]:
    """Parameters that are trained, and the others."""
    if names is None:
        return params, {}
    return (
        {name: value for name, value in params.items() if name in names},
        {name: value for name, value in params.items() if name not in names},
    )


def layer_decay(model: Any, config: Config) -> optax.GradientTransformation | None:
    """Scales updates by `optim.layer_decay` for each block between a block and the logits; None
    where that is 1.

    Bao et al. 2022, BEiT, with a layer for each block.
    """
    if config.optim.layer_decay == 1:
        return None
    names = blocks(model, config)
    factors: Mapping[str, float] = {
        name: config.optim.layer_decay**depth for depth, name in enumerate(reversed(names))
    }

    def scale(updates: Any, params: Any = None) -> Any:
        return {
            name: jax.tree.map(lambda update, by=factors[name]: by * update, block)
            for name, block in updates.items()
        }

    return optax.stateless(scale)


def other_input(config: Config, spec: WeightsSpec) -> list[str]:
    """A sentence for each way in which clips are prepared otherwise than for these weights."""
    found = []
    for name in ("mean", "std"):
        own, wanted = getattr(config.augment, name), getattr(spec, name)
        if own != wanted:
            values = " ".join(f"{value:g}" for value in wanted)
            found.append(
                f"The weights were trained with another {name}: --augment.{name} {values} is "
                "what they know."
            )
    return found
