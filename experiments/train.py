"""What training computes: the state, one step of it, and one evaluation step, as pure functions.

There is one train step. A single run compiles it with its hyperparameters as constants; on several
devices (`experiments.parallel`) it runs on a part of each batch under an axis name; in a search
(`experiments.grid`) it is mapped over members, whose hyperparameters are arrays.

Files, signals, the terminal and the loop over epochs are in `experiments.fit`.
"""

import contextlib
import dataclasses
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

import zoo
from experiments import finetune
from experiments.config import Config, ConfigError, Model, Optim
from experiments.part import Part, dropout_of
from zoo import layers, registry
from zoo.video import transform
from zoo.video.policy import is_off, is_plain

Batch = dict[str, Any]
Number = float | Array


class TrainState(NamedTuple):
    """All that a step changes. `ema` is empty unless a moving average is kept."""

    step: Int[Array, ""]
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any


class Numbers(NamedTuple):
    """The hyperparameters that are only numbers: plain in a single run, arrays in a search.

    updates, warmup: in updates of the parameters. parts: steps that make up one batch; a member of
    a search that wants larger batches than the others takes several.
    """

    seed: int | Array
    learning_rate: Number
    weight_decay: Number
    label_smoothing: Number
    dropout: Number
    mixup: Number
    strength: Number
    updates: int | Array
    warmup: int | Array
    parts: int | Array = 1


def numbers(config: Config, steps_per_epoch: int) -> Numbers:
    """The numbers of a configuration."""
    optim = config.optim
    updates = max(1, steps_per_epoch * config.epochs // optim.accumulate)
    return Numbers(
        seed=config.seed,
        learning_rate=optim.learning_rate,
        weight_decay=optim.weight_decay,
        label_smoothing=optim.label_smoothing,
        dropout=config.model.dropout,
        mixup=config.augment.mixup,
        strength=config.augment.strength,
        updates=updates,
        warmup=min(round(optim.warmup_epochs * steps_per_epoch / optim.accumulate), updates - 1),
    )


def learning_rate(optim: Optim, given: Numbers) -> optax.Schedule:
    """Learning rate as a function of the number of updates."""

    def rate(count: Any) -> Any:
        factor = jnp.float32(1)
        if optim.schedule == "cosine":
            done = (count - given.warmup) / (given.updates - given.warmup)
            factor = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(done, 0, 1)))
        if not is_off(given.warmup):
            # Starts above zero: a first update of exactly zero would be a batch thrown away.
            rising = (count + 1) / jnp.maximum(given.warmup, 1)
            factor = jnp.where(count < given.warmup, rising, factor)
        return given.learning_rate * factor

    return rate


def make_optimizer(
    optim: Optim, given: Numbers, per_block: optax.GradientTransformation | None = None
) -> optax.GradientTransformation:
    """The optimizer of a configuration, with clipping, weight decay and accumulation.

    per_block: what is done to the updates before the learning rate.
    """

    def kernels(params: Any) -> Any:  # biases and scales have one dimension
        return jax.tree.map(lambda p: p.ndim > 1, params)

    # optax declares a number; an array works as well.
    weight_decay: Any = given.weight_decay
    decay = [] if is_off(weight_decay) else [optax.add_decayed_weights(weight_decay, mask=kernels)]
    chain = [optax.clip_by_global_norm(optim.clip_norm)] if optim.clip_norm else []
    match optim.optimizer:
        case "adam":
            chain += [*decay, optax.scale_by_adam()]
        case "adamw":
            chain += [optax.scale_by_adam(), *decay]
        case "sgd":
            chain += [*decay, optax.trace(0.9, nesterov=True)]
    rate = optax.scale_by_learning_rate(learning_rate(optim, given))
    optimizer = optax.chain(*chain, *([per_block] if per_block else []), rate)
    every = optim.accumulate * given.parts
    if is_plain(every) and every == 1:
        return optimizer
    schedule: Any = every if is_plain(every) else lambda count: every
    return optax.MultiSteps(optimizer, schedule).gradient_transformation()


