"""The comparison of train steps: processes that take turns, ratios, and what goes wrong."""

import importlib.util
import json
import sys

import pytest

from experiments import bench, bench_step, step_worker


@pytest.mark.slow
def test_a_step_of_this_project_is_timed(tmp_path, capsys):
    file = tmp_path / "step.json"
    assert bench.main(["step", "cnn_small:24:2", "--rounds", "2", "--json", str(file)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("cnn_small:24:2  (load ") and "  zoo  " in text
    (found,) = json.loads(file.read_text())
    assert found["versions"]["zoo"].startswith("jax ")
    assert len(found["samples"]["zoo"]["seconds"]) == 2
    assert min(found["medians"]["zoo"].values()) > 0
    assert found["ratios"] == {}
    assert 0 <= found["others"] < 1


@pytest.mark.parametrize(("others", "warned"), [(0.4, True), (0.01, False)])
def test_a_busy_machine_is_told(others, warned):
    found = {"case": "cnn_small:24:2", "load": [9.0, 9.0], "others": others, "ratios": {}}
    text = bench_step._table({**found, "medians": {}, "samples": {}, "versions": {}})
    assert ("other processes took 40% of the processors" in text) == warned


def test_the_fastest_setting_of_a_library_counts():
    medians = {
        "zoo": {"seconds": 2.0, "processor": 4.0},
        "torch": {"seconds": 8.0, "processor": 4.0},
        "torch_channels_last": {"seconds": 3.0, "processor": 6.0},
        "keras": {"seconds": 1.0, "processor": 2.0},
    }
    assert bench_step.ratios(medians) == {
        "torch": {"seconds": 1.5, "processor": 1.0},
        "keras": {"seconds": 0.5, "processor": 0.5},
    }


def test_a_python_without_the_library_is_named(tmp_path):
    case = bench_step.Case("cnn_small", 24, 2)
    with pytest.raises(SystemExit, match=r"torch does not run with .*: see the message above"):
        bench_step.compare(case, {"torch": _without(tmp_path, "torch")}, 1)


def _without(folder, module: str) -> str:
    """A Python in which the module cannot be imported, installed or not."""
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.modules[{module!r}] = None\n")
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{folder}" exec "{sys.executable}" "$@"\n')
    script.chmod(0o755)
    return str(script)


@pytest.mark.parametrize(
    "text", ["cnn_large:64:2", "cnn_small:64", "cnn_small:0:2", "cnn_small:a:2"]
)
def test_a_wrong_case_is_named(text, capsys):
    with pytest.raises(SystemExit):
        bench.main(["step", text])
    assert repr(text) in capsys.readouterr().err


@pytest.mark.parametrize("library", sorted(step_worker.STEPS.keys() - {"zoo"}))
def test_every_library_trains(library):
    module = library.partition("_")[0]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    version, run = step_worker.STEPS[library]("cnn_small", 24, 4)
    assert version.startswith(module)
    first = run(1)
    assert run(30) < first  # the same four frames again and again
