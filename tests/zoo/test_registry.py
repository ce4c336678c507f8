"""Names, overrides and the command line; what importing costs."""

import subprocess
import sys

import pytest

import zoo
from zoo import __main__ as command_line
from zoo import registry


def test_importing_the_package_loads_nothing_heavy():
    script = (
        "import sys, zoo\n"
        "zoo.list_models(), zoo.list_weights()\n"
        "assert 'numpy' not in sys.modules, 'numpy'\n"
        "import zoo.video.policy\n"
        "heavy = {'jax', 'flax', 'grain', 'orbax', 'safetensors', 'tensorflow_datasets'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or None)"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert process.returncode == 0, f"import zoo loads {process.stderr}"


def test_patterns_choose_names():
    assert zoo.list_models("cnn_small*") == ["cnn_small", "cnn_small_shift"]
    assert zoo.list_models() == sorted(registry.MODELS)
    assert zoo.list_models("nothing*") == []
    assert zoo.list_weights("nothing*") == []


@pytest.mark.parametrize("name", zoo.list_models())
def test_every_model_has_a_preset(name):
    family = registry.MODELS[name]()
    assert set(family.presets) <= set(registry.MODELS)
    assert name in family.presets


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "cnn_smal"}, r"unknown model 'cnn_smal'; did you mean 'cnn_small'\?"),
        ({"name": "cnn_small", "hiden": 3}, r"field of CNNConfig 'hiden'; did you mean 'hidden'\?"),
        ({"name": "cnn_small", "dtype": "bfloat"}, "did you mean 'bfloat16'"),
        ({"name": "cnn_small", "num_classes": -1}, "num_classes is -1"),
        ({"name": "cnn_small", "activation": "tanh"}, "activation is 'tanh'"),
        ({"name": "cnn_small", "dropout": 1.0}, "dropout is 1.0"),
        ({"name": "cnn_small", "shift": (5,)}, r"shift is \(5,\).*from 1 to 4"),
        ({"name": "cnn_small", "shift_fraction": 0.6}, "shift_fraction is 0.6"),
    ],
)
def test_a_wrong_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        zoo.create_model(**{"num_classes": 3, **arguments})


def test_a_name_near_to_nothing_gets_the_whole_list():
    with pytest.raises(ValueError, match="there is a, b"):
        registry.require_name("model", "zzzzzz", ["a", "b"])


def test_list_shows_models(capsys):
    assert command_line.main(["list", "cnn_b*"]) == 0
    assert capsys.readouterr().out.split()[0] == "cnn_base"


def test_info_shows_the_cost(capsys):
    assert command_line.main(["info", "cnn_base"]) == 0
    out = capsys.readouterr().out
    assert "88,709,194" in out and "8 frames of 224x224" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "cnn_smal"], "did you mean 'cnn_small'?"),
        (["list", "zzz*"], "nothing matches 'zzz*'"),
    ],
)
def test_a_wrong_name_is_one_line_and_exit_code_2(arguments, message, capsys):
    assert command_line.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and message in captured.err and captured.err.count("\n") == 1


def test_an_unknown_command_shows_what_there_is():
    process = subprocess.run(
        [sys.executable, "-m", "zoo", "lits"], capture_output=True, text=True, check=False
    )
    assert process.returncode == 2
    assert "list" in process.stderr and "Traceback" not in process.stderr
