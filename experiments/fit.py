"""The training run: data, epochs, validation, checkpoints, test and report, top to bottom."""

import contextlib
import dataclasses
import io
import pathlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

import zoo
from experiments import data, examples, finetune, metrics, report, train
from experiments.checkpoint import Checkpoints
from experiments.config import Config, ConfigError
from experiments.parallel import Devices
from experiments.part import Part
from experiments.progress import Progress
from experiments.runlog import RunLog, Stages, write_json
from zoo import registry

ShouldStop = Callable[[], bool]
Evaluator = Callable[[Any, Any], dict[str, Any]]
Say = Callable[[str], None]


class TrainingDiverged(RuntimeError):
    """The loss is not a number; the message names the step and the clips of the batch."""


class Interrupted(RuntimeError):
    """The run was asked to stop. What can be continued is saved."""


@dataclass
class Position:
    """Where a run is: all that a checkpoint keeps beside the arrays. Plain values, for JSON."""

    epoch: int = 0
    step_in_epoch: int = 0
    loss_sum: float = 0.0
    top1_sum: float = 0.0
    best_epoch: int = -1
    best_top1: float = -1.0
    best_loss: float = float("inf")
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    log_size: int = 0
    input: dict[str, Any] = field(default_factory=dict)


def fit(
    config: Config,
    prepared: data.Prepared,
    run_dir: pathlib.Path,
    *,
    resume: bool = False,
    should_stop: ShouldStop = lambda: False,
    say: Say = print,
) -> dict[str, Any]:
    """Trains, validates each epoch, tests the best state, writes the report.

    Args:
        prepared: the clips, from `experiments.data.prepare(config.data)`.
        run_dir: folder of the run; `experiments.report` lists the files in it.
        resume: go on from the last checkpoint in `run_dir`, exactly where it was.
        should_stop: asked after every batch; once true, the state is saved and the run ends.
        say: where lines for the user go.

    Returns:
        The final metrics, as written to metrics.json.

    Raises:
        DataError: clips cannot be read or decoded.
        Interrupted: `should_stop` said so; the checkpoint is written.
        TrainingDiverged: the loss became NaN or infinite.
    """
    run = Run(config, run_dir, prepared, resume, should_stop, say)
    try:
        run.train_epochs()
        return run.test()
    finally:
        run.close()


def check_model(config: Config) -> None:
    """Refuses a model that does not exist or fit; call it before hours of data preparation.

    Raises:
        ConfigError: there is no such model, it cannot take such clips, or the weights that it
            starts from cannot be had or do not fit.
    """
    try:
        model = train.make_model(config, 2)
        given = train.numbers(config, 1)
        state = jax.eval_shape(lambda: train.init_state(model, config, given))
        if config.model.pretrained:
            train.check_weights(state, config.model.pretrained)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"The model cannot be made: {error}.") from error


