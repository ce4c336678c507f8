"""Reference logits of the original implementations, on weights that anyone can rebuild."""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo import cost, registry
from zoo.weights import convert


def _generator(seed: int, name: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def rebuild(name: str, shape: list[int], seed: int) -> np.ndarray:
    """The float32 entry `name` of a golden state dict."""
    v = _generator(seed, name).standard_normal(shape).astype(np.float32)
    if name.endswith("running_var"):
        return np.exp(np.float32(0.2) * v)
    if name.endswith("running_mean"):
        return np.float32(0.1) * v
    if v.ndim >= 2:
        return v * np.float32(np.sqrt(1 / np.prod(shape[1:])))
    if name.endswith((".weight", ".alpha")):
        return 1 + np.float32(0.1) * v
    return np.float32(0.1) * v


class Golden:
    """One golden file: `clip` as our models take it [b t h w c], `state`, `logits`."""

    def __init__(self, folder: pathlib.Path, name: str) -> None:
        record = json.loads((folder / f"{name}.json").read_text())
        seed, shape = record["seed"], record["input_shape"]
        entries = record["state_dict"].items()
        self.name = name
        self.state = {
            key: rebuild(key, size, seed) if dtype == "float32" else np.zeros(size, dtype)
            for key, (size, dtype) in entries
        }
        clip = _generator(seed, "input").standard_normal(shape).astype(np.float32)
        if record["input"] == "uint8":  # BTHWC already
            self.clip = np.clip(128 + 50 * clip, 0, 255).astype(np.uint8)
        elif record["input"] == "hf":  # BTCHW
            self.clip = np.moveaxis(clip, 2, -1)
        else:  # NCTHW
            self.clip = np.moveaxis(clip, 1, -1)
        self.arrays = dict(np.load(folder / f"{name}.npz"))
        self.logits = self.arrays.get("logits")
        if self.logits is not None and self.logits.ndim == 3:  # the last axis is time, of one step
            self.logits = self.logits.squeeze(-1)


@pytest.fixture
def golden(shared: pathlib.Path) -> Callable[[str], Golden]:
    """golden(NAME): the golden file of that name."""
    return lambda name: Golden(shared / "golden", name)


@pytest.fixture
def check_golden(golden: Callable[[str], Golden]) -> Callable[..., None]:
    """check_golden(file, model): imports the golden's weights, compares logits and exports back."""

    def check(file: str, model_name: str, num_classes: int = 400) -> None:
        known = golden(file)
        family = registry.MODELS[model_name]()
        assert family.table is not None
        table = family.table(family.presets[model_name])
        model = registry.create_model(model_name, num_classes=num_classes)
        shapes = jax.eval_shape(model.init, jax.random.key(0), known.clip)
        variables = convert.to_variables(table, known.state, shapes, file)
        logits = np.asarray(jax.jit(model.apply)(variables, known.clip))
        assert logits.shape == known.logits.shape
        error = np.linalg.norm(logits - known.logits) / np.linalg.norm(known.logits)
        assert error < 1e-4, error
        back = convert.to_state_dict(table, variables)
        assert back.keys() == known.state.keys()
        for key, value in known.state.items():
            if value.dtype == np.float32:
                np.testing.assert_array_equal(back[key], value, err_msg=key)

    return check


@pytest.fixture(scope="session")
def rebuilt() -> Callable[..., tuple[dict, np.ndarray]]:
    """rebuilt(model, name, shape, seed): variables and clips [b t h w c] made as the goldens are.

    The weights are those of a state dict under the publisher's names, so that any model of a
    family's original can be compared, whatever its size. `made_for`: the clips that the weights are
    for, where they are others.
    """

    def make(model, name: str, shape: tuple[int, ...], seed: int, made_for=None):
        family = registry.MODELS[name]()
        assert family.table is not None
        table = family.table(model.config)
        shapes = cost.variable_shapes(model, (made_for or shape)[1:])
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
        state = {
            key: rebuild(key, list(value.shape), seed) if value.dtype == np.float32 else value
            for key, value in convert.to_state_dict(table, zeros).items()
        }
        clips = _generator(seed, "input").standard_normal(shape).astype(np.float32)
        return convert.to_variables(table, state, shapes, name), clips

    return make


def random_variables(model: nn.Module, clip_shape: tuple[int, int, int, int]) -> dict:
    """Variables of a scale at which every layer matters, drawn without compiling."""
    rng = np.random.default_rng(1)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        values = rng.standard_normal(leaf.shape).astype(leaf.dtype)
        name = path[-1].key
        if name == "var":
            return np.exp(0.2 * values)
        if name in ("scale", "alpha"):
            return 1 + 0.1 * values
        return values * np.prod(leaf.shape[:-1]) ** -0.5 if leaf.ndim > 1 else 0.1 * values

    return jax.tree_util.tree_map_with_path(draw, cost.variable_shapes(model, clip_shape))


@pytest.fixture(name="random_variables")
def random_variables_fixture() -> Callable[..., dict]:
    """random_variables(model, clip_shape [t h w c])."""
    return random_variables


def _distance(got: jax.Array, expected: jax.Array) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def _small(name: str, num_classes: int = 5, dtype: str = "float32", **fields: object) -> nn.Module:
    fields = {"dropout": 0.0, **fields}
    return registry.create_model(name, num_classes=num_classes, dtype=dtype, **fields)


@pytest.fixture
def check_inference(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """check_inference(name, clip_shape, **small): logits, features, precision and refusals.

    small: fields of the config that make the network quick to compile, as do the operators'
    definitions; the reference logits are checked with what runs by default.
    """
    monkeypatch.setenv("ZOO_KERNELS", "xla")

    def check(name: str, clip_shape: tuple[int, int, int, int], **small: object) -> None:
        clips = np.random.default_rng(0).standard_normal((2, *clip_shape), np.float32)
        model = _small(name, **small)
        variables = random_variables(model, clip_shape)
        logits = jax.jit(model.apply)(variables, clips)
        assert logits.shape == (2, 5) and logits.dtype == jnp.float32
        assert np.isfinite(logits).all()

        params = dict(variables["params"])
        head = params.pop("head")
        headless = _small(name, num_classes=0, **small)
        features = jax.jit(headless.apply)({**variables, "params": params}, clips)
        assert features.dtype == jnp.float32
        np.testing.assert_allclose(features @ head["kernel"] + head["bias"], logits, atol=1e-4)

        rough = jax.jit(_small(name, dtype="bfloat16", **small).apply)(variables, clips)
        assert rough.dtype == jnp.float32
        assert 0 < np.linalg.norm(rough - logits) < 0.05 * np.linalg.norm(logits)

        for wrong in (clips.astype(np.uint8), clips[0]):
            with pytest.raises(ValueError, match="clips are"):
                jax.eval_shape(model.apply, variables, wrong)

    return check


@pytest.fixture
def check_training_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """check_training_of(create, variables, clips): dropping, batch statistics, recomputation.

    create: makes the model from fields of its config.
    """
    monkeypatch.setenv("ZOO_KERNELS", "xla")

    def check(create: Callable[..., nn.Module], variables: dict, clips: np.ndarray) -> None:
        def loss(model: nn.Module, params: dict, key: jax.Array) -> tuple[jax.Array, dict]:
            logits, updates = model.apply(
                {**variables, "params": params},
                clips,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": key},
            )
            return (logits**2).sum(), updates["batch_stats"]

        fields = [field.name for field in dataclasses.fields(create().config)]
        rates = {rate: 0.5 for rate in ("dropout", "drop_path") if rate in fields}
        step, saving = (
            jax.jit(jax.value_and_grad(functools.partial(loss, model), has_aux=True))
            for model in (create(**rates), create(**rates, remat=True))
        )
        params, key = variables["params"], jax.random.key(0)
        (value, stats), grads = step(params, key)
        assert value == step(params, key)[0][0]
        assert value != step(params, jax.random.key(1))[0][0]
        for old, new in zip(
            jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(stats), strict=True
        ):
            assert not np.allclose(old, new)
        recomputed = saving(params, key)[1]
        scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(grads))
        assert scale > 0
        for one, other in zip(jax.tree.leaves(grads), jax.tree.leaves(recomputed), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4 * scale)

    return check


@pytest.fixture
def check_training(check_training_of: Callable[..., None]) -> Callable[..., None]:
    """check_training(name, clip_shape, **small): `check_training_of` a small network."""

    def check(name: str, clip_shape: tuple[int, int, int, int], **small: object) -> None:
        clips = np.random.default_rng(0).standard_normal((2, *clip_shape), np.float32)
        variables = random_variables(_small(name, **small), clip_shape)
        check_training_of(lambda **more: _small(name, **{**small, **more}), variables, clips)

    return check
