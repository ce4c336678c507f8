"""A hyperparameter search as one compiled program: its members are trained together.

    python -m experiments.run --config cnn_small_grid

The members of `experiments.trials` are divided into units that fit into memory, each trained by
`experiments.population` from batches that are decoded once. With successive halving the units of a
round end together, and the members of combinations that are not good enough are not in those of the
next round, which is compiled anew for fewer members.

What is known goes into search.json after each epoch, and the state of the unit that is being
trained into a checkpoint now and then: an interrupted search goes on where it was. The result is
metrics.json, the ranking; best.json, a configuration to train from; model.safetensors, the best
member of the best combination; and report.html.
"""

import dataclasses
import math
import pathlib
import shutil
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments import data, fit, report
from experiments.config import SEARCHED, Config, Search, changed, dumps
from experiments.population import memory_of, varying
from experiments.runlog import write_json
from experiments.trials import Group, Plan, Run, plan
from experiments.unit import Shared, Training, Unit, streams_of


def search(
    config: Config,
    prepared: data.Prepared,
    run_dir: pathlib.Path,
    *,
    resume: bool = False,
    should_stop: fit.ShouldStop = lambda: False,
    say: fit.Say = print,
) -> dict[str, Any]:
    """Trains all members of a search and ranks its combinations.

    Args:
        config: with `search` set; `prepared`, `run_dir`, `resume`, `should_stop` and `say` are as
            for `experiments.fit.fit`.

    Returns:
        What is in metrics.json.

    Raises:
        ConfigError: the axes do not fit together, or the data.
        DataError: clips cannot be read or decoded.
        Interrupted: `should_stop` said so; the state is saved.
    """
    return Searching(Shared(config, prepared, run_dir, resume, should_stop, say)).run()


def check(config: Config) -> Plan:
    """The plan of a search, once it is known that every model of it can be made.

    Raises:
        ConfigError: it cannot.
    """
    found = plan(config)
    for group in found.groups:
        fit.check_model(group.runs[0].config)
    return found


