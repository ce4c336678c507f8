"""The report of a search: finished, interrupted, and made of files that are not what they were."""

import json
import pathlib

import pytest

from experiments import report
from experiments.config import Config, Search, dumps
from experiments.standings import Standings
from experiments.trials import plan

SEARCH = Config(search=Search(learning_rate=(1e-3, 1e-2, 1.0), dropout=(0.0, 0.5), folds=2))


def write(folder: pathlib.Path, finished: bool) -> Standings:
    """A search of six combinations; the one of the highest learning rate has diverged."""
    standings = Standings(plan(SEARCH), [])
    for run in standings.plan.runs:
        score = 0.5 + 0.1 * run.config.model.dropout + 0.01 * run.config.data.fold
        lost = run.config.optim.learning_rate == 1.0
        if lost:
            standings.diverged[run.number] = {"epoch": 2, "step": 17}
        standings.curves.append(
            [
                {"train/loss": 2 / epoch, "val/loss": 1 / epoch, "val/top1": score * epoch / 10}
                for epoch in range(1, 2 if lost else 11)
            ]
        )
    (folder / "config.json").write_text(dumps(SEARCH))
    standings.save(folder / "search.json")
    if finished:
        ranking = standings.ranking()
        result = {"best": ranking[0], "trials": ranking, "seconds": 75.0}
        (folder / "metrics.json").write_text(json.dumps(result))
    return standings


def test_ranking_curves_and_coordinates_are_shown(tmp_path) -> None:
    standings = write(tmp_path, finished=True)
    page = report.write(tmp_path).read_text()
    best = standings.ranking()[0]
    assert best["values"] == {"learning_rate": 1e-3, "dropout": 0.5}
    assert best["val/top1"] == pytest.approx(0.555)
    assert "55.5% of the validation clips" in page
    assert page.count('class="curve val"') == 3 * 2 + 1  # three charts of two folds, one line
    assert page.count('class="curve many"') == 3 * 10 + 3  # those that diverged have no line
    assert "run 8 diverged in epoch 2, step 17" in page
    assert "1 min 15 s" in page


def test_an_interrupted_search_shows_its_curves(tmp_path) -> None:
    write(tmp_path, finished=False)
    page = report.write(tmp_path).read_text()
    assert "Not finished: 12 of 12 runs begun" in page and "--resume" in page
    assert page.count('class="curve many"') == 3 * 12


@pytest.mark.parametrize(
    "trials",
    [
        "none",
        [7],
        [{"values": {"<b>": "<script>alert(1)</script>"}, "runs": "x", "val/top1": 0.5}],
        [{"values": {"a": 1}, "runs": [0.5], "epochs": "many", "diverged": [3, {"run": []}]}],
    ],
)
def test_hostile_files_are_shown_as_far_as_they_go(tmp_path, trials) -> None:
    write(tmp_path, finished=False)
    (tmp_path / "metrics.json").write_text(json.dumps({"trials": trials}))
    (tmp_path / "search.json").write_text(
        json.dumps({"runs": [3, {"curve": [1, {"val/top1": "<i>"}, {"val/top1": 0.3}]}]})
    )
    page = report.write(tmp_path).read_text()
    assert "<script>alert" not in page and "<b>" not in page and "<i>" not in page
