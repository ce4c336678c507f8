"""The test in detail: confusion matrix, classes one by one, calibration."""

import math

from experiments.readable import percent
from experiments.report.charts import heat_map, reliability_chart
from experiments.report.markup import Column, count, name, plural, share, table, text
from experiments.report.run_folder import Run, as_number

LARGE = 25  # classes above which the matrix is too wide for a page
SMALL = 4  # classes up to which a cell has room for its share too
PAIRS = 10  # most confused pairs that are listed


def interval(accuracy: float, clips: float) -> tuple[float, float]:
    """95% confidence interval of an accuracy measured on `clips` clips (Wilson 1927)."""
    z = 1.959964
    center = (accuracy + z * z / (2 * clips)) / (1 + z * z / clips)
    half = (
        z
        / (1 + z * z / clips)
        * math.sqrt(max(accuracy * (1 - accuracy), 0) / clips + z * z / (4 * clips * clips))
    )
    return max(center - half, 0.0), min(center + half, 1.0)


def confusion(run: Run) -> str:
    """The confusion matrix with a sentence on it, and the most confused pairs of many classes."""
    matrix, classes = run.confusion, run.classes
    if not matrix:
        return ""
    pairs = sorted(
        (
            (value, sum(row), i, j)
            for i, row in enumerate(matrix)
            for j, value in enumerate(row)
            if i != j and value > 0
        ),
        key=lambda pair: (-pair[0], -pair[0] / pair[1], pair[2], pair[3]),
    )
    if pairs:
        value, total, i, j = pairs[0]
        sentence = (
            f"Most often {name(classes[i])} is taken for {name(classes[j])}: {count(value)} of "
            f"{plural(total, 'clip')}."
        )
    else:
        sentence = "No clip is taken for another class."
    key = "Rows are the true class, columns the prediction; an empty cell is 0."
    grid = _matrix(matrix, classes)
    listed = _confused(pairs[:PAIRS], classes) if len(classes) > SMALL else ""
    if len(classes) <= LARGE:
        return f'<p>{sentence} {key}</p><div class="matrix">{grid}{listed}</div>'
    return (
        f'<p>{sentence} {key}</p><div class="pair heat-pair"><figure>'
        f"{heat_map(matrix, classes)}<figcaption>Each row is a true class, from the first at the "
        f"top to the last; a perfect model leaves only the diagonal.</figcaption></figure>{listed}"
        f'</div><details class="all"><summary>All {len(classes)} x {len(classes)} cells</summary>'
        f"{grid}</details>"
    )


def _confused(pairs: list[tuple[float, float, int, int]], classes: list[str]) -> str:
    """The pairs (clips, clips of the true class, true, predicted) as a table."""
    if not pairs:
        return ""
    columns = [
        Column("true", "text"),
        Column("taken for", "text"),
        Column("clips"),
        Column("share"),
    ]
    rows = [
        [
            (name(classes[i]), classes[i]),
            (name(classes[j]), classes[j]),
            (count(value), value),
            (share(value / total), value / total),
        ]
        for value, total, i, j in pairs
    ]
    return (
        f"<div><h3>Most often confused</h3>{table(columns, rows, caption='Confused classes')}</div>"
    )


