"""What is known of a search so far: the curves of its runs, and the ranking of its trials."""

import json
import math
import pathlib
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from experiments.trials import Plan, Trial

Values = dict[str, float]


@dataclass
class Standings:
    """Plain values, kept in search.json.

    curves: for each run what each of its epochs gave: train/loss, train/top1, val/loss, val/top1.
    diverged: by run, the epoch (from 1) and step in which its loss was no longer finite.
    dropped: by trial, the epochs after which successive halving dropped it.
    done: units of the search that are finished, and their runs.
    sizes: how many members are trained together, by what was measured.
    """

    plan: Plan
    curves: list[list[Values]]
    diverged: dict[int, dict[str, int]] = field(default_factory=dict)
    dropped: dict[int, int] = field(default_factory=dict)
    done: dict[str, list[int]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @classmethod
    def load(cls, plan: Plan, path: pathlib.Path) -> "Standings":
        """Those in the file; without one, of a search that has not begun."""
        if not path.exists():
            return cls(plan, [[] for _ in plan.runs])
        values = json.loads(path.read_text("utf-8"))
        return cls(
            plan,
            [run["curve"] for run in values["runs"]],
            {run["run"]: run["diverged"] for run in values["runs"] if run["diverged"]},
            {trial["trial"]: trial["dropped"] for trial in values["trials"] if trial["dropped"]},
            values["done"],
            values["sizes"],
            values["seconds"],
        )

    def save(self, path: pathlib.Path) -> None:
        """Writes the file in one step."""
        values = {
            "axes": self.plan.axes,
            "trials": [
                {
                    "trial": trial.number,
                    "values": dict(trial.values),
                    "epochs": trial.epochs,
                    "runs": trial.runs,
                    "dropped": self.dropped.get(trial.number),
                }
                for trial in self.plan.trials
            ],
            "runs": [
                {
                    "run": run.number,
                    "seed": run.config.seed,
                    "fold": run.config.data.fold if run.config.data.folds else None,
                    "diverged": self.diverged.get(run.number),
                    "curve": self.curves[run.number],
                }
                for run in self.plan.runs
            ],
            "done": self.done,
            "sizes": self.sizes,
            "seconds": self.seconds,
        }
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(values) + "\n", "utf-8")
        temporary.replace(path)

    def message(self, runs: Iterable[int]) -> dict[str, Any]:
        """What another host should know of some runs, and of units; plain values."""
        return {
            "curves": {str(number): self.curves[number] for number in runs},
            "diverged": {str(n): self.diverged[n] for n in runs if n in self.diverged},
            "done": self.done,
            "sizes": self.sizes,
        }

    def learn(self, message: dict[str, Any]) -> None:
        """Takes over what another host knows, of runs that it has trained further."""
        for number, curve in message["curves"].items():
            if len(curve) >= len(self.curves[int(number)]):
                self.curves[int(number)] = curve
        self.diverged |= {int(number): found for number, found in message["diverged"].items()}
        self.done |= message["done"]
        self.sizes |= message["sizes"]

    def ranking(self) -> list[dict[str, Any]]:
        """The trials, best first: their values, and mean and spread over their runs.

        Judged after its last epoch, not after its best one, which the clips that judge would have
        chosen. Trials that were trained longer come before those that were dropped, and those
        that diverged come last.
        """
        rows = [self._row(trial) for trial in self.plan.trials]
        rows.sort(key=_order)
        return [{"rank": rank, **row} for rank, row in enumerate(rows, start=1)]

    def scores(self, trial: Trial, epochs: int) -> list[Values]:
        """What the runs of a trial gave in the last of `epochs` epochs, where they came so far."""
        curves = [self.curves[number] for number in trial.runs]
        return [curve[epochs - 1] for curve in curves if len(curve) >= epochs]

    def _row(self, trial: Trial) -> dict[str, Any]:
        lost = [number for number in trial.runs if number in self.diverged]
        epochs = self.dropped.get(trial.number, trial.epochs)
        found = [] if lost else self.scores(trial, epochs)
        row: dict[str, Any] = {
            "trial": trial.number,
            "values": dict(trial.values),
            "epochs": epochs,
            "dropped": trial.number in self.dropped,
            "diverged": [{"run": number, **self.diverged[number]} for number in lost],
            "runs": list(trial.runs),
        }
        for name in ("val/top1", "val/loss", "train/loss"):
            values = [one[name] for one in found]
            complete = len(values) == len(trial.runs)
            row[name] = statistics.fmean(values) if complete else None
            row[f"{name}/std"] = statistics.pstdev(values) if complete else None
        return row


def _order(row: dict[str, Any]) -> tuple[Any, ...]:
    if row["val/top1"] is None:
        return (2, 0, math.inf, math.inf, row["trial"])
    reached = row["epochs"] if row["dropped"] else 0
    return (int(row["dropped"]), -reached, -row["val/top1"], row["val/loss"], row["trial"])
