"""Configurations: complete, checked, and the same after a trip through JSON."""

import dataclasses
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.config import (
    Config,
    ConfigError,
    Data,
    Model,
    Optim,
    differences,
    dumps,
    from_dict,
    to_dict,
)
from experiments.configs import CONFIGS, describe, load


@pytest.mark.parametrize("name", CONFIGS)
def test_every_named_config_survives_json(name: str) -> None:
    config = CONFIGS[name]
    assert from_dict(json.loads(dumps(config))) == config
    assert name in describe()


@given(
    rate=st.floats(1e-9, 1e3),
    decay=st.floats(0, 0.999),
    seed=st.integers(0, 2**31),
    flip=st.floats(0, 1),
)
def test_values_come_back_exactly(rate: float, decay: float, seed: int, flip: float) -> None:
    base = Config()
    config = dataclasses.replace(
        base,
        seed=seed,
        optim=Optim(learning_rate=rate, ema_decay=decay),
        augment=dataclasses.replace(base.augment, horizontal_flip=flip),
    )
    assert from_dict(json.loads(dumps(config))) == config


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"optim": {"learning_rte": 1.0}}, "optim.learning_rate"),
        ({"optim": {"learning_rate": "fast"}}, "optim.learning_rate is 'fast'"),
        ({"optim": {"schedule": "cosin"}}, "cosine"),
        ({"optim": 3}, "optim is 3"),
        ({"epochs": 2.5}, "epochs is 2.5"),
        ({"epochs": True}, "epochs is True"),
        ({"epochs": 0}, "epochs is 0"),
        ({"data": {"decode_size": 32, "size": 64}}, "decode_size 32"),
        ({"data": {"dataset": "tfds"}}, "did you mean 'tfds:NAME'"),
        ({"augment": {"horizontal_flip": 2.0}}, "horizontal_flip is 2.0"),
        ({"augment": {"crop_scale": [0.5]}}, "crop_scale has 1 values"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_it(values: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=r"^[^\n]+$") as error:
        from_dict(values)
    assert said in str(error.value)


def test_missing_fields_keep_their_defaults() -> None:
    assert from_dict({"optim": {"learning_rate": 1}}) == Config(optim=Optim(learning_rate=1.0))


def test_differences_name_the_fields() -> None:
    other = Config(model=Model(dropout=0.5), data=Data(frames=4), seed=3)
    assert differences(Config(), other) == ["model.dropout", "data.frames", "seed"]
    assert differences(other, from_dict(to_dict(other))) == []


def test_a_name_or_file_that_does_not_exist_is_named(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'cnn_small_shift'"):
        load("cnn_smal_shift")
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(ConfigError, match=r"broken\.json"):
        load(str(broken))


def test_configurations_and_names_load_without_jax() -> None:
    code = (
        "import sys, experiments.run, zoo, zoo.video; "
        "print(sorted({'jax', 'flax', 'grain', 'orbax', 'tensorflow_datasets'} & {*sys.modules}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
