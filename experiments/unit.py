"""The training of some members of a search together, and what it leaves behind."""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

import zoo
from experiments import data, fit, train
from experiments.config import Config, ConfigError
from experiments.population import Members, Population, program, varying
from experiments.snapshot import Snapshot
from experiments.standings import Standings
from experiments.streams import Streams
from experiments.team import Team
from experiments.trials import Group, Run, plan

SAVE_SECONDS = 60.0  # between checkpoints of a unit


@dataclasses.dataclass(frozen=True)
class Unit:
    """Members that are trained together in a round: from epoch `start` to epoch `end`."""

    name: str
    group: Group
    runs: tuple[Run, ...]
    size: int  # of the program; more than the runs in the last unit of a round
    start: int
    end: int


class Shared:
    """What the units of a search have in common: its data, its folder, and what is known so far."""

    def __init__(
        self,
        config: Config,
        prepared: data.Prepared,
        run_dir: pathlib.Path,
        resume: bool,
        should_stop: fit.ShouldStop,
        say: fit.Say,
    ) -> None:
        self.config, self.prepared, self.run_dir = config, prepared, run_dir
        self.say, self.plan, self.team = say, plan(config), Team(run_dir)
        self.should_stop = lambda: should_stop() or self.team.stopping()
        self.standings = self._known(resume)
        self.started = time.perf_counter() - self.standings.seconds
        self.kept: dict[str, dict[int, Any]] = {}
        self.devices = jax.local_devices()
        self._populations: dict[int, Population] = {}
        self.longest = max(run.config.epochs for run in self.plan.runs)

    def _known(self, resume: bool) -> Standings:
        """What an earlier process, or several, left in the folder."""
        whole, parts = self.run_dir / "search.json", self.run_dir.glob("search-host*.json")
        standings = Standings(self.plan, [[] for _ in self.plan.runs])
        if resume:
            for path in filter(pathlib.Path.exists, [whole, *parts]):
                part = Standings.load(self.plan, path)
                standings.learn(part.message(range(len(self.plan.runs))))
                standings.seconds = max(standings.seconds, part.seconds)
        self.team.meet({})  # all have read
        if self.team.index == 0:
            self.team.forget_stop()
            if resume:
                standings.save(whole)
            else:
                whole.unlink(missing_ok=True)
            for path in self.run_dir.glob("search-host*.json"):
                path.unlink()
        self.team.meet({})
        return standings

    def clips(self, runs: Sequence[Run]) -> list[int]:
        """Clips in the training split of each run.

        Raises:
            ConfigError: fewer than one of its batches.
        """
        found = []
        for run in runs:
            d, clips = run.config.data, self.prepared.size("train")
            if d.folds:
                clips -= len(data.fold_positions(self.prepared, d)[1])
            if clips < run.config.batch_size:
                raise ConfigError(
                    f"A batch of {run.config.batch_size} clips is more than the {clips} that train "
                    "it: lower batch_size, or add clips."
                )
            found.append(clips)
        return found

    def population(self, group: Group) -> Population:
        """The program of a group, compiled for the devices that there are."""
        key = group.runs[0].number
        if key not in self._populations:
            clips, classes = self.clips(group.runs), len(self.prepared.classes)
            one = program(group.runs, group.batch_size, clips, classes)
            self._populations[key] = Population(one, self.devices)
        return self._populations[key]

    def handed_on(self, run: Run) -> Snapshot:
        """Where the state of a run is kept from one round to the next."""
        return Snapshot(self.run_dir / "checkpoints" / f"run-{run.number:04d}.npz")

    def keep_weights(self, trial: int, run: Run, variables: Any) -> None:
        """Keeps the best member of a trial until the search ends, the best of this host."""
        folder = self.run_dir / "members" / f"host{self.team.index}"
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob(f"trial-{trial:04d}-*"):
            path.unlink()
        name = f"trial-{trial:04d}-run-{run.number:04d}.safetensors"
        zoo.save_weights(folder / name, variables, {"classes": self.prepared.classes})

    def weights(self, trial: int, epochs: int) -> pathlib.Path | None:
        """The weights of the best member of a trial, where any were kept."""
        runs = self.plan.trials[trial].runs
        curves = {number: self.standings.curves[number] for number in runs}
        ended = [number for number in runs if len(curves[number]) >= epochs]
        ended.sort(key=lambda number: _score(curves[number][epochs - 1]), reverse=True)
        for number in ended:
            name = f"*/trial-{trial:04d}-run-{number:04d}.safetensors"
            for path in (self.run_dir / "members").glob(name):
                return path
        return None

    def save(self, *, whole: bool = False) -> None:
        """Writes search.json, or, before the hosts have met, what this one of them knows."""
        self.standings.seconds = time.perf_counter() - self.started
        own = self.team.count > 1 and not whole
        name = f"search-host{self.team.index}.json" if own else "search.json"
        self.standings.save(self.run_dir / name)


