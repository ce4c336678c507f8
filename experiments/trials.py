"""What a search trains: its combinations of values, and the runs that they come down to.

A trial is one combination of the searched values. It is trained as several members, one for each
seed and fold, and judged by their mean. Where the learning rate does not depend on the number of
epochs, trials that differ in nothing else are snapshots of one run. Runs that can be computed by
one program, that is, whose differences are numbers, form a group.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.config import SEARCHED, Config, ConfigError, Search, changed

LOGARITHMIC = ("learning_rate", "weight_decay")
REAL = (*LOGARITHMIC, "dropout", "label_smoothing", "mixup", "strength")
STRUCTURAL = ("model", "frames")


@dataclass(frozen=True)
class Trial:
    """One combination of values, by the names of the axes, and its runs: (run, epochs)."""

    number: int
    values: Mapping[str, Any]
    runs: tuple[int, ...]
    epochs: int


@dataclass(frozen=True)
class Run:
    """One run of a search: a configuration that could be trained alone, for the longest of the
    epochs that its trials want."""

    number: int
    config: Config
    trials: tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """Runs of one program: same structure, and batch sizes that are multiples of the smallest."""

    runs: tuple[Run, ...]
    batch_size: int


@dataclass(frozen=True)
class Plan:
    """Everything that a search trains. `axes` are the names of those with several values."""

    axes: tuple[str, ...]
    trials: tuple[Trial, ...]
    runs: tuple[Run, ...]
    groups: tuple[Group, ...]


def combinations(search: Search) -> list[dict[str, Any]]:
    """The combinations of values of the axes that have any, without the seed."""
    axes = {name: getattr(search, name) for name in SEARCHED if name != "seed"}
    axes = {name: values for name, values in axes.items() if values}
    if search.sampling == "grid":
        return [
            dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())
        ]
    rng = np.random.default_rng(search.sampling_seed)
    return [
        {name: _drawn(rng, name, values) for name, values in axes.items()}
        for _ in range(search.samples)
    ]


def _drawn(rng: np.random.Generator, name: str, values: tuple[Any, ...]) -> Any:
    """A value of an axis: between the extremes where it is a real number, else one of them."""
    if name not in REAL or len(values) < 2:
        return values[rng.integers(len(values))]
    low, high = min(values), max(values)
    if name in LOGARITHMIC and low > 0:
        return float(np.exp(rng.uniform(math.log(low), math.log(high))))
    return float(rng.uniform(low, high))


def plan(config: Config) -> Plan:
    """The trials, runs and groups of a configuration's search.

    Raises:
        ConfigError: a value cannot be used.
    """
    search = config.search
    alone = dataclasses.replace(config, search=Search())
    if config.data.folds and not search.folds:
        raise ConfigError("data.folds is for a single run: set search.folds to search with folds.")
    seeds = search.seed or (config.seed,)
    folds = range(search.folds) if search.folds else (None,)
    chosen = combinations(search)
    runs: dict[Config, list[int]] = {}
    longest: dict[Config, int] = {}
    found: list[tuple[dict[str, Any], list[Config], int]] = []
    for number, values in enumerate(chosen):
        base = changed(alone, {SEARCHED[name]: value for name, value in values.items()})
        members = []
        for seed, fold in itertools.product(seeds, folds):
            one = dataclasses.replace(base, seed=seed)
            if fold is not None:
                one = changed(one, {"data.folds": search.folds, "data.fold": fold})
            key = dataclasses.replace(one, epochs=1) if snapshots(one) else one
            members.append(key)
            runs.setdefault(key, []).append(number)
            longest[key] = max(longest.get(key, 0), one.epochs)
        found.append((values, members, base.epochs))
    made = tuple(
        Run(number, dataclasses.replace(key, epochs=longest[key]), tuple(trials))
        for number, (key, trials) in enumerate(runs.items())
    )
    numbers = {key: number for number, key in enumerate(runs)}
    trials = tuple(
        Trial(number, values, tuple(numbers[key] for key in members), epochs)
        for number, (values, members, epochs) in enumerate(found)
    )
    axes = tuple(name for name in SEARCHED if name != "seed" and len(getattr(search, name)) > 1)
    return Plan(axes, trials, made, tuple(_groups(made)))


def snapshots(config: Config) -> bool:
    """Whether a shorter run is the beginning of a longer one: its learning rate knows no end."""
    return config.optim.schedule == "constant"


def _groups(runs: tuple[Run, ...]) -> list[Group]:
    """Runs that one program computes, each batch a multiple of the group's."""
    groups: dict[tuple[Config, int], list[Run]] = {}
    by_structure: dict[Config, list[Run]] = {}
    for run in runs:
        by_structure.setdefault(structure(run.config), []).append(run)
    for key, members in by_structure.items():
        sizes: list[int] = []
        for size in sorted({run.config.batch_size for run in members}):
            if not any(size % smaller == 0 for smaller in sizes):
                sizes.append(size)
        for run in members:
            size = next(s for s in sizes if run.config.batch_size % s == 0)
            groups.setdefault((key, size), []).append(run)
    return [Group(tuple(members), size) for (_, size), members in groups.items()]


def structure(config: Config) -> Config:
    """`config` with the same numbers for all that may differ within a group."""
    neutral = {SEARCHED[name]: 0.0 for name in REAL if name != "learning_rate"}
    neutral |= {"optim.learning_rate": 1.0, "seed": 0, "batch_size": 1, "epochs": 1}
    if config.data.folds:
        neutral |= {"data.fold": 0}
    return changed(config, neutral)
