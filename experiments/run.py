"""`python -m experiments.run --config NAME`: the command line of training, and nothing else."""

import os
import pathlib
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from experiments import configs
from experiments.config import Config, ConfigError, differences, dumps
from experiments.hosts import Distributed, Hosts

# Fields that change how fast a run is and not what it computes: a resumed run may change them.
FREE_ON_RESUME = (
    "data.workers",
    "data.threads",
    "data.memory",
    "data.timeout",
    "checkpoint_steps",
)


@dataclass(frozen=True)
class Arguments:
    """Trains, validates, tests and reports one experiment. All fields of the configuration can be
    changed, for instance `--optim.learning_rate 3e-4`; the values shown are those of `--config`.
    """

    settings: Annotated[Config, tyro.conf.arg(name="")]
    config: str = "cnn_small"
    """Name of a configuration (see --list), or a JSON file such as a run folder's config.json."""
    out: str = ""
    """Run folder; the default is the next free runs/NAME-001, runs/NAME-002, ..."""
    resume: bool = False
    """Go on from the last checkpoint in --out, or in the newest run folder of --config."""
    list: bool = False
    """Show the configurations and stop."""
    plan: str = ""
    """Compile the train step for a machine that need not be here, say what it takes, and stop: cpu
    for this one, or v5e:2x4, v6e:4x4, h200 and other chips and slices."""
    distributed: Distributed = field(default_factory=Distributed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    hosts = Hosts()
    return hosts.end(_main(arguments, hosts))


def _main(arguments: Sequence[str], hosts: Hosts) -> int:
    try:
        name = _config_name(arguments)
        if "--list" in arguments:
            print(configs.describe())
            return 0
        default = configs.load(name)
        parsed = parse(arguments, name, default)
        if parsed.plan:
            from experiments.plan import plan

            plan(parsed.settings, parsed.plan)
            return 0
        hosts.start(parsed.distributed)
        return _run(parsed, default, hosts)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped before anything was done.", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # `--help | head`; Python would complain once more when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def parse(arguments: Sequence[str], name: str, default: Config) -> Arguments:
    """The command line as values, where `--config` is `name` and stands for `default`.

    Raises:
        ConfigError: a value cannot be used.
        SystemExit: an argument is not known, after a message.
    """
    return tyro.cli(
        Arguments,
        prog="python -m experiments.run",
        args=list(arguments),
        default=Arguments(settings=default, config=name),
        use_underscores=True,
    )


def _config_name(arguments: Sequence[str]) -> str:
    """The value of --config, read before all others because it sets their defaults."""
    for i, argument in enumerate(arguments):
        if argument.startswith("--config="):
            return argument.partition("=")[2]
        if argument == "--config":
            if i + 1 == len(arguments) or arguments[i + 1].startswith("--"):
                raise ConfigError("--config needs a name; `--list` shows them.")
            return arguments[i + 1]
    return Arguments.config


def _run(arguments: Arguments, default: Config, hosts: Hosts) -> int:
    stem = pathlib.Path(arguments.config).stem
    run_dir, config, resume = hosts.from_first(
        lambda: (*_run_folder(arguments, stem, default), arguments.resume)
    )
    if (run_dir / "metrics.json").exists():
        print(f"{run_dir} is finished: see {run_dir / 'report.html'}.")
        return 0

    again = f"python -m experiments.run --config {arguments.config} --out {run_dir} --resume"
    with Signals() as signals:
        try:
            return _fit(config, run_dir, resume, signals, hosts)
        except KeyboardInterrupt:
            hosts.agreed = signals.saved
            if signals.saved:
                print(f"Stopped; everything is saved. Go on with:\n  {again}")
            else:
                print(f"Stopped at once. Start again, from the last checkpoint, with:\n  {again}")
            return 128 + (signals.asked or [signal.SIGINT])[0]
        except OSError as error:
            print(f"error: {error}; when that is mended go on with:\n  {again}", file=sys.stderr)
            return 1


def _fit(
    config: Config,
    run_dir: pathlib.Path,
    resume: bool,
    signals: "Signals",
    hosts: Hosts,
) -> int:
    # Imported late: `--help` and `--list` answer without loading JAX.
    import jax

    from experiments import data, fit, grid
    from experiments.checkpoint import CheckpointError
    from zoo.video import VideoError

    signals.check()
    try:
        searching = config.search.wanted
        if searching:
            grid.check(config)
        else:
            fit.check_model(config)
        prepared = data.prepare(config.data, say=hosts.say)
        signals.check()
        signals.immediate = False
        train = grid.search if searching else fit.fit
        result = train(
            config,
            prepared,
            run_dir,
            resume=resume,
            should_stop=lambda: bool(signals.asked),
            say=hosts.say,
        )
    except fit.Interrupted as error:
        signals.saved = True
        raise KeyboardInterrupt from error
    except (
        ConfigError,
        VideoError,
        CheckpointError,
        data.DataError,
        fit.TrainingDiverged,
    ) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except jax.errors.JaxRuntimeError as error:
        if hosts.count == 1:
            raise
        print(hosts.lost(error), file=sys.stderr)
        return 1
    if searching:
        best = result["best"]
        hosts.say(
            f"best of {len(result['trials'])} combinations: {_values(best['values'])}, val/top1 "
            f"{best['val/top1'] or 0:.4f}, in {result['seconds']:.0f} s\n"
            f"train it with: python -m experiments.run --config {run_dir / 'best.json'}\n"
            f"report: {run_dir / 'report.html'}"
        )
        return 0
    hosts.say(
        f"test/top1 {result['test/top1']:.4f} over {result['clips']['test']} clips "
        f"in {result['seconds']:.0f} s\nreport: {run_dir / 'report.html'}"
    )
    return 0


def _values(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


class Signals:
    """SIGINT and SIGTERM: at once, or, in the training loop, after the step that is running.

    Python cannot raise in a callback, such as one of the garbage collector's: an interrupt that
    falls there would be printed and forgotten. In an import it breaks what is imported: extensions
    of C++ abort, and after one in a dataclass's `exec` Python ends as if nobody had caught it. In
    both it is asked for again a moment later; one that is swallowed elsewhere is remembered, and
    `check` raises it.
    """

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.immediate = True
        self.saved = False
        self._over = False
        self._timers: list[threading.Timer] = []

    def __enter__(self) -> "Signals":
        numbers = (signal.SIGINT, signal.SIGTERM)
        self._before = {number: signal.signal(number, self._ask) for number in numbers}
        self._unraisable, sys.unraisablehook = sys.unraisablehook, self._ask_again
        return self

    def __exit__(self, *exception: object) -> None:
        # An interrupt that is asked for again must not come when nobody waits for it any more.
        self._over = True
        for timer in self._timers:
            timer.cancel()
            timer.join()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        sys.unraisablehook = self._unraisable

    def check(self) -> None:
        """Raises KeyboardInterrupt if the process was asked to stop."""
        if self.asked:
            raise KeyboardInterrupt

    def _ask(self, number: int, frame: Any) -> None:
        if self._over:
            return
        if self.immediate and _importing(frame):
            self._again(number)
            return
        self.asked.append(number)
        if self.immediate or len(self.asked) > 1:  # asked twice: the user does not want to wait
            raise KeyboardInterrupt
        print("\nStopping after this step; once more to stop at once.", file=sys.stderr)

    def _ask_again(self, unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            self._unraisable(unraisable)
            return
        self._again(self.asked[-1])

    def _again(self, number: int) -> None:
        timer = threading.Timer(0.05, os.kill, (os.getpid(), number))
        timer.daemon = True
        self._timers.append(timer)
        timer.start()


def _importing(frame: Any) -> bool:
    """Whether a module is being imported in a frame or in one of those that called it."""
    while frame:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _run_folder(arguments: Arguments, stem: str, default: Config) -> tuple[pathlib.Path, Config]:
    """The folder of the run and its configuration, which a resumed run reads from there."""
    runs = sorted(pathlib.Path("runs").glob(f"{stem}-[0-9][0-9][0-9]"))
    if not arguments.resume:
        number = int(runs[-1].name[-3:]) + 1 if runs else 1
        run_dir = pathlib.Path(arguments.out or f"runs/{stem}-{number:03d}")
        if _has_run(run_dir):
            raise ConfigError(
                f"{run_dir} is not empty: add --resume to go on with the run in it, or choose "
                "another --out."
            )
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            (run_dir / "config.json").write_text(dumps(arguments.settings), "utf-8")
        except OSError as error:
            raise ConfigError(f"--out {run_dir} cannot be written: {error.strerror}.") from error
        return run_dir, arguments.settings

    if not arguments.out and not runs:
        raise ConfigError(f"There is no run of {stem} in runs/ to resume: name one with --out.")
    run_dir = pathlib.Path(arguments.out) if arguments.out else runs[-1]
    saved = configs.load(os.fspath(run_dir / "config.json"))
    changed = set(differences(arguments.settings, default))
    wrong = [name for name in differences(arguments.settings, saved) if name in changed]
    wrong = [name for name in wrong if name not in FREE_ON_RESUME]
    if wrong:
        raise ConfigError(
            f"{run_dir} was started with another {', '.join(wrong)}: a resumed run keeps its "
            "configuration; leave these out, or start a new run."
        )
    return run_dir, saved


def _has_run(folder: pathlib.Path) -> bool:
    """Whether anything but a configuration, which a run without success leaves, is in a folder."""
    try:
        return any(path.name != "config.json" for path in folder.iterdir())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigError(f"--out {folder} is no folder for a run: {error.strerror}.") from error


if __name__ == "__main__":
    raise SystemExit(main())
