"""The train step: what it optimises, and that it repeats itself exactly."""

import dataclasses
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import zoo
from experiments import train
from experiments.config import Config, Data, Optim
from zoo.video.policy import Augmentation

CLASSES = 3
CONFIG = Config(
    data=Data(frames=2, size=24, decode_size=26),
    augment=Augmentation(crop="random", horizontal_flip=0.5),
    optim=Optim(learning_rate=3e-3, label_smoothing=0.1),
    batch_size=6,
)


def setup(config: Config):
    model = zoo.create_model("cnn_small", num_classes=CLASSES, hidden=16)
    given = train.numbers(dataclasses.replace(config, epochs=2), steps_per_epoch=10)
    state = train.init_state(model, config, given)
    step = jax.jit(lambda s, b: train.train_step(model, config, CLASSES, given, s, b))
    return model, state, step


def batch(seed: int = 0) -> dict:
    """Clips whose class is their colour channel."""
    rng = np.random.default_rng(seed)
    label = np.arange(6, dtype=np.int32) % CLASSES
    clip = rng.integers(0, 80, (6, 2, 26, 26, 3)).astype(np.uint8)
    clip[np.arange(6), ..., label] += 120
    return {"clip": clip, "label": label}


def leaves(tree) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


@pytest.mark.parametrize(
    "optimizer",
    ["adam", *(pytest.param(name, marks=pytest.mark.slow) for name in ("adamw", "sgd"))],
)
def test_it_learns_and_repeats_itself(optimizer: str) -> None:
    optim = dataclasses.replace(CONFIG.optim, optimizer=optimizer, weight_decay=1e-4, ema_decay=0.9)
    config = dataclasses.replace(CONFIG, optim=optim)
    _, first, step = setup(config)
    losses = []
    state = first
    for i in range(30):
        state, values = step(state, batch(i))
        losses.append(float(values["loss"]))
    assert losses[-1] < 0.8 * losses[0]
    again = first
    for i in range(30):
        again, _ = step(again, batch(i))
    for a, b in zip(leaves(state), leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_step_number_alone_decides_the_randomness() -> None:
    _, state, step = setup(CONFIG)
    _, one = step(state, batch())
    _, other = step(state._replace(step=jnp.int32(1)), batch())
    assert float(one["loss"]) != float(other["loss"])


def test_the_loss_is_the_smoothed_cross_entropy_of_the_logits() -> None:
    config = dataclasses.replace(CONFIG, augment=Augmentation())
    model, state, step = setup(config)
    b = batch()
    clip = jnp.asarray(b["clip"][:, :, 1:25, 1:25]) / 255.0
    clip = (clip - 0.45) / 0.225
    logits = np.asarray(model.apply({"params": state.params}, clip, train=False), np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    target = 0.9 * np.eye(CLASSES)[b["label"]] + 0.1 / CLASSES
    _, values = step(state, b)
    assert float(values["loss"]) == pytest.approx(-(target * log_p).sum(-1).mean(), rel=1e-4)


def test_accumulated_batches_update_like_one_large_batch() -> None:
    base = dataclasses.replace(CONFIG, augment=Augmentation())
    sgd = dataclasses.replace(base.optim, optimizer="sgd")
    whole = dataclasses.replace(base, optim=sgd)
    halves = dataclasses.replace(base, optim=dataclasses.replace(sgd, accumulate=2))
    _, state, step = setup(whole)
    b = batch()
    want, _ = step(state, b)
    _, state, step = setup(halves)
    half, _ = step(state, {k: v[:3] for k, v in b.items()})
    for a, c in zip(leaves(half.params), leaves(state.params), strict=True):
        np.testing.assert_array_equal(a, c)
    got, _ = step(half, {k: v[3:] for k, v in b.items()})
    for a, c in zip(leaves(got.params), leaves(want.params), strict=True):
        np.testing.assert_allclose(a, c, atol=1e-6)


def test_weight_decay_leaves_biases_alone() -> None:
    optim = Optim(optimizer="adamw", weight_decay=0.5, learning_rate=0.1)
    optimizer = train.make_optimizer(optim, train.numbers(Config(optim=optim), 10))
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.05)
    np.testing.assert_array_equal(updates["bias"], 0)


def test_clipping_bounds_the_update() -> None:
    optim = Optim(optimizer="sgd", clip_norm=1.0, learning_rate=1.0)
    optimizer = train.make_optimizer(optim, train.numbers(Config(optim=optim), 10))
    params = {"w": jnp.zeros((3, 3))}
    gradient = {"w": jnp.full((3, 3), 100.0)}
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    # Nesterov momentum of a first gradient adds it 1.9 times.
    assert float(optax.tree.norm(updates)) == pytest.approx(1.9, rel=1e-5)


def test_the_schedule_warms_up_and_ends_at_zero() -> None:
    optim = Optim(learning_rate=1.0, schedule="cosine", warmup_epochs=1.0)
    schedule = train.learning_rate(optim, train.numbers(Config(optim=optim, epochs=5), 10))
    rates = [float(schedule(i)) for i in range(51)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == pytest.approx(1.0)
    assert max(rates) == pytest.approx(1.0) and rates[50] == pytest.approx(0, abs=1e-6)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    optim = Optim(learning_rate=0.5)
    constant = train.learning_rate(optim, train.numbers(Config(optim=optim, epochs=5), 10))
    assert float(constant(0)) == float(constant(49)) == 0.5


def test_parameters_are_overwritten_without_a_copy() -> None:
    model, state, _ = setup(CONFIG)
    given = train.numbers(dataclasses.replace(CONFIG, epochs=2), steps_per_epoch=10)

    def step(state: train.TrainState, b: dict):
        return train.train_step(model, CONFIG, CLASSES, given, state, b)

    program = jax.jit(step, donate_argnums=0).lower(state, batch()).compile().as_text()
    shapes = {
        ",".join(map(str, leaf.shape)) for leaf in jax.tree.leaves(state.params) if leaf.ndim > 1
    }
    copied = set(re.findall(r" = f32\[([\d,]+)\]\S* copy\(", program[program.index("ENTRY") :]))
    assert not copied & shapes


def test_an_update_that_is_not_finite_leaves_the_others_alone() -> None:
    params = {"a": jnp.ones((2, 2)), "b": jnp.ones(3)}
    updates = {"a": jnp.full((2, 2), jnp.nan), "b": jnp.asarray([0.5, jnp.inf, -1])}
    new = jax.jit(train.apply_updates)(params, updates)
    assert jnp.isnan(new["a"]).all()
    np.testing.assert_array_equal(new["b"], [1.5, jnp.inf, 0])


def test_evaluation_averages_the_probabilities_of_views_and_crops() -> None:
    model, state, _ = setup(CONFIG)
    variables = train.evaluated_variables(state)
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 256, (2, 3, 2, 26, 40, 3), np.uint8)
    both = np.exp(np.asarray(train.eval_step(model, CONFIG, 3, variables, clip)))
    np.testing.assert_allclose(both.sum(-1), 1, rtol=1e-5)
    single = np.mean(
        [
            np.exp(np.asarray(train.eval_step(model, CONFIG, 3, variables, clip[:, v : v + 1])))
            for v in range(3)
        ],
        axis=0,
    )
    np.testing.assert_allclose(both, single, rtol=1e-5)


def test_the_moving_average_is_evaluated_where_it_is_kept() -> None:
    config = dataclasses.replace(CONFIG, optim=dataclasses.replace(CONFIG.optim, ema_decay=0.99))
    _, state, step = setup(config)
    after, _ = step(state, batch())
    used = train.evaluated_variables(after)["params"]
    # The first average keeps 1/10 of the start.
    want = jax.tree.map(lambda a, b: 0.1 * a + 0.9 * b, state.params, after.params)
    for a, b in zip(leaves(used), leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
