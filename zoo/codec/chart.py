"""Rate-distortion curves as an SVG picture, one panel for each measure of quality."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Protocol

# Also told apart by the marks, so that no meaning hangs on colour alone.
_STYLES = (
    ("#1b6ca8", "square"),
    ("#c8553d", "diamond"),
    ("#4f772d", "triangle"),
    ("#111111", "circle"),
    ("#8a4fbf", "cross"),
)
_WIDTH, _HEIGHT = 420, 320  # of a panel
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 34, 44


class Measured(Protocol):
    """A point of a curve: bits per second, and qualities by name."""

    @property
    def rate(self) -> float: ...

    @property
    def qualities(self) -> Mapping[str, float]: ...


def picture(
    curves: Mapping[str, Sequence[Measured]], metrics: Mapping[str, str], title: str
) -> str:
    """An SVG of qualities over the logarithm of the rate.

    metrics: for each panel the name of the quality and what to write at its axis; those that no
    point has are left out.
    """
    shown = [key for key in metrics if all(key in p.qualities for c in curves.values() for p in c)]
    columns = min(len(shown), 2) or 1
    rows = -(-len(shown) // columns)
    wide, tall = columns * _WIDTH, rows * _HEIGHT + 58
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {tall}" width="{wide}" '
        f'height="{tall}" font-family="sans-serif" font-size="12">',
        f'<rect width="{wide}" height="{tall}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="20" font-size="15">{escape(title)}</text>',
    ]
    x = _LEFT
    for k, name in enumerate(curves):
        color, mark = _STYLES[k % len(_STYLES)]
        lines.append(_mark(x, 40, color, mark))
        lines.append(f'<text x="{x + 9}" y="44" fill="{color}">{escape(name)}</text>')
        x += 28 + 8 * len(name)
    for k, key in enumerate(shown):
        place = (k % columns) * _WIDTH, 52 + (k // columns) * _HEIGHT
        lines += [f'<g transform="translate({place[0]} {place[1]})">']
        lines += [*_panel(curves, key, metrics[key]), "</g>"]
    return "\n".join([*lines, "</svg>\n"])


def _panel(curves: Mapping[str, Sequence[Measured]], key: str, label: str) -> list[str]:
    points = [p for curve in curves.values() for p in curve]
    rates, values = [p.rate for p in points], [p.qualities[key] for p in points]
    low, high = math.log(min(rates)), math.log(max(rates))
    bottom, top = min(values), max(values)
    edge = 0.04 * (high - low or 1), 0.05 * (top - bottom or 1)
    low, high, bottom, top = low - edge[0], high + edge[0], bottom - edge[1], top + edge[1]
    right, base = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def x_of(rate: float) -> float:
        return _LEFT + (right - _LEFT) * (math.log(rate) - low) / (high - low)

    def y_of(value: float) -> float:
        return base - (base - _TOP) * (value - bottom) / (top - bottom)

    lines = [f'<text x="{_LEFT}" y="{_TOP - 10}">{escape(label)}</text>']
    for value in _steps(bottom, top):
        y = y_of(value)
        lines.append(f'<path d="M{_LEFT} {y:.1f}H{right}" stroke="#ddd"/>')
        lines.append(
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_short(value)}</text>'
        )
    for rate in _rates(math.exp(low), math.exp(high)):
        x = x_of(rate)
        lines.append(f'<path d="M{x:.1f} {_TOP}V{base}" stroke="#ddd"/>')
        lines.append(
            f'<text x="{x:.1f}" y="{base + 16}" text-anchor="middle">{_short(rate / 1000)}</text>'
        )
    middle = (_LEFT + right) / 2
    lines.append(f'<text x="{middle}" y="{base + 34}" text-anchor="middle">kbit/s</text>')
    for k, curve in enumerate(curves.values()):
        color, mark = _STYLES[k % len(_STYLES)]
        places = [(x_of(p.rate), y_of(p.qualities[key])) for p in curve]
        places.sort()
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        lines += [_mark(x, y, color, mark) for x, y in places]
    return lines


def _mark(x: float, y: float, color: str, kind: str) -> str:
    shapes = {
        "square": "M-4 -4H4V4H-4Z",
        "diamond": "M0 -5L5 0L0 5L-5 0Z",
        "triangle": "M0 -5L5 4H-5Z",
        "circle": "M-4 0A4 4 0 0 0 4 0A4 4 0 0 0 -4 0Z",
        "cross": "M-4 -4L4 4M-4 4L4 -4",
    }
    place = f'transform="translate({x:.1f} {y:.1f})"'
    return f'<path d="{shapes[kind]}" {place} fill="{color}" stroke="{color}"/>'


def _steps(low: float, high: float) -> list[float]:
    """Round values between two, four to nine of them."""
    rough = (high - low) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(k * power for k in (1, 2, 5, 10) if k * power >= rough * 0.7)
    first = math.ceil(low / step)
    return [round(k * step, 9) for k in range(first, math.floor(high / step) + 1)]


def _rates(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between two."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [k * 10.0**power for power in powers for k in (1, 2, 5)]
    return [rate for rate in found if low <= rate <= high]


def _short(value: float) -> str:
    return f"{value:.4g}"
