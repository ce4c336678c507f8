"""The report of a search: its ranking, the learning curves of all members, and what matters."""

import math
import pathlib
from dataclasses import dataclass
from typing import Any

from experiments.readable import duration, number, percent
from experiments.report.document import document
from experiments.report.markup import Column, count, name, plural, share, table, text
from experiments.report.page import configuration, what
from experiments.report.run_folder import Run, as_number, read_json
from experiments.report.search_charts import Line, coordinates, curves

SCORE = "val/top1"
MOST_ROWS = 200  # of the ranking that are shown


@dataclass(frozen=True)
class Trial:
    """A combination of values and what it came to; `score` and `loss` are None if it diverged."""

    rank: int
    values: dict[str, Any]
    epochs: int
    runs: list[int]
    score: float | None
    spread: float | None
    loss: float | None
    dropped: bool
    diverged: list[str]


@dataclass(frozen=True)
class Found:
    """What search.json and metrics.json hold, as far as it can be used.

    curves: by run, its seed and fold, and its points (epoch, value) by name.
    """

    trials: list[Trial]
    curves: list[tuple[str, dict[str, list[tuple[float, float]]]]]
    seconds: float | None


def render(run: Run, run_dir: pathlib.Path) -> str:
    """The report of a search as a whole HTML document."""
    found = _read(run, run_dir)
    best = found.trials[0] if found.trials else None
    return document(
        run,
        title=_headline(found, best),
        what=what(run),
        lead=_lead(found, best),
        figures=_figures(found, best),
        sections=[
            ("Ranking", _ranking(found)),
            ("Which values do well", _coordinates(found)),
            ("Learning curves", _curves(found, best)),
            ("Configuration", configuration(run)),
        ],
    )


def _headline(found: Found, best: Trial | None) -> str:
    if best is None:
        done = sum(bool(points) for _, points in found.curves)
        return f"Not finished: {done} of {plural(len(found.curves), 'run')} begun"
    if best.score is None:
        return "Every combination diverged"
    return f"{percent(best.score)} of the validation clips by the best combination"


def _lead(found: Found, best: Trial | None) -> str:
    if best is None:
        return (
            "If it was interrupted, <code>python -m experiments.run --resume --out FOLDER</code> "
            "goes on."
        )
    sentences = []
    if best.values:
        sentences.append(f"It has {_values(best)}.")
    sentences.append(
        "<code>best.json</code> is its configuration, to train with <code>python -m "
        "experiments.run --config best.json</code>; <code>model.safetensors</code> are the weights "
        "of its best member. Combinations are judged after their last epoch."
    )
    lost = [trial for trial in found.trials if trial.diverged]
    if lost:
        verb = "has" if len(lost) == 1 else "have"
        sentences.append(f"{plural(len(lost), 'combination')} {verb} members that diverged.")
    return " ".join(sentences)


def _figures(found: Found, best: Trial | None) -> str:
    tiles = [("combinations", count(len(found.trials)), ""), ("runs", count(len(found.curves)), "")]
    if best is not None and best.score is not None:
        members = plural(len(best.runs), "member")
        spread = f"± {percent(best.spread or 0)} over {members}" if len(best.runs) > 1 else ""
        tiles.insert(0, ("best top-1", share(best.score), spread))
    if found.seconds is not None:
        tiles.append(("time", duration(found.seconds), ""))
    return (
        '<dl class="figures">'
        + "".join(
            f"<div><dt>{label}</dt><dd>{value}</dd><dd class='note'>{note}</dd></div>"
            for label, value, note in tiles
        )
        + "</dl>"
    )


def _ranking(found: Found) -> str:
    if not found.trials:
        return ""
    axes = _axes(found)
    columns = [Column("rank"), *(Column(axis) for axis in axes)]
    columns += [Column("epochs"), Column("top-1", "bar"), Column("spread"), Column("loss")]
    columns += [Column("remarks", "text")]
    rows: list[list[tuple[str, float | str | None]]] = []
    for trial in found.trials[:MOST_ROWS]:
        cells: list[tuple[str, float | str | None]] = [(count(trial.rank), trial.rank)]
        for axis in axes:
            value = trial.values.get(axis)
            cells.append((_shown(value), as_number(value) if _is_number(value) else str(value)))
        remarks = [*trial.diverged, *(["dropped"] if trial.dropped else [])]
        cells += [
            (count(trial.epochs), trial.epochs),
            (share(trial.score), trial.score),
            (share(trial.spread), trial.spread),
            ("" if trial.loss is None else number(trial.loss), trial.loss),
            (text("; ".join(remarks)), ""),
        ]
        rows.append(cells)
    more = len(found.trials) - len(rows)
    rest = f"<p>{count(more)} more are in metrics.json.</p>" if more else ""
    caption = "Combinations of values, best first"
    return (
        "<p>Mean and spread (standard deviation) of the validation accuracy over seeds and folds."
        f'</p><div class="scroll tall">{table(columns, rows, caption=caption, sortable=True)}</div>'
        f"{rest}"
    )


