"""What a run came to, in words and as learning curves."""

import math
from typing import Any

from experiments.readable import duration, percent
from experiments.report.charts import Series, finite, line_chart
from experiments.report.markup import count, plural, share
from experiments.report.run_folder import Run, as_number

# Prefixes of metrics.jsonl in drawing order: name and line. Others come after these.
KNOWN_CURVES = {
    "step": ("each step", "step"),
    "train": ("training", "train"),
    "val": ("validation", "val"),
    "ema": ("validation, averaged weights", "ema"),
}


def headline(run: Run) -> str:
    """One sentence: what the run came to."""
    top1, clips = run.number("test/top1"), run.number("test/count")
    if top1 is not None:
        return f"{percent(top1)} of {count(clips) if clips else 'the'} test clips recognized"
    if run.finished:
        return "Finished, without a test result"
    if not run.epochs:
        return "Not finished: no epoch is complete yet"
    of = f" of {run.planned_epochs}" if run.planned_epochs else ""
    done = "epoch" if run.epochs == 1 and not of else "epochs"
    return f"Not finished: {run.epochs}{of} {done} trained"


def lead(run: Run) -> str:
    """The sentences below the headline, as HTML."""
    sentences = []
    classes, top = len(run.classes), best(run)
    if classes and run.number("test/top1") is not None:
        sentences.append(f"Guessing among {plural(classes, 'class')} gives {share(1 / classes)}.")
    if run.finished and top:
        of = f" of {run.planned_epochs}" if run.planned_epochs else ""
        sentences.append(
            f"Tested are the weights after epoch {top[0]}{of}, the best on the validation clips "
            f"({share(top[1])})."
        )
    if not run.finished:
        if top:
            sentences.append(
                f"The best validation accuracy so far is {share(top[1])}, after epoch {top[0]}."
            )
        sentences.append(
            "If it was interrupted, <code>python -m experiments.run --resume --out FOLDER</code> "
            "goes on."
        )
    splits = run.metrics.get("clips")
    if isinstance(splits, dict):
        sizes = [f"{count(n)} to {_purpose(s)}" for s, v in splits.items() if (n := as_number(v))]
        if sizes:
            sentences.append(f"Clips: {', '.join(sizes)}.")
    if broken := run.number("broken_files"):
        sentences.append(f"{plural(broken, 'broken file')} left out.")
    if (total := seconds(run)) is not None:
        took = "The run took" if run.finished else "So far it has taken"
        sentences.append(f"{took} {duration(total)}.")
    return " ".join(sentences)


def best(run: Run) -> tuple[int, float] | None:
    """The epoch (from 1) that did best on the validation clips, and its accuracy.

    For an unfinished run: the highest accuracy so far; among equals the lowest loss, then the
    earliest.
    """
    epoch, top1 = run.number("best/epoch"), run.number("val/top1")
    if epoch is not None and top1 is not None:
        return round(epoch), top1
    found = []
    for line in run.epoch_lines:
        top1, loss = as_number(line.get("val/top1")), as_number(line.get("val/loss"))
        if top1 is not None:
            found.append((top1, math.inf if loss is None else loss, line["epoch"] + 1))
    if not found:
        return None
    top1, _, epoch = max(found, key=lambda entry: (entry[0], -entry[1], -entry[2]))
    return epoch, top1


def seconds(run: Run) -> float | None:
    """Seconds that the run took, or has taken so far."""
    known = [as_number(line.get("seconds")) for line in run.lines]
    last = [value for value in known if value is not None]
    return run.number("seconds") or (last[-1] if last else None)


def clips_per_second(run: Run) -> float | None:
    """Training speed in the last epoch; the first one compiles."""
    rates = [as_number(line.get("clips_per_second")) for line in run.epoch_lines]
    known = [rate for rate in rates if rate is not None]
    return known[-1] if known else None


def curves(run: Run) -> str:
    """Loss and accuracy over the epochs, as HTML; empty where nothing can be drawn."""
    scale, x_title = _epoch_scale(run)
    charts, gaps = [], 0
    top = best(run)
    for suffix, title, as_percent in (("loss", "Loss", False), ("top1", "Accuracy", True)):
        series = _series(run, suffix, scale)
        gaps += sum(len(one.points) - len(finite(one)) for one in series)
        if any(finite(one) for one in series):
            marked = float(top[0]) if top and x_title == "epoch" else None
            charts.append(line_chart(title, x_title, series, as_percent=as_percent, best=marked))
    if not charts:
        return ""
    sentence = ""
    if top:
        sentence = (
            f"<p>Validation accuracy is highest after epoch {top[0]}, at {share(top[1])} (ringed)."
            "</p>"
        )
    if gaps:
        sentence += (
            f'<p class="warning">{plural(gaps, "value")} not finite: drawn as a gap. A run '
            "that diverges needs a lower learning rate or <code>--optim.clip_norm</code>.</p>"
        )
    return f'{sentence}<div class="pair">{"".join(charts)}</div>'


def _series(run: Run, suffix: str, scale: float) -> list[Series]:
    """The curves PREFIX/suffix, the known ones first."""
    found: dict[str, list[tuple[float, float]]] = {}
    for line in run.lines:
        for key, value in line.items():
            prefix, slash, last = key.rpartition("/")
            if slash and last == suffix and (y := _value(value)) is not None:
                found.setdefault(prefix, []).append((line["step"] / scale, y))
    order = [*(p for p in KNOWN_CURVES if p in found), *(p for p in found if p not in KNOWN_CURVES)]
    return [Series(*KNOWN_CURVES.get(p, (p, "other")), points=found[p]) for p in order]


def _value(value: Any) -> float | None:
    """A number, NaN where it is one that cannot be drawn; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    known = as_number(value)
    return math.nan if known is None else 0.0 if abs(known) < 1e-15 else known


def _epoch_scale(run: Run) -> tuple[float, str]:
    """Steps per unit of the horizontal axis, and the unit: epochs once one is complete."""
    for line in run.epoch_lines:
        if line["step"] > 0:
            return line["step"] / (line["epoch"] + 1), "epoch"
    return 1.0, "step"


def _purpose(split: Any) -> str:
    names = {"train": "train", "val": "validate", "test": "test"}
    return names.get(str(split), str(split))
