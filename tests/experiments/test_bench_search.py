"""The comparison of a search with single runs and with Keras."""

import importlib.util
import json
import sys

import pytest

from experiments import bench, bench_search


def test_the_fastest_setting_of_a_library_counts() -> None:
    medians = {
        "together": {"seconds": 2.0, "processor": 4.0},
        "one_by_one": {"seconds": 3.0, "processor": 8.0},
        "keras": {"seconds": 20.0, "processor": 20.0},
        "keras_compiled": {"seconds": 10.0, "processor": 30.0},
    }
    assert bench_search.ratios(medians) == {
        "one_by_one": {"seconds": 1.5, "processor": 2.0},
        "keras": {"seconds": 5.0, "processor": 5.0},
    }


@pytest.mark.skipif(importlib.util.find_spec("keras") is not None, reason="Keras is installed")
def test_a_python_without_keras_is_named(tmp_path) -> None:
    job = tmp_path / "job.json"
    job.write_text("{}")
    with pytest.raises(SystemExit, match=r"keras does not run with .*: see the message above"):
        bench_search.work("keras", sys.executable, job)


@pytest.mark.slow
def test_both_ways_come_to_the_same_scores(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    file = tmp_path / "search.json"
    options = ["--size", "24", "--epochs", "1", "2", "--rounds", "1", "--json", str(file)]
    assert bench.main(["search", *options]) == 0
    assert "times as fast as one_by_one" in capsys.readouterr().out
    answers = json.loads(file.read_text())["answers"]
    scores = [
        {tuple(sorted(values.items())): score for values, score in answers[name][0]["scores"]}
        for name in ("together", "one_by_one")
    ]
    assert scores[0].keys() == scores[1].keys() and len(scores[0]) == 6
    for values, score in scores[0].items():  # a clip or two of 192 may be a matter of rounding
        assert score == pytest.approx(scores[1][values], abs=2.5 / 192)