def _coordinates(found: Found) -> str:
    scored = [trial for trial in found.trials if trial.score is not None]
    axes = [a for a in _axes(found) if len({str(trial.values.get(a)) for trial in scored}) > 1]
    if not axes or len(scored) < 2:
        return ""
    lines = [
        ([trial.values.get(axis) for axis in axes], float(trial.score or 0), _values(trial))
        for trial in reversed(scored)
    ]
    return (
        "<p>Each line is a combination; the better ones are darker, and the best is blue.</p>"
        + coordinates(axes, lines)
    )


def _curves(found: Found, best: Trial | None) -> str:
    charts = []
    winners = set(best.runs) if best else set()
    for key, title, as_percent in (
        ("val/top1", "Validation accuracy", True),
        ("val/loss", "Validation loss", False),
        ("train/loss", "Training loss", False),
    ):
        lines = [
            Line(label, points[key], number in winners)
            for number, (label, points) in enumerate(found.curves)
            if points.get(key)
        ]
        if lines:
            charts.append(curves(title, lines, as_percent=as_percent))
    if not charts:
        return ""
    return (
        f"<p>All {plural(len(found.curves), 'run')}; those of the best combination are blue.</p>"
        f'<div class="pair">{"".join(charts)}</div>'
    )


def _axes(found: Found) -> list[str]:
    return list(dict.fromkeys(axis for trial in found.trials for axis in trial.values))


def _values(trial: Trial) -> str:
    return ", ".join(f"{text(axis)} {_shown(value)}" for axis, value in trial.values.items())


def _shown(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return text(value)
    known = as_number(value)
    return name(value) if known is None else f"{known:.4g}"


def _is_number(value: Any) -> bool:
    return as_number(value) is not None


def _read(run: Run, run_dir: pathlib.Path) -> Found:
    """The trials of metrics.json and the curves of search.json; what cannot be used is left out."""
    ranked = run.metrics.get("trials")
    trials = [
        trial
        for rank, row in enumerate(ranked if isinstance(ranked, list) else [], start=1)
        if (trial := _trial(rank, row)) is not None
    ]
    known = read_json(run_dir / "search.json", dict, run.notes)
    rows = known.get("runs")
    lines = [_curve(row) for row in (rows if isinstance(rows, list) else [])]
    return Found(trials, lines, run.number("seconds") or as_number(known.get("seconds")))


def _trial(rank: int, row: Any) -> Trial | None:
    if not isinstance(row, dict) or not isinstance(row.get("values"), dict):
        return None
    runs, diverged = row.get("runs"), row.get("diverged")
    lost = [
        f"run {as_number(entry.get('run')) or 0:.0f} diverged in epoch "
        f"{as_number(entry.get('epoch')) or 0:.0f}, step {as_number(entry.get('step')) or 0:.0f}"
        for entry in (diverged if isinstance(diverged, list) else [])
        if isinstance(entry, dict)
    ]
    return Trial(
        rank=rank,
        values={str(key): value for key, value in row["values"].items()},
        epochs=int(as_number(row.get("epochs")) or 0),
        runs=[n for n in (runs if isinstance(runs, list) else []) if isinstance(n, int)],
        score=as_number(row.get(SCORE)),
        spread=as_number(row.get(f"{SCORE}/std")),
        loss=as_number(row.get("val/loss")),
        dropped=row.get("dropped") is True,
        diverged=lost,
    )


def _curve(row: Any) -> tuple[str, dict[str, list[tuple[float, float]]]]:
    if not isinstance(row, dict):
        return "", {}
    fold = "" if row.get("fold") is None else f", fold {row.get('fold')}"
    label = f"run {row.get('run')}, seed {row.get('seed')}{fold}"
    points: dict[str, list[tuple[float, float]]] = {}
    curve = row.get("curve")
    for epoch, values in enumerate(curve if isinstance(curve, list) else [], start=1):
        if isinstance(values, dict):
            for key, value in values.items():
                known = as_number(value)
                points.setdefault(str(key), []).append(
                    (float(epoch), math.nan if known is None else known)
                )
    return label, points
