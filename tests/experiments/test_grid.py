"""The search: members are what they would be alone; it ranks, stops and goes on."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from experiments import configs, data, fit, grid, population, snapshot, unit
from experiments.checkpoint import CheckpointError
from experiments.config import Config, Data, Eval, Model, Optim, Search
from zoo.video.policy import Augmentation

BASE = Config(
    model=Model(dropout=0.3),
    data=Data(
        frames=2, size=24, decode_size=26, train_clips=20, val_clips=10, test_clips=10, memory=64
    ),
    augment=Augmentation(crop="random", brightness=0.2, mixup=1.0),
    optim=Optim(schedule="cosine", warmup_epochs=0.5, ema_decay=0.5, label_smoothing=0.1),
    eval=Eval(batch_size=5),
    batch_size=4,
    epochs=2,
    seed=3,
)
# Units of 6, 6 and 4 of the 16 members. The second has those of batch size 8 and seed 4, beside
# some that diverge.
SEARCH = Search(learning_rate=(3e-3, 1e30), batch_size=(4, 8), folds=2, seed=(3, 4), together=6)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> data.Prepared:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        return data.prepare(BASE.data, say=lambda line: None)


def quiet(line: str) -> None:
    pass


def searched(config: Config, prepared, folder: pathlib.Path, **more) -> dict:
    folder.mkdir(exist_ok=True)
    return grid.search(config, prepared, folder, say=more.pop("say", quiet), **more)


@pytest.fixture(scope="module")
def finished(prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    config = dataclasses.replace(BASE, search=SEARCH)
    lines: list[str] = []
    result = searched(config, prepared, folder, say=lines.append)
    return folder, result, lines


def alone(config: Config, prepared, folder: pathlib.Path) -> list[dict]:
    """The values of each epoch of a single run."""
    folder.mkdir()
    fit.fit(config, prepared, folder, say=quiet)
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if "val/loss" in line]


@pytest.mark.parametrize(
    "batch_size, seed, fold", [(8, 4, 1), pytest.param(4, 3, 0, marks=pytest.mark.slow)]
)
def test_a_member_is_what_it_would_be_alone(
    finished, prepared, tmp_path, batch_size, seed, fold
) -> None:
    folder, result, _ = finished
    values = {"learning_rate": 3e-3, "batch_size": batch_size}
    (trial,) = [trial for trial in result["trials"] if trial["values"] == values]
    runs = json.loads((folder / "search.json").read_text())["runs"]
    (run,) = [runs[n] for n in trial["runs"] if (runs[n]["seed"], runs[n]["fold"]) == (seed, fold)]
    config = dataclasses.replace(
        BASE,
        batch_size=batch_size,
        seed=seed,
        data=dataclasses.replace(BASE.data, folds=2, fold=fold),
        optim=dataclasses.replace(BASE.optim, learning_rate=3e-3),
    )
    expected = alone(config, prepared, tmp_path / "alone")
    assert len(run["curve"]) == len(expected) == 2
    for found, line in zip(run["curve"], expected, strict=True):
        assert found["val/loss"] == pytest.approx(line["val/loss"], rel=2e-4)
        assert found["val/top1"] == pytest.approx(line["val/top1"], abs=1e-6)
        if batch_size == 4:  # larger batches average over their parts
            assert found["train/top1"] == pytest.approx(line["train/top1"], abs=1e-6)
        assert found["train/loss"] == pytest.approx(line["train/loss"], rel=2e-4)


def test_members_that_diverge_are_named_and_come_last(finished) -> None:
    _, result, lines = finished
    assert result["runs"] == 16 and result["diverged"] == 8
    good, bad = result["trials"][:2], result["trials"][2:]
    assert all(trial["values"]["learning_rate"] == 1e30 for trial in bad)
    assert all(len(trial["diverged"]) == 4 and trial["val/top1"] is None for trial in bad)
    assert all(entry["step"] >= 1 for trial in bad for entry in trial["diverged"])
    assert all(np.isfinite(trial["val/loss"]) and not trial["diverged"] for trial in good)
    assert any("fold 1" in line and "not finite at step" in line for line in lines)


def test_the_ranking_and_the_files(finished, prepared) -> None:
    folder, result, _ = finished
    scores = [trial["val/top1"] for trial in result["trials"][:2]]
    assert scores == sorted(scores, reverse=True)
    runs = json.loads((folder / "search.json").read_text())["runs"]
    best = result["trials"][0]
    last = [runs[number]["curve"][-1]["val/top1"] for number in best["runs"]]
    assert best["val/top1"] == pytest.approx(np.mean(last))
    assert best["val/top1/std"] == pytest.approx(np.std(last))
    config = configs.load(str(folder / "best.json"))
    assert not config.search.wanted and config.data.folds == 0
    assert config.optim.learning_rate == best["values"]["learning_rate"]
    assert config.batch_size == best["values"]["batch_size"]
    assert (folder / "model.safetensors").exists()
    assert json.loads((folder / "metrics.json").read_text())["best"] == best
    assert not (folder / "checkpoints").exists() and not (folder / "members").exists()


SMALL = dataclasses.replace(
    BASE,
    search=Search(learning_rate=(1e-3, 3e-3, 1e-2, 3e-2), halving=2, together=3),
    epochs=4,
    augment=Augmentation(),
    model=Model(),
)


@pytest.fixture(scope="module")
def halved(prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("halved")
    return folder, searched(SMALL, prepared, folder)


def without_times(result: dict) -> dict:
    return {name: value for name, value in result.items() if name != "seconds"}


@pytest.mark.slow
def test_successive_halving_trains_fewer_and_fewer(halved) -> None:
    folder, result = halved
    assert [trial["epochs"] for trial in result["trials"]] == [4, 2, 1, 1]
    assert [trial["dropped"] for trial in result["trials"]] == [False, True, True, True]
    runs = json.loads((folder / "search.json").read_text())["runs"]
    lengths = [len(runs[trial["runs"][0]]["curve"]) for trial in result["trials"]]
    assert lengths == [4, 2, 1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("asked", [2, 23])
def test_an_interrupted_search_goes_on_where_it_was(halved, prepared, tmp_path, asked) -> None:
    calls = iter(range(10**6))
    with pytest.raises(fit.Interrupted):
        searched(SMALL, prepared, tmp_path, should_stop=lambda: next(calls) >= asked)
    result = searched(SMALL, prepared, tmp_path, resume=True)
    folder, expected = halved
    assert without_times(result) == without_times(expected)
    one, other = (json.loads((f / "search.json").read_text()) for f in (folder, tmp_path))
    assert one["runs"] == other["runs"]
    weights = [(f / "model.safetensors").read_bytes() for f in (folder, tmp_path)]
    assert weights[0] == weights[1]


class Mapped(population.Population):
    """All members in one program, as on devices other than one CPU."""

    def __init__(self, program, devices) -> None:
        super().__init__(program, devices, mapped=True)


@pytest.mark.by_hand
def test_a_unit_that_was_filled_up_goes_on_on_other_devices(
    prepared, tmp_path, monkeypatch
) -> None:
    search = Search(learning_rate=(1e-3, 3e-3, 1e-2), together=2)
    config = dataclasses.replace(SMALL, search=search, epochs=2)
    expected = searched(config, prepared, tmp_path / "whole")
    calls = iter(range(10**6))
    folder = tmp_path / "interrupted"
    with monkeypatch.context() as patch, pytest.raises(fit.Interrupted):
        patch.setattr(unit, "Population", Mapped)
        # The first unit asks 14 times. The second is one member, and one more beside it.
        searched(config, prepared, folder, should_stop=lambda: next(calls) >= 17)
    assert list((folder / "checkpoints").glob("*-unit1-*.npz"))
    lines: list[str] = []
    result = searched(config, prepared, folder, resume=True, say=lines.append)
    assert any("going on in epoch" in line for line in lines)
    for found, like in zip(result["trials"], expected["trials"], strict=True):
        assert found["trial"] == like["trial"]
        assert found["val/loss"] == pytest.approx(like["val/loss"], rel=2e-4)


@pytest.mark.slow
def test_one_program_of_all_members_gives_the_same(halved, prepared, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(unit, "Population", Mapped)
    result, expected = searched(SMALL, prepared, tmp_path), halved[1]
    for found, like in zip(result["trials"], expected["trials"], strict=True):
        assert found["trial"] == like["trial"] and found["epochs"] == like["epochs"]
        assert found["val/loss"] == pytest.approx(like["val/loss"], rel=2e-4)
        assert found["train/loss"] == pytest.approx(like["train/loss"], rel=2e-4)


def test_a_batch_larger_than_a_fold_is_refused(prepared, tmp_path) -> None:
    config = dataclasses.replace(BASE, search=Search(batch_size=(4, 16), folds=2))
    with pytest.raises(ValueError, match="batch of 16 clips is more than the 10 that train"):
        searched(config, prepared, tmp_path)


def test_units_of_another_number_of_hosts_are_not_trained_again(prepared, tmp_path) -> None:
    config = dataclasses.replace(BASE, search=Search(learning_rate=(1e-3, 2e-3, 3e-3)))
    searching = grid.Searching(unit.Shared(config, prepared, tmp_path, False, lambda: False, quiet))
    runs = searching.plan.groups[0].runs
    searching.standings.done = {"round0-group0-part1of2-unit0": [1], "round1-group0-part0of2": [0]}
    assert [run.number for run in searching._undone("round0-group0", runs)] == [0, 2]
    searching.standings.done = {"round0-group0-part0of1-unit0": [1]}  # left out by its name
    assert [run.number for run in searching._undone("round0-group0", runs)] == [0, 1, 2]


@pytest.mark.parametrize("done", [[0], [2], [0, 2], [0, 1, 2, 3]])
def test_a_member_trained_in_another_unit_is_not_trained_again(
    prepared, tmp_path, monkeypatch, done
) -> None:
    """As after a search of two hosts went on with one and then again with two."""
    search = Search(learning_rate=(1e-3, 2e-3, 3e-3, 4e-3), together=2)
    config = dataclasses.replace(BASE, search=search)
    searching = grid.Searching(unit.Shared(config, prepared, tmp_path, False, lambda: False, quiet))
    searching.standings.done = {"round0-group0-part0of2-unit0-1234": done}
    searching.standings.curves = [[{"val/top1": 0.9, "val/loss": 0.1}] for _ in range(4)]
    trained: list[unit.Unit] = []

    class Recorded:
        def __init__(self, shared, one: unit.Unit) -> None:
            trained.append(one)

        def run(self) -> None:
            """Trains nothing."""

    monkeypatch.setattr(grid, "Training", Recorded)
    (group,) = searching.plan.groups
    searching._forget_unfinished("round0-group0", group.runs, 0)
    assert [bool(curve) for curve in searching.standings.curves] == [n in done for n in range(4)]
    searching._train_group("round0-group0-part0of1", group, group.runs, 0, 2)
    numbers = [run.number for one in trained for run in one.runs]
    assert numbers == [number for number in range(4) if number not in done]
    assert len({one.name for one in trained}) == len(trained)


def test_a_snapshot_that_does_not_fit_is_refused(tmp_path) -> None:
    saved = snapshot.Snapshot(tmp_path / "members" / "one.npz")
    state = {"a": np.arange(3), "b": (np.ones(2), np.float32(4))}
    saved.save(state, {"epoch": 1})
    found, meta = saved.restore(state)
    assert meta == {"epoch": 1} and list(found) == ["a", "b"]
    np.testing.assert_array_equal(found["b"][0], state["b"][0])
    with pytest.raises(CheckpointError, match=r"one.npz cannot be read: .*another network"):
        saved.restore({"a": state["a"]})
    with pytest.raises(CheckpointError, match="has the shape"):
        saved.restore(state | {"a": np.arange(4)})
    whole = saved.path.read_bytes()
    for damaged in (b"not a zip file", whole[:-30]):
        saved.path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="delete it to train these members again"):
            saved.restore(state)
