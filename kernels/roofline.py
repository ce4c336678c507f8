"""A roofline plot as SVG: what was reached over how much arithmetic there is for each byte.

Williams, Waterman and Patterson 2009, "Roofline: an insightful visual performance model". The roof
rises with the rate of the memory until it meets the rate of the arithmetic unit. Kinds of
candidates differ by shape as well as by colour; a pass with gradients is hollow.
"""

import dataclasses
import html
import math
from collections.abc import Sequence

_WIDTH, _HEIGHT = 760, 460
_LEFT, _RIGHT, _TOP, _BOTTOM = 74, 16, 64, 48
# Half the size of a mark in pixels, and for each kind its path around (0, 0).
_MARKS = {
    "xla": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0Z",
    "chosen": "M-5 -5h10v10h-10Z",
    "torch": "M0 -6l6 10.5h-12Z",
}
_STYLE = (
    ":root{color-scheme:light dark;--page:#faf9f7;--ink:#1d1c1a;--muted:#69645d;--line:#e5e1da;"
    "--xla:#b3540a;--chosen:#1f5fa8;--torch:#0b7468}"
    "@media (prefers-color-scheme:dark){:root{--page:#131416;--ink:#e8e5df;--muted:#a39e95;"
    "--line:#33363b;--xla:#efa45f;--chosen:#7fb4ef;--torch:#5fc9b9}}"
    ".page{fill:var(--page)}text{fill:var(--muted);font:12px system-ui,sans-serif}"
    ".title{fill:var(--ink);font-size:14px;font-weight:600}.end{text-anchor:end}"
    ".middle{text-anchor:middle}.grid{stroke:var(--line);fill:none}"
    ".roof{stroke:var(--ink);stroke-width:2;fill:none}.mark{stroke-width:1.5}"
    + "".join(f".{kind}{{fill:var(--{kind});stroke:var(--{kind})}}" for kind in _MARKS)
    + ".hollow{fill:var(--page)}"
)


@dataclasses.dataclass(frozen=True)
class Point:
    """One measurement. kind: "xla", "chosen" or "torch". operations, moved (bytes), seconds: of one
    call."""

    label: str
    kind: str
    hollow: bool
    operations: float
    moved: float
    seconds: float

    @property
    def intensity(self) -> float:
        return self.operations / self.moved

    @property
    def rate(self) -> float:
        return self.operations / self.seconds


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """The powers of ten around the values."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def picture(title: str, flops: float, bytes_per_second: float, points: Sequence[Point]) -> str:
    """The plot as a file of its own.

    flops, bytes_per_second: what the device can do. points: at least one.
    """
    ridge = flops / bytes_per_second
    first, last = _decades([ridge, *(p.intensity for p in points)])
    floor, ceiling = _decades([flops, *(p.rate for p in points)])

    def x_of(intensity: float) -> float:
        part = (math.log10(intensity) - first) / (last - first)
        return _LEFT + part * (_WIDTH - _LEFT - _RIGHT)

    def y_of(rate: float) -> float:
        part = (math.log10(rate) - floor) / (ceiling - floor)
        return _HEIGHT - _BOTTOM - part * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<rect class="page" width="{_WIDTH}" height="{_HEIGHT}"/>',
        f'<text class="title" x="{_LEFT}" y="22">{html.escape(title)}</text>',
    ]
    for power in range(first, last + 1):
        x = x_of(10.0**power)
        parts.append(f'<path class="grid" d="M{x:.1f} {_TOP}V{_HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text class="middle" x="{x:.1f}" y="{_HEIGHT - 28}">{10.0**power:g}</text>')
    for power in range(floor, ceiling + 1):
        y = y_of(10.0**power)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(
            f'<text class="end" x="{_LEFT - 7}" y="{y + 4:.1f}">{10.0 ** (power - 9):g}</text>'
        )
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(
        f'<text class="middle" x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 8}">'
        "operations for each byte that must be moved</text>"
        f'<text class="middle" x="14" y="{middle}" transform="rotate(-90 14 {middle})">'
        "1e9 operations a second</text>"
    )
    # The roof starts where it enters the plot: at the left edge or at the lower one.
    start = max(10.0**first, 10.0**floor / bytes_per_second)
    parts.append(
        f'<path class="roof" d="M{x_of(start):.1f} {y_of(start * bytes_per_second):.1f}'
        f'L{x_of(ridge):.1f} {y_of(flops):.1f}H{_WIDTH - _RIGHT}"/>'
    )
    for point in points:
        share = point.rate / min(flops, point.intensity * bytes_per_second)
        parts.append(
            f'<g transform="translate({x_of(point.intensity):.1f} {y_of(point.rate):.1f})">'
            f"<title>{html.escape(point.label)}: {point.seconds * 1e3:.3f} ms, {share:.0%} of the "
            f"roofline</title>{_mark(point.kind, point.hollow)}</g>"
        )
    names = {"xla": "XLA's definition", "chosen": "the dispatcher's choice", "torch": "PyTorch"}
    legend = [(kind, False, names[kind]) for kind in _MARKS if kind in {p.kind for p in points}]
    if any(point.hollow for point in points):
        legend.append((legend[0][0], True, "hollow: with gradients"))
    for number, (kind, hollow, name) in enumerate(legend):
        parts.append(
            f'<g transform="translate({_LEFT + 8 + 170 * number} 42)">{_mark(kind, hollow)}'
            f'<text x="12" y="4">{name}</text></g>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{html.escape(title)}"><style>{_STYLE}</style>{"".join(parts)}</svg>\n'
    )


def _mark(kind: str, hollow: bool) -> str:
    return f'<path class="mark {kind}{" hollow" if hollow else ""}" d="{_MARKS[kind]}"/>'