class Run:
    """One training run: what is compiled and open while it lasts."""

    def __init__(
        self,
        config: Config,
        run_dir: pathlib.Path,
        prepared: data.Prepared,
        resume: bool,
        should_stop: ShouldStop,
        say: Say,
    ) -> None:
        self.started = time.perf_counter()
        self.config, self.run_dir, self.prepared = config, run_dir, prepared
        self.devices = Devices()
        self.first = self.devices.host == 0  # the host that writes and speaks
        self.should_stop, self.say = should_stop, say if self.first else lambda line: None
        self.stopping = False  # whether any of several hosts was asked to stop
        self.classes = prepared.classes
        self.subsets: dict[str, tuple[str, list[int] | None]] = {
            split: (split, None) for split in prepared.splits
        }
        if config.data.folds:
            trained, held = data.fold_positions(prepared, config.data)
            self.subsets |= {"train": ("train", trained), "val": ("train", held)}
        clips = self._clips("train")
        self.batch_size = min(config.batch_size, clips)
        if self.batch_size < config.batch_size:
            wanted = config.batch_size
            self.say(f"Batches have {self.batch_size} clips, all there are, not {wanted}.")
        self.steps_per_epoch = clips // self.batch_size
        # The first batches are decoded while the step is compiled.
        self.input = self._batches("train", self.batch_size, train=True)

        self.model = train.make_model(config, len(self.classes))
        given = train.numbers(config, self.steps_per_epoch)
        self.schedule = train.learning_rate(config.optim, given)

        def step(
            state: train.TrainState, batch: train.Batch, part: Part | None
        ) -> tuple[train.TrainState, Any]:
            classes = len(self.classes)
            return train.train_step(self.model, config, classes, given, state, batch, part)

        self.state = jax.jit(lambda: train.init_state(self.model, config, given))()
        if config.model.pretrained:
            self.state = train.start_from(self.state, config.model.pretrained)
            for line in finetune.other_input(
                config, registry.weights_spec(config.model.pretrained)
            ):
                self.say(line)
        self.state = self.devices.replicate(self.state)
        self.train_step = self.devices.train_step(step, self.batch_size)
        self.checkpoints = Checkpoints(run_dir / "checkpoints")
        self.position = Position()
        self.stages = Stages({})
        if resume:
            self._restore()
        log_dir = run_dir if self.first else None
        self.log = RunLog(log_dir, self.position.log_size, int(self.state.step))

    def _restore(self) -> None:
        """Goes back to the last checkpoint of the run folder; without one, to the beginning."""
        if self.checkpoints.latest_step("last") is None:
            self.say("There is no checkpoint yet: starting from the beginning.")
            return
        self.state, values = self.checkpoints.restore("last", self.state)
        self.position = Position(**values)
        self.stages = Stages(self.position.stages)
        self.input.set_state(self.position.input)
        self.say(f"Going on from step {int(self.state.step)}, epoch {self.position.epoch + 1}.")

    def train_epochs(self) -> None:
        """Trains all epochs that are left, validating and saving after each."""
        at = self.position
        total = self.steps_per_epoch * self.config.epochs
        validate = self._evaluator(crops=1)
        validation = self._batches("val", self.config.eval.batch_size, train=False)
        try:
            stream = None if self.first else io.StringIO()
            start = int(self.state.step)
            with Progress(total, self.config.epochs, initial=start, stream=stream) as progress:
                while at.epoch < self.config.epochs:
                    seconds, steps = self._train_epoch(progress)
                    scores, _, _ = self._evaluate("val", validate, validation)
                    validation.rewind()
                    line = {
                        "train/loss": at.loss_sum / self.steps_per_epoch,
                        "train/top1": at.top1_sum / self.steps_per_epoch,
                        "val/loss": scores["loss"],
                        "val/top1": scores["top1"],
                        "clips_per_second": steps * self.batch_size / max(seconds, 1e-9),
                        "seconds": self._seconds(),
                        **self._stage_values(),
                    }
                    self.log.write(int(self.state.step), at.epoch, line)
                    progress.epoch(at.epoch + 1, line)
                    if (scores["top1"], -scores["loss"]) > (at.best_top1, -at.best_loss):
                        at.best_epoch, at.best_top1 = at.epoch, scores["top1"]
                        at.best_loss = scores["loss"]
                        with self.stages.time("checkpoint"):
                            self.checkpoints.save(
                                "best", int(self.state.step), self.state, {"epoch": at.epoch}
                            )
                    at.epoch, at.step_in_epoch = at.epoch + 1, 0
                    at.loss_sum = at.top1_sum = 0.0
                    self._save()
        except Interrupted:
            self._save()
            raise
        finally:
            validation.close()

    def _train_epoch(self, progress: Progress) -> tuple[float, int]:
        """Trains to the end of the epoch; returns the seconds and the steps that it took."""
        at, started, steps = self.position, time.perf_counter(), 0
        # The values of a step are read after the next one is under way: the device never waits.
        running: list[tuple[int, np.ndarray, Any]] = []
        while at.step_in_epoch < self.steps_per_epoch:
            with self.stages.time("wait for input"):
                batch = next(self.input)
            with self.stages.time("transfer"):
                arrays = jax.block_until_ready(self.devices.put(self._for_step(batch)))
            with self.stages.time("step"):
                self.state, values = self.train_step(self.state, arrays)
            steps += 1
            at.step_in_epoch += 1
            at.input = self.input.get_state()
            step = at.epoch * self.steps_per_epoch + at.step_in_epoch
            running.append((step, batch["index"], values))
            stop = self.should_stop() if self.devices.hosts == 1 else self.stopping
            save = at.step_in_epoch % self.config.checkpoint_steps == 0
            last = at.step_in_epoch == self.steps_per_epoch
            while len(running) > (0 if stop or save or last else 1):
                self._account(*running.pop(0), progress)
            if stop:
                raise Interrupted
            if save and not last:
                self._save()
        return time.perf_counter() - started, steps

    def _for_step(self, batch: train.Batch) -> train.Batch:
        """What the train step takes of a batch of the input."""
        names = ["clip", "label"]
        if self.batch_size % self.devices.count:
            names.append("weight")
        taken = {name: batch[name] for name in names}
        if self.devices.hosts > 1:
            local = self.devices.count // self.devices.hosts
            taken["stop"] = np.full(local, self.should_stop(), np.int32)
        return taken

    def _account(self, step: int, indices: np.ndarray, values: Any, progress: Progress) -> None:
        """Adds the values of a finished step to the sums, the progress bar and the log."""
        with self.stages.time("step"):
            values = {name: float(value) for name, value in values.items()}
        self.stopping |= values.pop("stop", 0.0) > 0
        if not np.isfinite(values["loss"]):
            names = [self.prepared.source_name("train", int(i)) for i in indices]
            raise TrainingDiverged(
                f"The loss is {values['loss']} at step {step}; lower optim.learning_rate or set "
                f"optim.clip_norm, and look at the clips of this batch: {', '.join(names)}."
            )
        self.position.loss_sum += values["loss"]
        self.position.top1_sum += values["top1"]
        progress.update(step, clips=self.batch_size, loss=values["loss"], top1=values["top1"])
        if step % max(1, self.steps_per_epoch // 10) == 0:
            rate = float(np.asarray(self.schedule((step - 1) // self.config.optim.accumulate)))
            self.log.write(
                step,
                (step - 1) // self.steps_per_epoch,
                {f"step/{name}": value for name, value in values.items()}
                | {"step/learning_rate": rate},
            )

    def test(self) -> dict[str, Any]:
        """Tests the best state with several views, and writes metrics.json and the report."""
        self.state, _ = self.checkpoints.restore("best", self.state)
        evaluation = self.config.eval
        batches = self._batches("test", evaluation.batch_size, train=False, views=evaluation.views)
        with contextlib.closing(batches):
            scores, log_probabilities, labels = self._evaluate(
                "test", self._evaluator(evaluation.crops), batches
            )
        at = self.position
        result = {f"test/{name}": value for name, value in scores.items()} | {
            "val/top1": at.best_top1,
            "val/loss": at.best_loss,
            "best/epoch": at.best_epoch + 1,
            "classes": list(self.classes),
            "clips": {name: self._clips(name) for name in self.subsets},
            "broken_files": len(self.prepared.quarantine),
            "parameters": sum(p.size for p in jax.tree.leaves(self.state.params)),
            "views": evaluation.views * evaluation.crops,
            "seconds": self._seconds(),
            "stages": self._stage_values(),
        }
        if not self.first:
            return result
        variables = jax.device_get(train.evaluated_variables(self.state))
        zoo.save_weights(self.run_dir / "model.safetensors", variables, {"classes": self.classes})
        examples.write(self.run_dir / "examples", self.prepared, "test", log_probabilities, labels)
        write_json(self.run_dir / "metrics.json", result)
        report.write(self.run_dir)
        return result

    def close(self) -> None:
        """Stops the input pipeline and closes the files."""
        self.input.close()
        self.log.close()
        self.checkpoints.close()

    def _clips(self, name: str) -> int:
        """Clips that train, validate or test."""
        split, subset = self.subsets[name]
        return self.prepared.size(split) if subset is None else len(subset)

    def _batches(
        self, split: str, batch_size: int, *, train: bool, views: int = 1
    ) -> data.BatchIterator:
        d = self.config.data
        source, subset = self.subsets[split]
        return data.batches(
            self.prepared,
            source,
            subset=subset,
            batch_size=batch_size,
            frames=d.frames,
            size=(d.decode_size, d.decode_size),
            fit=d.fit,
            sampling=d.sampling if train or d.sampling == "dense" else "uniform",
            stride=d.stride,
            views=views,
            train=train,
            seed=self.config.seed,
            workers=d.workers,
            threads=d.threads,
            timeout=d.timeout,
            memory=d.memory * 2**20,
            host_index=self.devices.host,
            host_count=self.devices.hosts,
            parts=self.devices.count,
        )

    def _evaluator(self, crops: int) -> Evaluator:
        def step(variables: Any, clip: jax.Array) -> jax.Array:
            return train.eval_step(self.model, self.config, crops, variables, clip)

        return self.devices.eval_step(step)

    def _evaluate(
        self, split: str, step: Evaluator, batches: Iterable[train.Batch]
    ) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
        """Metrics, log-probabilities [n k] and labels [n] of the whole split."""
        variables = train.evaluated_variables(self.state)
        found, labels = [], []
        with self.stages.time(split):
            for batch in batches:
                # Several hosts go on to the next train step, where they agree to stop.
                if self.devices.hosts == 1 and self.should_stop():
                    raise Interrupted
                rows = {name: batch[name] for name in ("clip", "label", "weight")}
                whole = jax.device_get(step(variables, self.devices.put(rows)))
                real = whole["weight"] > 0
                found.append(whole["log_probabilities"][real])
                labels.append(whole["label"][real])
        log_probabilities, all_labels = np.concatenate(found), np.concatenate(labels)
        scores = metrics.evaluate(log_probabilities, all_labels, self.classes)
        return scores, log_probabilities, all_labels

    def _save(self) -> None:
        at = self.position
        at.seconds, at.stages, at.log_size = self._seconds(), self.stages.seconds, self.log.size()
        with self.stages.time("checkpoint"):
            step = int(self.state.step)
            self.checkpoints.save("last", step, self.state, dataclasses.asdict(at))

    def _seconds(self) -> float:
        now = time.perf_counter()
        self.position.seconds += now - self.started
        self.started = now
        return self.position.seconds

    def _stage_values(self) -> dict[str, float]:
        """Seconds of the loop's stages, and of the input pipeline's own, which run beside it."""
        own = {f"input/{name}": value for name, value in self.input.stage_seconds().items()}
        return {f"stage/{name}": value for name, value in self.stages.seconds.items()} | own
