"""Reference logits of the original implementations, on weights that anyone can rebuild."""

import hashlib
import json
import pathlib
from collections.abc import Callable

import jax
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
