"""Charts as SVG: learning curves, reliability diagram, heat map of a large confusion matrix.

Colours come from classes that style.py defines for light and dark; a series also differs from
the others by its line, so that no meaning hangs on colour alone.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from experiments.readable import number, percent
from experiments.report.markup import plural, text

WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 40
MOST_POINTS = 400  # of a curve; more are averaged in groups
MOST_MARKS = 60  # points of a curve that are marked; more would hide the line


@dataclass(frozen=True)
class Series:
    """A curve. `style` is a class of style.py: step, train, val, ema or other.

    points: (x, y) in rising x; y may be NaN or infinite, which leaves a gap.
    """

    name: str
    style: str
    points: Sequence[tuple[float, float]]


def finite(series: Series) -> list[tuple[float, float]]:
    """The points that can be drawn."""
    return [(x, y) for x, y in series.points if math.isfinite(y)]


@dataclass(frozen=True)
class Axis:
    """Places values between low and high on the pixels between start and end."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        if self.logarithmic:
            part = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return self.start + (self.end - self.start) * part


def line_chart(
    title: str, x_title: str, series: Sequence[Series], *, as_percent: bool, best: float | None
) -> str:
    """Curves over the same axis, with a legend that also gives each curve's last value.

    Args:
        title: what the vertical axis shows.
        x_title: what the horizontal axis shows.
        series: at least one point among them must be finite.
        as_percent: whether values are shares, drawn on an axis from 0 to 1.
        best: x of the point of the `val` curve to mark, if any.
    """
    show = percent if as_percent else number
    points = [point for one in series for point in finite(one)]
    last = max(x for x, _ in points)
    x_axis = Axis(0.0, last if last > 0 else 1.0, LEFT, WIDTH - RIGHT)
    y_axis, ticks = y_axis_of([0.0, 1.0] if as_percent else [y for _, y in points])

    parts = []
    for tick in ticks:
        label = f"{100 * tick:.0f}%" if as_percent else f"{tick:g}"
        parts.append(f'<path class="grid" d="M{LEFT} {y_axis(tick):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="end" x="{LEFT - 7}" y="{y_axis(tick) + 4:.1f}">{label}</text>')
    for tick in whole_ticks(x_axis.high):
        x = x_axis(tick)
        parts.append(f'<text class="middle" x="{x:.1f}" y="{HEIGHT - 22}">{tick}</text>')
    parts.append(
        f'<text class="middle axis" x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 4}">'
        f"{text(x_title)}</text>"
    )
    for one in series:
        line = [(x, y) if math.isfinite(y) else None for x, y in _thinned(one.points)]
        pixels = [(x_axis(at[0]), y_axis(at[1])) if at else None for at in line]
        path, lonely = _path(pixels)
        parts.append(f'<path class="curve {one.style}" d="{path}"/>')
        marked = finite(one)
        if one.style == "step" or len(marked) > MOST_MARKS:
            marked = [at for i, at in enumerate(line) if at and i in lonely]
        parts.extend(
            f'<circle class="point {one.style}" cx="{x_axis(x):.1f}" cy="{y_axis(y):.1f}" r="3">'
            f"<title>{text(one.name)}: {show(y)} at {text(x_title)} {x:g}</title></circle>"
            for x, y in marked
        )
        if one.style == "val" and best is not None:
            parts.extend(
                f'<circle class="best" cx="{x_axis(x):.1f}" cy="{y_axis(y):.1f}" r="7"/>'
                for x, y in finite(one)
                if math.isclose(x, best)
            )
    scale = ", logarithmic scale" if y_axis.logarithmic else ""
    legend = "".join(_legend(one, show) for one in series)
    return (
        f'<figure class="chart"><figcaption><h3>{text(title)}<span>{scale}</span></h3>'
        f'<ul class="legend">{legend}</ul></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(title)} over '
        f'{text(x_title)}">{"".join(parts)}</svg></figure>'
    )


