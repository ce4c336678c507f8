"""Training a part of a network, block by block at its own rate, from weights that exist."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import configs, finetune, fit, population, train
from experiments.config import Config, ConfigError, Data, Model, Optim
from zoo import layers
from zoo.video.policy import Augmentation
from zoo.weights import pretrained

CONFIG = Config(data=Data(frames=2, size=16, decode_size=16), optim=Optim(learning_rate=1e-3))
BLOCKS = ("stem", "block0", "block1", "block2", "head")


class Block(nn.Module):
    """A product and batch statistics."""

    @nn.compact
    def __call__(self, x, train: bool):
        return nn.relu(layers.BatchNorm(name="norm")(nn.Dense(8, name="product")(x), train))


class Network(nn.Module):
    """The smallest with blocks, batch statistics and a last layer; quick to compile."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, clips, train: bool = False):
        x = nn.Dense(8, name="stem")(clips[:, :, ::4, ::4])
        for number in range(3):
            x = Block(name=f"block{number}")(x, train)
        x = nn.Dropout(0.1, deterministic=not train)(x.mean((1, 2, 3)))
        return nn.Dense(self.num_classes, name="head")(x)


def with_optim(**fields) -> Config:
    return dataclasses.replace(CONFIG, optim=dataclasses.replace(CONFIG.optim, **fields))


def steps(config: Config, count: int = 2) -> tuple[train.TrainState, train.TrainState]:
    model = Network()
    given = train.numbers(config, 10)
    first = state = jax.jit(lambda: train.init_state(model, config, given))()
    rng = np.random.default_rng(0)
    batch = {
        "clip": rng.integers(0, 255, (4, 2, 16, 16, 3)).astype(np.uint8),
        "label": np.array([0, 1, 2, 0], np.int32),
    }
    step = jax.jit(lambda state: train.train_step(model, config, 3, given, state, batch)[0])
    for _ in range(count):
        state = step(state)
    return first, state


def changed(first: train.TrainState, last: train.TrainState) -> set[str]:
    """Blocks of which some parameter is another."""
    return {
        name
        for name in first.params
        if any(
            jax.tree.leaves(
                jax.tree.map(
                    lambda a, b: bool(jnp.any(a != b)), first.params[name], last.params[name]
                )
            )
        )
    }


def test_blocks_are_in_the_order_of_the_network() -> None:
    model = Network()
    assert finetune.blocks(model, CONFIG) == BLOCKS


@pytest.mark.parametrize(("count", "expected"), [(0, BLOCKS[-1:]), (2, BLOCKS[-3:]), (-1, BLOCKS)])
def test_only_the_last_blocks_are_trained(count: int, expected: tuple[str, ...]) -> None:
    first, last = steps(with_optim(trained_blocks=count))
    assert changed(first, last) == set(expected)
    same = jax.tree.map(lambda a, b: bool(jnp.all(a == b)), first.batch_stats, last.batch_stats)
    assert all(jax.tree.leaves(same)) == (count >= 0)
    moments = sum(leaf.size for leaf in jax.tree.leaves(last.opt_state) if leaf.ndim)
    trained = sum(leaf.size for name in expected for leaf in jax.tree.leaves(last.params[name]))
    assert moments == 2 * trained  # Adam keeps nothing for what stays as it is


def test_too_many_blocks_are_refused() -> None:
    with pytest.raises(ConfigError, match="trained_blocks is 5, but cnn_small has 4 blocks"):
        steps(with_optim(trained_blocks=5), 0)
    with pytest.raises(ConfigError, match=r"trained_blocks is -2: set -1 \(all\), 0 or more"):
        Optim(trained_blocks=-2)


def test_each_block_learns_more_slowly_than_the_one_after_it() -> None:
    # Adam's first update is the learning rate, whatever the gradient.
    first, last = steps(with_optim(layer_decay=0.5), 1)
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), first.params, last.params)
    largest = [max(jax.tree.leaves(moved[name])) for name in BLOCKS]
    expected = [1e-3 * 0.5**depth for depth in reversed(range(len(BLOCKS)))]
    np.testing.assert_allclose(largest, expected, rtol=2e-2)


@pytest.mark.slow
def test_every_model_of_a_recipe_can_be_trained_on_its_clips(monkeypatch) -> None:
    monkeypatch.setattr(train, "check_weights", lambda state, name: {})
    for config in configs.CONFIGS.values():
        fit.check_model(config)
    for name in ("linear_probe", "fine_tune_last"):
        config = configs.CONFIGS[name]
        names = finetune.trained(train.make_model(config, 2), config)
        assert names is not None
        last = {n for n in names if n.startswith(("stage4", "head"))}
        assert names == last and (len(names) == 1) == (name == "linear_probe")


def test_weights_that_do_not_fit_are_named_before_any_data_is_read() -> None:
    other = Config(
        model=Model(pretrained="cnn_small.moving_shapes"), data=Data(size=32, decode_size=32)
    )
    with pytest.raises(ConfigError, match=r"do not fit the model: hidden/kernel differ"):
        fit.check_model(other)
    unknown = dataclasses.replace(CONFIG, model=Model(pretrained="cnn_smal.moving_shapes"))
    with pytest.raises(ConfigError, match=r"unknown weights .*did you mean 'cnn_small.moving"):
        fit.check_model(unknown)


def test_weights_are_started_from_with_a_new_last_layer() -> None:
    config = Config(model=Model(pretrained="cnn_small.moving_shapes"), data=Data(frames=2))
    model = train.make_model(config, 7)
    state = jax.jit(lambda: train.init_state(model, config, train.numbers(config, 1)))()
    started = train.start_from(state, config.model.pretrained)
    given = pretrained.load_pretrained(config.model.pretrained).variables["params"]
    np.testing.assert_array_equal(started.params["conv1"]["kernel"], given["conv1"]["kernel"])
    np.testing.assert_array_equal(started.params["head"]["kernel"], state.params["head"]["kernel"])


def test_the_members_of_a_search_start_from_them_too() -> None:
    config = Config(model=Model(pretrained="cnn_small.moving_shapes"), data=Data(frames=2))
    model = train.make_model(config, 7)
    program = population.Program(config, model, 7, train.numbers(config, 1), 4, 1)
    params = jax.jit(program.init)({"seed": jnp.arange(2)}).state.params
    given = pretrained.load_pretrained(config.model.pretrained).variables["params"]
    for member in range(2):
        np.testing.assert_array_equal(params["conv1"]["kernel"][member], given["conv1"]["kernel"])
    assert jnp.any(params["head"]["kernel"][0] != params["head"]["kernel"][1])


def test_another_normalisation_than_the_weights_know_is_said() -> None:
    spec = pretrained.load_pretrained("cnn_small.moving_shapes").spec
    assert finetune.other_input(CONFIG, spec) == []
    config = dataclasses.replace(CONFIG, augment=Augmentation(mean=(0.5, 0.5, 0.5)))
    (line,) = finetune.other_input(config, spec)
    assert "--augment.mean 0.45 0.45 0.45" in line
