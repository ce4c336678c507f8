"""What training computes: the state, one step of it, and one evaluation step, as pure functions.

Files, signals, the terminal and the loop over epochs are in `experiments.fit`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

import zoo
from experiments.config import Config, ConfigError, Optim
from zoo.video import transform

Batch = dict[str, Any]


class TrainState(NamedTuple):
    """All that a step changes. `ema` is empty unless a moving average is kept."""

    step: Int[Array, ""]
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any


def learning_rate(optim: Optim, steps_per_epoch: int, epochs: int) -> optax.Schedule:
    """Learning rate as a function of the number of updates."""
    total = max(1, steps_per_epoch * epochs // optim.accumulate)
    warmup = min(round(optim.warmup_epochs * steps_per_epoch / optim.accumulate), total - 1)
    after = (
        optax.cosine_decay_schedule(optim.learning_rate, total - warmup)
        if optim.schedule == "cosine"
        else optax.constant_schedule(optim.learning_rate)
    )
    if not warmup:
        return after
    # Starts above zero: a first update of exactly zero would be a batch thrown away.
    rise = optax.linear_schedule(optim.learning_rate / warmup, optim.learning_rate, warmup - 1)
    return optax.join_schedules([rise, after], [warmup])


def make_optimizer(optim: Optim, schedule: optax.Schedule) -> optax.GradientTransformation:
    """The optimizer of a configuration, with clipping, weight decay and accumulation."""

    def kernels(params: Any) -> Any:  # biases and scales have one dimension
        return jax.tree.map(lambda p: p.ndim > 1, params)

    decay = (
        [optax.add_decayed_weights(optim.weight_decay, mask=kernels)] if optim.weight_decay else []
    )
    chain = [optax.clip_by_global_norm(optim.clip_norm)] if optim.clip_norm else []
    match optim.optimizer:
        case "adam":
            chain += [*decay, optax.scale_by_adam()]
        case "adamw":
            chain += [optax.scale_by_adam(), *decay]
        case "sgd":
            chain += [*decay, optax.trace(0.9, nesterov=True)]
    optimizer = optax.chain(*chain, optax.scale_by_learning_rate(schedule))
    if optim.accumulate > 1:
        return optax.MultiSteps(optimizer, optim.accumulate).gradient_transformation()
    return optimizer


def make_model(config: Config, classes: int) -> Any:
    """The Flax module of a configuration.

    Raises:
        ValueError: there is no model of that name (answered with the nearest), or it has no such
            setting.
    """
    return zoo.create_model(
        config.model.name,
        num_classes=classes,
        dtype=config.model.dtype,
        activation=config.model.activation,
        dropout=config.model.dropout,
    )


def init_state(
    model: Any, optimizer: optax.GradientTransformation, config: Config, key: PRNGKeyArray
) -> TrainState:
    """Random parameters and an optimizer that has seen nothing."""
    d = config.data
    clip = jnp.zeros((1, d.frames, d.size, d.size, 3), jnp.float32)
    variables = model.init(key, clip, train=False)
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(params),
        # A copy: the state is donated, and one buffer cannot be donated twice.
        ema=jax.tree.map(jnp.copy, params) if config.optim.ema_decay else {},
    )


def train_step(
    model: Any,
    optimizer: optax.GradientTransformation,
    config: Config,
    classes: int,
    state: TrainState,
    batch: Batch,
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """One update from a batch of `clip` uint8 [b t h w c] and `label` int32 [b].

    The randomness of step n depends on the seed and on n alone, so that a run continues exactly.
    """
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    augment_key, dropout_key = jax.random.split(key)
    targets = jax.nn.one_hot(batch["label"], classes)
    clips, targets = transform.augment_batch(
        augment_key, batch["clip"], targets, config.augment, config.data.size
    )
    smoothed = optax.smooth_labels(targets, config.optim.label_smoothing)

    def loss_of(params: Any) -> tuple[Float[Array, ""], tuple[Array, Any]]:
        logits, updated = model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            clips,
            train=True,
            rngs={"dropout": dropout_key},
            mutable=["batch_stats"],
        )
        loss = optax.softmax_cross_entropy(logits, smoothed).mean()
        return loss, (logits, updated.get("batch_stats", {}))

    (loss, (logits, batch_stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if config.optim.ema_decay:
        # Early averages forget faster, or the random start would be evaluated for long.
        decay = jnp.minimum(config.optim.ema_decay, (1 + state.step) / (10 + state.step))
        ema = optax.incremental_update(params, ema, 1 - decay)
    top1 = jnp.mean(jnp.argmax(logits, -1) == jnp.argmax(targets, -1))
    values = {"loss": loss, "top1": top1, "grad_norm": optax.tree.norm(grads)}
    return TrainState(state.step + 1, params, batch_stats, opt_state, ema), values


def eval_step(
    model: Any, config: Config, crops: int, variables: Any, clip: Array
) -> Float[Array, "b n"]:
    """Log-probabilities of clips uint8 [b v t h w c], averaged over the views v and the crops."""

    def views_of(one: Array) -> Array:  # uint8 [t h w c] to float32 [s t h w c]
        return transform.prepare(one, config.augment, config.data.size, spatial_views=crops)

    clips = jax.vmap(jax.vmap(views_of))(clip)  # [b v s t h w c]
    b, v, s = clips.shape[:3]
    logits = model.apply(variables, clips.reshape(b * v * s, *clips.shape[3:]), train=False)
    probabilities = jax.nn.softmax(logits).reshape(b, v * s, -1).mean(1)
    return jnp.log(jnp.maximum(probabilities, 1e-30))


def evaluated_variables(state: TrainState) -> dict[str, Any]:
    """What evaluation uses: the moving average where one is kept, else the parameters."""
    variables = {"params": state.ema or state.params}
    return variables | ({"batch_stats": state.batch_stats} if state.batch_stats else {})


def start_from(state: TrainState, name: str) -> TrainState:
    """`state` with the parameters of the published weights `name`.

    The last layer stays random where its shape differs (other classes).

    Raises:
        ConfigError: the weights do not fit the model; every name that differs is listed.
    """
    given = zoo.load_pretrained(name)
    wrong: list[str] = []

    def merge(own: Any, new: Any) -> Any:
        own_leaves = dict(jax.tree_util.tree_leaves_with_path(own))
        new_leaves = dict(jax.tree_util.tree_leaves_with_path(new))
        for path in own_leaves.keys() | new_leaves.keys():
            shapes = [jnp.shape(x[path]) for x in (own_leaves, new_leaves) if path in x]
            text = jax.tree_util.keystr(path, simple=True, separator="/")
            if (len(shapes) < 2 or shapes[0] != shapes[1]) and not text.startswith("head/"):
                wrong.append(text)

        def choose(path: Any, own: Array) -> Array:
            new = new_leaves.get(path)
            return jnp.array(own if new is None or new.shape != own.shape else new, own.dtype)

        return jax.tree_util.tree_map_with_path(choose, own)

    params = merge(state.params, given.variables["params"])
    batch_stats = merge(state.batch_stats, given.variables.get("batch_stats", {}))
    if wrong:
        raise ConfigError(
            f"The weights {name!r} do not fit the model: {', '.join(sorted(wrong))} differ; choose "
            "the model, clip size and activation that they were trained with."
        )
    ema = jax.tree.map(jnp.copy, params) if state.ema else {}
    return state._replace(params=params, batch_stats=batch_stats, ema=ema)
