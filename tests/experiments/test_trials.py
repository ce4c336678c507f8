"""What a search trains: combinations, the runs that they share, and the programs for them."""

import dataclasses

import pytest

from experiments.config import Config, ConfigError, Data, Optim, Search
from experiments.trials import combinations, plan

TEXT = Config(search=Search(batch_size=(32, 64, 128), epochs=(10, 20, 30), folds=3))


def test_epochs_are_snapshots_of_one_run() -> None:
    found = plan(TEXT)
    assert len(found.trials) == 9 and len(found.runs) == 9
    assert {run.config.epochs for run in found.runs} == {30}
    assert {len(trial.runs) for trial in found.trials} == {3}
    assert found.axes == ("batch_size", "epochs")
    shared = [trial for trial in found.trials if trial.values["batch_size"] == 64]
    assert len({trial.runs for trial in shared}) == 1
    assert [trial.epochs for trial in shared] == [10, 20, 30]


def test_a_schedule_that_ends_with_the_run_allows_no_snapshots() -> None:
    found = plan(dataclasses.replace(TEXT, optim=Optim(schedule="cosine")))
    assert len(found.trials) == 9 and len(found.runs) == 27
    assert sorted({run.config.epochs for run in found.runs}) == [10, 20, 30]


def test_what_differs_in_numbers_is_one_group() -> None:
    search = Search(
        learning_rate=(1e-3, 1e-2), dropout=(0.0, 0.5), mixup=(0.0, 0.2), seed=(0, 1), folds=2
    )
    (group,) = plan(Config(search=search)).groups
    assert len(group.runs) == 32 and len({run.config for run in group.runs}) == 32
    structural = Search(model=("cnn_small", "cnn_small_shift"), learning_rate=(1e-3, 1e-2))
    assert [len(group.runs) for group in plan(Config(search=structural)).groups] == [2, 2]


def test_batches_are_multiples_of_those_of_their_group() -> None:
    groups = plan(Config(search=Search(batch_size=(6, 4, 8, 12)))).groups
    found = {group.batch_size: {run.config.batch_size for run in group.runs} for group in groups}
    assert found == {4: {4, 8, 12}, 6: {6}}


def test_random_combinations_lie_between_the_extremes() -> None:
    search = Search(
        learning_rate=(1e-5, 1e-1),
        strength=(0.0, 2.0),
        batch_size=(16, 32),
        sampling="random",
        samples=200,
    )
    found = combinations(search)
    assert found == combinations(search) and len(found) == 200
    rates = sorted(values["learning_rate"] for values in found)
    assert rates[0] >= 1e-5 and rates[-1] <= 1e-1
    assert 3e-4 < rates[100] < 3e-3  # log-uniform: half of them below 1e-3
    strengths = [values["strength"] for values in found]
    assert 0.8 < sum(strengths) / 200 < 1.2 and min(strengths) >= 0 and max(strengths) <= 2
    assert {values["batch_size"] for values in found} == {16, 32}
    other = combinations(dataclasses.replace(search, sampling_seed=1))
    assert other != found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"learning_rate": (1e-3, -1.0)}, "optim.learning_rate is -1.0"),
        ({"mixup": (0.1, -1.0)}, "mixup is -1.0"),
        ({"batch_size": (32, 32)}, "search.batch_size has a value twice"),
        ({"folds": 1}, "search.folds is 1"),
        ({"halving": 3, "epochs": (1, 2)}, "leave search.epochs empty"),
        ({"together": -1}, "search.together is -1"),
    ],
)
def test_a_mistake_is_named(change, said) -> None:
    with pytest.raises(ConfigError, match=said):
        plan(Config(search=Search(**change)))


def test_folds_are_asked_for_in_one_place() -> None:
    with pytest.raises(ConfigError, match=r"set search\.folds"):
        plan(Config(data=Data(folds=3), search=Search(learning_rate=(1e-3, 1e-2))))