class Training:
    """The training of one unit."""

    def __init__(self, search: Shared, unit: Unit) -> None:
        self.search, self.unit, self.standings = search, unit, search.standings
        group, clips = unit.group, search.clips(unit.group.runs)
        self.population = search.population(group)
        self.program = self.population.program
        self.snapshot = Snapshot(search.run_dir / "checkpoints" / f"{unit.name}.npz")
        # The last run fills the program up; what it does there is not looked at.
        fill = unit.size - len(unit.runs) if self.population.mapped else 0
        self.runs = [*unit.runs, *[unit.runs[-1]] * fill]
        places = {run.number: place for place, run in enumerate(group.runs)}
        chosen = [places[run.number] for run in self.runs]
        values = varying(group.runs, group.batch_size, clips)
        self.values = {name: x[chosen] for name, x in values.items()}
        sizes = [run.config.batch_size for run in self.runs]
        # Whole batches of each, in steps of the group's batch size.
        self.steps = np.array(
            [clips[c] // b * (b // group.batch_size) for c, b in zip(chosen, sizes, strict=True)],
            np.int32,
        )
        self.training, self.holding = (
            streams_of(self.runs, held=False),
            streams_of(self.runs, held=True),
        )
        self.saved = time.monotonic()

    def run(self) -> None:
        """Trains the unit to its end."""
        unit = self.unit
        with contextlib.ExitStack() as stack:
            training = self._open(self.training, unit.group.batch_size, train=True)
            stack.callback(training.close)
            holding = self._open(self.holding, self.search.config.eval.batch_size, train=False)
            stack.callback(holding.close)
            carry, epoch, batch = self._begin()
            while epoch < unit.end:
                carry = self._train(carry, epoch, batch, training)
                self._judge(carry, epoch, holding)
                carry = self.population.begin_epoch(carry)
                epoch, batch = epoch + 1, 0
                if epoch < unit.end and time.monotonic() - self.saved > SAVE_SECONDS:
                    self._save(carry, epoch, 0)
                self.search.save()
            if epoch < self.search.longest:
                self._hand_on(carry)
        self.standings.done[unit.name] = [run.number for run in unit.runs]
        self.search.save()
        self.snapshot.path.unlink(missing_ok=True)

    def _open(self, streams: dict[Any, Run], batch_size: int, *, train: bool) -> Streams:
        configs = [run.config for run in streams.values()]
        prepared, kept = self.search.prepared, self.search.kept
        return Streams(prepared, configs, batch_size, kept, train=train)

    def _begin(self) -> tuple[Any, int, int]:
        """The members where they are: in a checkpoint, at the end of the round before, or new."""
        carry = self.population.init(self.population.divide(self.values))
        whole = self.population.gather(carry, len(self.unit.runs))
        epoch, batch = self.unit.start, 0
        curves = [self.standings.curves[run.number][:epoch] for run in self.unit.runs]
        if self.snapshot.exists():
            whole, meta = self.snapshot.restore(whole)
            epoch, batch, curves = meta["epoch"], meta["batch"], meta["curves"]
            self.search.say(f"{self.unit.name}: going on in epoch {epoch + 1}.")
        elif epoch:
            like = jax.tree.map(lambda x: x[0], whole)
            found = [self.search.handed_on(run).restore(like)[0] for run in self.unit.runs]
            whole = jax.tree.map(lambda *leaves: np.stack(leaves), *found)
        for run, curve in zip(self.unit.runs, curves, strict=True):
            self.standings.curves[run.number] = curve
        fill = len(self.runs) - len(self.unit.runs)
        whole = jax.tree.map(lambda x: np.concatenate([x, np.repeat(x[-1:], fill, 0)]), whole)
        return self.population.divide(whole), epoch, batch

    def _members(self, epoch: int) -> Any:
        """What does not change in an epoch. A member that has finished takes no further step."""
        going = [epoch < run.config.epochs for run in self.runs]
        keys = {held: list(s) for held, s in ((False, self.training), (True, self.holding))}
        indices = {
            held: np.array([found.index(_stream(run, held)) for run in self.runs], np.int32)
            for held, found in keys.items()
        }
        limit = np.where(going, self.steps, 0).astype(np.int32)
        members: Any = (self.values, indices[False], indices[True], limit)
        return self.population.divide(Members(*members))

    def _train(self, carry: Any, epoch: int, batch: int, streams: Streams) -> Any:
        """The rest of an epoch, from one of its batches on."""
        members, parts = self._members(epoch), self.program.parts
        end = int(self.steps.max())
        streams.seek(epoch, min(batch, end))
        for first, rows in streams.groups(batch, parts, end):
            taken = self.population.share({name: rows[name] for name in ("clip", "label")})
            # The batch was made ready while the step before was computed.
            jax.block_until_ready(carry)
            carry = self.population.train(carry, members, taken, first)
            if self.search.should_stop():
                self._save(carry, epoch, first + parts)
                raise fit.Interrupted
        return carry

    def _judge(self, carry: Any, epoch: int, streams: Streams) -> None:
        """Validates the members and writes down what the epoch gave."""
        members = self._members(epoch)
        streams.seek(0, 0)
        sums = []
        for _, rows in streams.groups(0, 1):
            taken = {name: rows[name] for name in ("clip", "label", "weight")}
            sums.append(self.population.evaluate(carry, members, self.population.share(taken)))
            if self.search.should_stop():
                self._save(carry, epoch, int(self.steps.max()))
                raise fit.Interrupted
        count = len(self.runs)
        gathered = [self.population.gather(one, count) for one in sums]
        losses, right = jax.tree.map(lambda *x: sum(x), *gathered)
        found = self.population.summary(carry, count)
        held = list(self.holding)
        for place, run in enumerate(self.unit.runs):
            if epoch >= run.config.epochs or run.number in self.standings.diverged:
                continue
            # The last update of an epoch shows in the validation only.
            if not (found.alive[place] and np.isfinite(losses[place])):
                parts = run.config.batch_size // self.unit.group.batch_size
                step = int(found.state[place]) // parts + 1
                self.standings.diverged[run.number] = {"epoch": epoch + 1, "step": step}
                self.search.say(f"{_named(run)}: the loss is not finite at step {step}; left out.")
                continue
            clips = streams.clips[held.index(_stream(run, True))]
            self.standings.curves[run.number].append(
                {
                    "train/loss": float(found.loss[place] / self.steps[place]),
                    "train/top1": float(found.top1[place] / self.steps[place]),
                    "val/loss": float(losses[place] / clips),
                    "val/top1": float(right[place] / clips),
                }
            )
            self._keep_best(carry, place, run, epoch + 1)

    def _keep_best(self, carry: Any, place: int, run: Run, epochs: int) -> None:
        """Keeps the weights of a run that is the best so far of a trial that ends here."""
        for number in run.trials:
            trial = self.search.plan.trials[number]
            if trial.epochs != epochs:
                continue
            own = self.standings.curves[run.number][-1]
            scores = self.standings.scores(trial, epochs)
            if _score(own) == max(map(_score, scores)):
                state = self.population.state(carry, place)
                variables = jax.device_get(train.evaluated_variables(state))
                self.search.keep_weights(number, run, variables)

    def _hand_on(self, carry: Any) -> None:
        """Saves the members one by one, for the units of the next round."""
        whole = self.population.gather(carry, len(self.unit.runs))
        for place, run in enumerate(self.unit.runs):
            state = jax.tree.map(lambda x, place=place: x[place], whole)
            self.search.handed_on(run).save(state, {})

    def _save(self, carry: Any, epoch: int, batch: int) -> None:
        """Saves the unit as it is before a batch of an epoch, without what fills it up: other
        devices may not have to."""
        whole = self.population.gather(carry, len(self.unit.runs))
        curves = [self.standings.curves[run.number] for run in self.unit.runs]
        self.snapshot.save(whole, {"epoch": epoch, "batch": batch, "curves": curves})
        self.saved = time.monotonic()


def _stream(run: Run, held: bool) -> tuple[int, int]:
    """What decides which clips a run is trained on, or validated with."""
    return (0 if held else run.config.seed, run.config.data.fold)


def streams_of(runs: Sequence[Run], *, held: bool) -> dict[tuple[int, int], Run]:
    """The different streams of some runs, each with a run that reads it."""
    return {_stream(run, held): run for run in reversed(runs)}


def _score(values: dict[str, float]) -> tuple[float, float]:
    return values["val/top1"], -values["val/loss"]


def _named(run: Run) -> str:
    fold = f", fold {run.config.data.fold}" if run.config.data.folds else ""
    return f"Run {run.number} (combination {run.trials[0]}, seed {run.config.seed}{fold})"
