"""Charts of many runs at once: learning curves, and parallel coordinates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from experiments.readable import number, percent
from experiments.report.charts import (
    HEIGHT,
    LEFT,
    RIGHT,
    WIDTH,
    Axis,
    whole_ticks,
    y_axis_of,
)
from experiments.report.markup import text
from experiments.report.run_folder import as_number

FEW = 6  # different values of an axis that are set apart evenly


@dataclass(frozen=True)
class Line:
    """The curve of a run. points: (epoch, value), NaN where it cannot be drawn."""

    name: str
    points: Sequence[tuple[float, float]]
    best: bool


def curves(title: str, lines: Sequence[Line], *, as_percent: bool) -> str:
    """One curve for each run over the epochs; those of the best combination on top."""
    drawn = [(line, [p for p in line.points if math.isfinite(p[1])]) for line in lines]
    drawn = [(line, points) for line, points in drawn if points]
    if not drawn:
        return ""
    values = [y for _, points in drawn for _, y in points]
    last = max(x for _, points in drawn for x, _ in points)
    x_axis = Axis(0.0, last, LEFT, WIDTH - RIGHT)
    y_axis, ticks = y_axis_of([0.0, 1.0] if as_percent else values)
    parts = []
    for tick in ticks:
        label = f"{100 * tick:.0f}%" if as_percent else f"{tick:g}"
        parts.append(f'<path class="grid" d="M{LEFT} {y_axis(tick):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="end" x="{LEFT - 7}" y="{y_axis(tick) + 4:.1f}">{label}</text>')
    for tick in whole_ticks(last):
        x, y = x_axis(tick), HEIGHT - 22
        parts.append(f'<text class="middle" x="{x:.1f}" y="{y}">{tick}</text>')
    parts.append(
        f'<text class="middle axis" x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 4}">epoch'
        "</text>"
    )
    show = percent if as_percent else number
    for line, points in sorted(drawn, key=lambda one: one[0].best):
        path = "L".join(f"{x_axis(x):.1f} {y_axis(y):.1f}" for x, y in points)
        style = "val" if line.best else "many"
        label = f"{text(line.name)}: {show(points[-1][1])} after epoch {points[-1][0]:.0f}"
        parts.append(f'<path class="curve {style}" d="M{path}"><title>{label}</title></path>')
        if len(points) == 1:
            x, y = x_axis(points[0][0]), y_axis(points[0][1])
            parts.append(f'<circle class="point {style}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
    return (
        f'<figure class="chart"><figcaption><h3>{text(title)}</h3></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(title)} of all runs">'
        f"{''.join(parts)}</svg></figure>"
    )


def coordinates(axes: Sequence[str], lines: Sequence[tuple[Sequence[Any], float, str]]) -> str:
    """Parallel coordinates: a vertical axis for each searched value, and one for the accuracy.

    Args:
        axes: the names of the values.
        lines: for each combination its values, its accuracy and its label (HTML), the best last.
    """
    width, top, bottom = 920, 30, 260
    places = [70 + (width - 140) * i / len(axes) for i in range(len(axes) + 1)]
    scores = [score for _, score, _ in lines]
    low, high = min(scores), max(scores)
    parts = []
    positions: list[list[float]] = []
    columns = zip(*(values for values, _, _ in lines), strict=True)
    for place, axis, column in zip(places[:-1], axes, columns, strict=True):
        ys, ticks = _positions(list(column), top, bottom)
        positions.append(ys)
        parts.append(_vertical(place, axis, ticks, top, bottom))
    spread = (high - low) or 1.0
    ys = [bottom - (bottom - top) * (score - low) / spread for score in scores]
    positions.append(ys)
    ends = {percent(high): top, percent(low): bottom} if high > low else {percent(high): bottom}
    parts.append(_vertical(places[-1], "top-1", list(ends.items()), top, bottom))
    for member, (_, score, label) in enumerate(lines):
        at = zip(places, (heights[member] for heights in positions), strict=True)
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in at)
        best = member == len(lines) - 1
        opacity = "" if best else f' stroke-opacity="{0.12 + 0.6 * (score - low) / spread:.2f}"'
        parts.append(
            f'<path class="curve {"val" if best else "many"}"{opacity} d="M{path}">'
            f"<title>{label}: {percent(score)}</title></path>"
        )
    return (
        f'<div class="scroll"><svg class="coordinates" viewBox="0 0 {width} {bottom + 20}" '
        f'role="img" aria-label="Parallel coordinates">{"".join(parts)}</svg></div>'
    )


def _vertical(
    x: float, title: str, ticks: Sequence[tuple[str, float]], top: float, bottom: float
) -> str:
    labels = "".join(
        f'<text class="end" x="{x - 7:.1f}" y="{y + 4:.1f}">{text(label)}</text>'
        for label, y in ticks
    )
    return (
        f'<path class="grid" d="M{x:.1f} {top}V{bottom}"/>'
        f'<text class="middle axis" x="{x:.1f}" y="{top - 14}">{text(title)}</text>{labels}'
    )


def _positions(
    column: Sequence[Any], top: float, bottom: float
) -> tuple[list[float], list[tuple[str, float]]]:
    """Heights of the values of an axis, and its ticks.

    Few values are set apart evenly, as are names; many numbers have a scale, logarithmic where
    they span more than a factor of 20.
    """
    numbers = [as_number(value) for value in column]
    known = [value for value in numbers if value is not None]
    if len(known) == len(column) and len(set(known)) > FEW:
        low, high = min(known), max(known)
        axis = Axis(low, high, bottom, top, logarithmic=low > 0 and high > 20 * low)
        return [axis(value) for value in known], [(f"{low:.3g}", bottom), (f"{high:.3g}", top)]
    if len(known) == len(column):
        different = [f"{value:.4g}" for value in sorted(set(known))]
        shown = [f"{value:.4g}" for value in known]
    else:
        shown = [str(value) for value in column]
        different = sorted(set(shown))
    step = (bottom - top) / max(len(different) - 1, 1)
    heights = {value: bottom - step * place for place, value in enumerate(different)}
    return [heights[value] for value in shown], list(heights.items())