def apply_updates(params: Any, updates: Any) -> Any:
    """params plus updates, where a program that may overwrite params does so without a copy.

    Nothing in one layer's update tells that the gradients of the other layers, for which its
    parameters are read too, are done. XLA for CPUs then copies all parameters at the start of a
    step, to be free to overwrite them. So each waits here for a number of every update.
    """
    # XLA keeps this product, which might be NaN; as an integer that is 0.
    numbers = [leaf.ravel()[0].astype(jnp.float32) * 0 for leaf in jax.tree.leaves(updates)]
    one = 1 + jnp.stack(numbers).sum().astype(jnp.int32)
    return optax.apply_updates(params, jax.tree.map(lambda u: u * one.astype(u.dtype), updates))


def make_model(config: Config, classes: int) -> Any:
    """The Flax module of a configuration, made for its clips.

    Raises:
        ValueError: there is no model of that name (answered with the nearest), or it has no such
            setting.
    """
    wanted = config.model
    overrides: dict[str, Any] = {"frames": config.data.frames, "size": config.data.size}
    if wanted.pretrained:
        overrides = {**registry.weights_spec(wanted.pretrained).overrides, **overrides}
    overrides["dropout"] = wanted.dropout
    # Not every model has these; one that is asked for and does not exist is an error.
    for field in dataclasses.fields(Model):
        value = getattr(wanted, field.name)
        if field.name in ("drop_path", "remat", "activation") and value != field.default:
            overrides[field.name] = value
    return zoo.create_model(wanted.name, num_classes=classes, dtype=wanted.dtype, **overrides)


def init_state(model: Any, config: Config, given: Numbers) -> TrainState:
    """Random parameters and an optimizer that has seen nothing."""
    d = config.data
    clip = jnp.zeros((1, d.frames, d.size, d.size, 3), jnp.float32)
    variables = model.init(jax.random.key(given.seed), clip, train=False)
    params = variables["params"]
    trained, _ = finetune.split(params, finetune.trained(model, config))
    optimizer = make_optimizer(config.optim, given, finetune.layer_decay(model, config))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(trained),
        # A copy: the state is donated, and one buffer cannot be donated twice.
        ema=jax.tree.map(jnp.copy, params) if config.optim.ema_decay else {},
    )