def reliability_chart(bins: Sequence[tuple[float, float, float, float, float]]) -> str:
    """Accuracy over confidence, with the number of clips below.

    Args:
        bins: for each bin its edges low and high, the weight of its clips, their mean confidence
            and their accuracy; only bins with clips.
    """
    size, base, strip = 230, 300, 46
    left, top = 62, 10

    def x_of(share: float) -> float:
        return left + size * share

    def y_of(share: float) -> float:
        return top + size * (1 - share)

    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<path class="grid" d="M{left} {y_of(tick):.1f}h{size}"/>')
        parts.append(
            f'<text class="end" x="{left - 7}" y="{y_of(tick) + 4:.1f}">{100 * tick:.0f}%</text>'
        )
        parts.append(
            f'<text class="middle" x="{x_of(tick):.1f}" y="{base + 18}">{100 * tick:.0f}%</text>'
        )
    most = max(weight for _, _, weight, _, _ in bins)
    for low, high, weight, confidence, accuracy in bins:
        width = size * (high - low) - 2
        start = x_of(low) + 1
        clips = plural(weight, "clip")
        label = f"{clips} at {percent(confidence)} confidence, {percent(accuracy)} right"
        tall = max(strip * weight / most, 1)
        parts.append(
            f'<g><title>{label}</title><rect class="accuracy" x="{start:.1f}" '
            f'y="{y_of(accuracy):.1f}" width="{width:.1f}" height="{size * accuracy:.1f}"/>'
            f'<path class="gap" d="M{x_of(confidence):.1f} {y_of(confidence):.1f}'
            f'V{y_of(accuracy):.1f}"/>'
            f'<circle class="dot" cx="{x_of(confidence):.1f}" cy="{y_of(accuracy):.1f}" r="3"/>'
            f'<rect class="amount" x="{start:.1f}" y="{base - tall:.1f}" width="{width:.1f}" '
            f'height="{tall:.1f}"/></g>'
        )
    parts.append(f'<path class="ideal" d="M{x_of(0)} {y_of(0)}L{x_of(1)} {y_of(1)}"/>')
    parts.append(f'<path class="grid" d="M{left} {base}h{size}"/>')
    middle = left + size / 2
    parts.append(
        f'<text class="middle axis" x="{middle}" y="{base + 36}">confidence</text>'
        f'<text class="middle axis" x="12" y="{top + size / 2}" transform="rotate(-90 12 '
        f'{top + size / 2})">share that is right</text>'
        f'<text class="end" x="{left - 7}" y="{base - strip / 2 + 4}">clips</text>'
    )
    return (
        f'<svg class="reliability" viewBox="0 0 {left + size + 16} {base + 42}" role="img" '
        f'aria-label="Reliability diagram">{"".join(parts)}</svg>'
    )


def heat_map(confusion: Sequence[Sequence[float]], classes: Sequence[str]) -> str:
    """A confusion matrix too large for labels, as a picture of shares of the true class."""
    cells = []
    for i, row in enumerate(confusion):
        total = sum(row) or 1
        for j, value in enumerate(row):
            if value > 0:
                kind = "right" if i == j else "wrong"
                cells.append(
                    f'<rect class="{kind}" x="{j}" y="{i}" width="1" height="1" '
                    f'fill-opacity="{0.15 + 0.85 * value / total:.2f}"><title>{text(classes[i])} '
                    f"taken for {text(classes[j])}: {value:g} of {total:g}</title></rect>"
                )
    size = len(confusion)
    return (
        f'<svg class="heat" viewBox="0 0 {size} {size}" role="img" aria-label="Heat map of the '
        f'confusion matrix"><rect class="ground" width="{size}" height="{size}"/>'
        f"{''.join(cells)}</svg>"
    )


def _legend(series: Series, show: Callable[[float], str]) -> str:
    drawable = finite(series)
    last = f" <b>{show(drawable[-1][1])}</b>" if drawable and series.style != "step" else ""
    return (
        f'<li><svg class="sample" viewBox="0 0 26 10" aria-hidden="true"><path class="curve '
        f'{series.style}" d="M1 5H25"/></svg>{text(series.name)}{last}</li>'
    )


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MOST_POINTS points: means of groups; a group with a gap in it is a gap."""
    size = math.ceil(len(points) / MOST_POINTS)
    if size <= 1:
        return list(points)
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group))
        for group in groups
    ]


def _path(points: Sequence[tuple[float, float] | None]) -> tuple[str, set[int]]:
    """SVG path through the points, broken at None, and the points that no line reaches."""
    steps, lonely = [], set()
    for i, point in enumerate(points):
        if point is None:
            continue
        joined = i > 0 and points[i - 1] is not None
        steps.append(f"{'L' if joined else 'M'}{point[0]:.1f} {point[1]:.1f}")
        if not joined and (i + 1 == len(points) or points[i + 1] is None):
            lonely.add(i)
    return "".join(steps), lonely


def y_axis_of(values: Sequence[float]) -> tuple[Axis, list[float]]:
    """A vertical axis that holds the values, and its ticks; from 0 where none is negative.

    It is logarithmic where the highest value would press all the others flat, as the first loss
    of a run may do.
    """
    ordered = sorted(values)
    bottom, top = HEIGHT - BOTTOM, TOP
    if ordered[0] > 0 and ordered[-1] > 20 * ordered[len(ordered) // 2]:
        first, last = math.floor(math.log10(ordered[0])), math.ceil(math.log10(ordered[-1]))
        step = max(1, math.ceil((last - first) / 6))
        ticks = [10.0**i for i in range(first, last + step, step)]
        return Axis(ticks[0], ticks[-1], bottom, top, logarithmic=True), ticks
    low, high = min(0.0, ordered[0]), ordered[-1]
    step = _round_step((high - low or 1.0) / 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]
    return Axis(ticks[0], ticks[-1], bottom, top), ticks


def whole_ticks(high: float) -> list[int]:
    """Integers from 0 to at most `high`, about five."""
    step = max(1, round(_round_step(high / 5)))
    return list(range(0, math.floor(high + 1e-9) + 1, step))


def _round_step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * 0.999)