class Searching:
    """A search while it lasts."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.config, self.prepared, self.run_dir = shared.config, shared.prepared, shared.run_dir
        self.plan, self.standings, self.say = shared.plan, shared.standings, shared.say
        self.team = shared.team

    def run(self) -> dict[str, Any]:
        """Trains what is left, ranks, and writes the results."""
        trials, runs = len(self.plan.trials), len(self.plan.runs)
        self.say(
            f"{trials} combinations, trained in {runs} runs of {len(self.plan.groups)} group(s)."
        )
        left = set(range(trials))
        rounds = self._rounds()
        for number, (start, end) in enumerate(zip([0, *rounds], rounds, strict=False)):
            self._train_round(number, left, start, end)
            if number + 1 < len(rounds):
                left = self._halve(left, end)
        return self._finish()

    def _train_round(self, number: int, left: set[int], start: int, end: int) -> None:
        """Trains the runs of the trials that are left, each host some of them.

        Raises:
            Interrupted: this host or another was asked to stop; all have saved.
        """
        own: list[int] = []
        stopped = False
        try:
            for place, group in enumerate(self.plan.groups):
                wanted = [run for run in group.runs if left.intersection(run.trials)]
                name = f"round{number}-group{place}"
                self._forget_unfinished(name, wanted, start)
                mine = self.team.part(self._undone(name, wanted))
                own += [run.number for run in mine]
                if mine:
                    self._train_group(f"{name}-{self._share()}", group, mine, start, end)
        except fit.Interrupted:
            stopped = True
            self.team.stop()
        brought = self.team.meet({"stopped": stopped, **self.standings.message(own)})
        for message in brought:
            self.standings.learn(message)
        if any(message["stopped"] for message in brought):
            raise fit.Interrupted
        if self.team.index == 0:
            self.shared.save(whole=True)

    def _share(self) -> str:
        """Which part of the runs this host trains, for the names of its units."""
        return f"part{self.team.index}of{self.team.count}"

    def _undone(self, name: str, runs: Sequence[Run]) -> list[Run]:
        """The runs that were not trained in this round when there was another number of hosts."""
        done = {
            run
            for unit, members in self.standings.done.items()
            if unit.startswith(f"{name}-part") and f"of{self.team.count}-" not in unit
            for run in members
        }
        return [run for run in runs if run.number not in done]

    def _done(self, name: str) -> set[int]:
        """The runs that were trained in this round by any number of hosts."""
        done = self.standings.done.items()
        return {run for unit, runs in done if unit.startswith(f"{name}-part") for run in runs}

    def _forget_unfinished(self, name: str, runs: Sequence[Run], start: int) -> None:
        """What is known of runs that are trained again from the beginning of the round, or from
        the checkpoint of their unit, which holds it: their scores are not to be compared with."""
        done = self._done(name)
        for run in runs:
            if run.number not in done:
                del self.standings.curves[run.number][start:]

    def _rounds(self) -> list[int]:
        """The epochs after which rounds end; a single round without successive halving."""
        longest, factor, rounds = self.shared.longest, self.config.search.halving, []
        at = self.config.search.first_epochs
        while factor and at < longest:
            rounds.append(at)
            at *= factor
        return [*rounds, longest]

    def _halve(self, left: set[int], epochs: int) -> set[int]:
        """The trials that go on after a round."""
        keep = math.ceil(len(left) / self.config.search.halving)
        for trial in left:
            self.standings.dropped[trial] = epochs
        order = [row["trial"] for row in self.standings.ranking() if row["trial"] in left]
        for trial in order[:keep]:
            del self.standings.dropped[trial]
        self.say(f"After {epochs} epochs {keep} of {len(left)} combinations go on.")
        return set(order[:keep])

    def _train_group(
        self, name: str, group: Group, runs: Sequence[Run], start: int, end: int
    ) -> None:
        """Trains runs of a group, in as many units as memory demands.

        Hosts and devices may be others than when some of them were trained: units are named after
        their members, and a member that was trained in another unit is left out.
        """
        key = f"{name}-{len(self.shared.devices)}devices"
        size = self.standings.sizes.get(key) or self._size(group, runs)
        self.standings.sizes[key] = size
        done = self._done(name.rpartition("-")[0])
        units = math.ceil(len(runs) / size)
        size = math.ceil(len(runs) / units)
        for number in range(units):
            members = tuple(runs[number * size : (number + 1) * size])
            members = tuple(run for run in members if run.number not in done)
            if members:
                which = zlib.crc32(repr([run.number for run in members]).encode())
                unit = Unit(f"{name}-unit{number}-{which:08x}", group, members, size, start, end)
                self.say(f"{unit.name}: {len(members)} members together.")
                Training(self.shared, unit).run()

    def _size(self, group: Group, runs: Sequence[Run]) -> int:
        """How many members are trained together."""
        devices = self.shared.devices
        most = self.config.search.together or len(runs)
        each = math.ceil(min(most, len(runs)) / len(devices))
        values = varying(group.runs, group.batch_size, self.shared.clips(group.runs))
        values = {name: np.resize(x, each) for name, x in values.items()}
        streams, memory = len(streams_of(runs, held=False)), memory_of(devices[0])
        population = self.shared.population(group)
        return len(devices) * population.most_members(values, streams, memory)

    def _finish(self) -> dict[str, Any]:
        ranking = self.standings.ranking()
        result = {
            "best": ranking[0],
            "trials": ranking,
            "classes": list(self.prepared.classes),
            "clips": {split: self.prepared.size(split) for split in self.prepared.splits},
            "runs": len(self.plan.runs),
            "diverged": len(self.standings.diverged),
            "seconds": self.standings.seconds,
        }
        if self.team.index == 0:
            self._write(result)
        self.team.meet({})  # the others do not end while this one writes
        return result

    def _write(self, result: dict[str, Any]) -> None:
        """Writes what a search leaves, and removes the rest."""
        best = result["best"]
        alone = dataclasses.replace(self.config, search=Search())
        values = {SEARCHED[name]: value for name, value in best["values"].items()}
        (self.run_dir / "best.json").write_text(dumps(changed(alone, values)), "utf-8")
        weights = self.shared.weights(best["trial"], best["epochs"])
        if weights:
            weights.replace(self.run_dir / "model.safetensors")
        write_json(self.run_dir / "metrics.json", result)
        report.write(self.run_dir)
        for folder in ("members", "checkpoints"):
            shutil.rmtree(self.run_dir / folder, ignore_errors=True)
        for path in self.run_dir.glob("search-host*.json"):
            path.unlink()