def train_step(
    model: Any,
    config: Config,
    classes: int,
    given: Numbers,
    state: TrainState,
    batch: Batch,
    part: Part | None = None,
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """One update from a batch of `clip` uint8 [b t h w c] and `label` int32 [b].

    The randomness of step n depends on the seed and on n alone, so that a run continues exactly,
    and that of a clip on its position in the whole batch, so that it does not matter how a batch
    is divided.

    Args:
        given: the numbers of `config`, which holds everything else.
        batch: also `weight` float32 [b], 0 for clips that do not count, where there are such.
        part: which part of the whole batch this is; None: all of it.

    Returns:
        The state after the step, and loss, top1 and grad_norm of the whole batch: of this step's
        clips where a batch takes several steps.
    """
    divided = not is_plain(given.parts) or given.parts > 1
    number = state.step // given.parts if divided else state.step
    key = jax.random.fold_in(jax.random.key(given.seed), number)
    augment_key, dropout_key = jax.random.split(key)
    axis_name = part.axis_name if part else None
    targets = jax.nn.one_hot(batch["label"], classes)
    policy = dataclasses.replace(config.augment, mixup=given.mixup, strength=given.strength)
    clips, targets = _augmented(augment_key, batch["clip"], targets, policy, config, part)
    smoothed = targets
    if not is_off(given.label_smoothing):
        smoothed = optax.smooth_labels(targets, given.label_smoothing)
    weight = batch.get("weight")
    total = jnp.float32(len(batch["label"])) if weight is None else weight.sum()
    if axis_name:
        total = jax.lax.psum(total, axis_name)

    def mean(values: Float[Array, "b"]) -> Float[Array, ""]:  # this part's share of it
        if weight is None and not axis_name:
            return values.mean()
        return (values if weight is None else values * weight).sum() / total

    names = finetune.trained(model, config)
    trained, frozen = finetune.split(state.params, names)

    def loss_of(trained: Any) -> tuple[Float[Array, ""], tuple[Array, Any]]:
        mask = None if weight is None else weight > 0
        with contextlib.ExitStack() as stack:
            stack.enter_context(layers.batch_statistics(axis_name, mask, names is not None))
            if part or not is_plain(given.dropout):
                stack.enter_context(dropout_of(given.dropout, config.model.dropout, part, clips))
            logits, updated = model.apply(
                {"params": {**frozen, **trained}, "batch_stats": state.batch_stats},
                clips,
                train=True,
                rngs={"dropout": dropout_key},
                mutable=["batch_stats"],
            )
        loss = mean(optax.softmax_cross_entropy(logits, smoothed))
        return loss, (logits, updated.get("batch_stats", {}))

    (loss, (logits, batch_stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(trained)
    top1 = mean(jnp.argmax(logits, -1) == jnp.argmax(targets, -1))
    if axis_name:
        grads, loss, top1 = jax.lax.psum((grads, loss, top1), axis_name)
    optimizer = make_optimizer(config.optim, given, finetune.layer_decay(model, config))
    updates, opt_state = optimizer.update(grads, state.opt_state, trained)
    params = frozen | cast(dict, apply_updates(trained, updates))
    ema = state.ema
    if config.optim.ema_decay:
        # Early averages forget faster, or the random start would be evaluated for long.
        decay = jnp.minimum(config.optim.ema_decay, (1 + number) / (10 + number))
        if divided:  # once for each batch, with its last part
            decay = jnp.where((state.step + 1) % given.parts == 0, decay, 1.0)
        ema = optax.incremental_update(params, ema, 1 - decay)
    values = {"loss": loss, "top1": top1, "grad_norm": optax.tree.norm(grads)}
    return TrainState(state.step + 1, params, batch_stats, opt_state, ema), values


def _augmented(
    key: PRNGKeyArray, clips: Array, targets: Array, policy: Any, config: Config, part: Part | None
) -> tuple[Array, Array]:
    """The augmented clips, float32 [b t h w c], and their targets [b k]."""
    size = config.data.size
    if part is None:
        return transform.augment_batch(key, clips, targets, policy, size)
    if not transform.mixes(policy):
        rows = part.rows(len(clips))
        return transform.augment_batch(key, clips, targets, policy, size, rows)
    # A clip is mixed with the one before it, and that of the first is in another part.
    clips, targets, rows = part.with_previous(clips, targets)
    clips, targets = transform.augment_batch(key, clips, targets, policy, size, rows)
    return clips[1:], targets[1:]


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


def check_weights(state: TrainState, name: str) -> dict[str, Any]:
    """The variables of the published weights `name`, which fit a state of these shapes.

    Raises:
        ConfigError: there are no such weights, they cannot be had, or they do not fit the model;
            every name that differs is listed.
    """
    try:
        given = zoo.load_pretrained(name).variables
    except ValueError as error:
        raise ConfigError(f"model.pretrained: {error}.") from error
    wrong: set[str] = set()
    for kind in ("params", "batch_stats"):
        own, new = _leaves(getattr(state, kind)), _leaves(given.get(kind, {}))
        for path in own.keys() | new.keys():
            shapes = {jnp.shape(leaves[path]) for leaves in (own, new) if path in leaves}
            text = jax.tree_util.keystr(path, simple=True, separator="/")
            missing = path not in own or path not in new
            if (missing or len(shapes) > 1) and not text.startswith(f"{finetune.HEAD}/"):
                wrong.add(text)
    if wrong:
        raise ConfigError(
            f"The weights {name!r} do not fit the model: {', '.join(sorted(wrong))} differ; choose "
            "the model, clip size and activation that they were trained with."
        )
    return given


def start_from(state: TrainState, name: str) -> TrainState:
    """`state` with the parameters of the published weights `name`.

    The last layer stays random where its shape differs (other classes).

    Raises:
        ConfigError: as `check_weights`.
    """
    given = check_weights(state, name)

    def merge(own: Any, new: Any) -> Any:
        leaves = _leaves(new)

        def choose(path: Any, leaf: Array) -> Array:
            found = leaves.get(path)
            fits = found is not None and found.shape == leaf.shape
            return jnp.array(found if fits else leaf, leaf.dtype)

        return jax.tree_util.tree_map_with_path(choose, own)

    params = merge(state.params, given["params"])
    batch_stats = merge(state.batch_stats, given.get("batch_stats", {}))
    ema = jax.tree.map(jnp.copy, params) if state.ema else {}
    return state._replace(params=params, batch_stats=batch_stats, ema=ema)


def _leaves(tree: Any) -> dict[Any, Any]:
    return dict(jax.tree_util.tree_leaves_with_path(tree))