def _matrix(matrix: list[list[float]], classes: list[str]) -> str:
    """The matrix as a table; a cell is darker the larger its share of the true class."""
    heads = "".join(
        f'<th scope="col" title="{text(label)}"><span>{name(label)}</span></th>'
        for label in classes
    )
    rows = []
    for i, row in enumerate(matrix):
        total = sum(row)
        cells = "".join(_cell(value, total, i == j, len(classes)) for j, value in enumerate(row))
        rows.append(
            f'<tr><th scope="row" title="{text(classes[i])}"><span>{name(classes[i])}</span></th>'
            f"{cells}</tr>"
        )
    size = "small" if len(classes) <= SMALL else "large" if len(classes) > LARGE else "medium"
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Confusion matrix">'
        f'<table class="confusion {size}"><caption class="unseen">Confusion matrix: rows are the '
        f"true class, columns the prediction</caption><thead><tr><td class='corner'>"
        f"<span>true ↓</span> <span>predicted →</span></td>{heads}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(value: float, total: float, diagonal: bool, classes: int) -> str:
    part = value / total if total else 0.0
    kind = "hit" if diagonal else "miss"
    if not value:
        return f'<td class="{kind}"></td>' if diagonal else "<td></td>"
    small = f"<small>{percent(part)}</small>" if classes <= SMALL else ""
    # Ten shades: enough to see, and classes are shorter than styles in a matrix of 10,000 cells.
    return f'<td class="{kind} s{max(1, round(10 * part))}">{count(value)}{small}</td>'


def per_class(run: Run) -> str:
    """Precision, recall and F1 of each class."""
    given = run.metrics.get("test/per_class")
    entries = [row for row in given if isinstance(row, dict)] if isinstance(given, list) else []
    if not entries:
        return ""
    columns = [
        Column("class", "text"),
        Column("clips"),
        Column("precision"),
        Column("recall"),
        Column("F1", "bar"),
    ]
    rows = []
    for entry in entries:
        support = as_number(entry.get("support"))
        label = str(entry.get("class", ""))
        shares = [as_number(entry.get(key)) for key in ("precision", "recall", "f1")]
        rows.append(
            [
                (name(label), label),
                (count(support or 0), support),
                *((share(value), value) for value in shares),
            ]
        )
    known = [(row[4][1], row[0][0]) for row in rows if isinstance(row[4][1], float)]
    sentence = ""
    if len(known) > 1:
        (low, worst), (high, finest) = min(known), max(known)
        sentence = f"F1 runs from {share(low)} ({worst}) to {share(high)} ({finest}). "
        if low == high:
            sentence = f"F1 is {share(low)} for every class. "
    tall = " tall" if len(rows) > 30 else ""
    return (
        f"<p>{sentence}Precision: how many clips given this name deserve it. Recall: how many "
        "clips of this class are found. F1: both in one (their harmonic mean). A dash: nothing to "
        f'divide by.</p><div class="scroll{tall}" tabindex="0" role="region" '
        f'aria-label="Classes">{table(columns, rows, caption="Classes", sortable=True)}</div>'
    )


def calibration(run: Run) -> str:
    """The reliability diagram with a sentence that says how far confidence can be trusted."""
    given = run.metrics.get("test/calibration")
    bins = []
    for entry in given if isinstance(given, list) else []:
        keys = ("low", "high", "weight", "confidence", "accuracy")
        values = [as_number(entry.get(k)) if isinstance(entry, dict) else None for k in keys]
        if all(value is not None for value in values) and (values[2] or 0) > 0:
            bins.append(tuple(value or 0.0 for value in values))
    if not bins:
        return ""
    total = sum(bin[2] for bin in bins)
    confidence = sum(bin[2] * bin[3] for bin in bins) / total
    accuracy = sum(bin[2] * bin[4] for bin in bins) / total
    points = 100 * (confidence - accuracy)
    if abs(points) < 0.05:
        verdict = "on the whole exactly as sure as it should be"
    else:
        verdict = (
            f"{abs(points):.1f} points {'too sure' if points > 0 else 'too modest'} on average"
        )
    ece = run.number("test/ece")
    error = (
        f" Over the bins the gap is {share(ece)} (calibration error)." if ece is not None else ""
    )
    return (
        f'<div class="beside"><div><p>The model names its first guess with {share(confidence)} '
        f"confidence and is right in {share(accuracy)} of the clips: {verdict}.{error}</p>"
        "<p>Each bar is a group of clips of similar confidence; its height is the share that is "
        "right. On the dashed diagonal, confidence is accuracy; the vertical line is the gap to "
        f"it. The lower bars count the clips.</p></div>{reliability_chart(bins)}</div>"
    )
