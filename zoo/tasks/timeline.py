"""The timelines of an analysis' page, as SVG: shots, camera, detail and change."""

from collections.abc import Sequence

from zoo.tasks.analyze import Analysis
from zoo.tasks.complexity import Complexity
from zoo.tasks.timecode import clock

STYLE = """
svg{display:block;width:100%;height:auto}
.even{fill:var(--blue)}.odd{fill:var(--pale)}.gradual{fill:var(--orange)}
.axis{stroke:var(--line);vector-effect:non-scaling-stroke}
.line{fill:none;stroke-width:1.75;vector-effect:non-scaling-stroke}
.moves{stroke:var(--muted)}.first{stroke:var(--blue)}.second{stroke:var(--orange)}
.third{stroke:var(--green)}
.times{display:flex;justify-content:space-between;color:var(--muted);font-size:.8rem}
.legend{max-width:none}
.legend i{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin:0 .35em 0 .9em}
.legend i:first-child{margin-left:0}
.k1{background:var(--blue)}.k2{background:var(--orange)}.k3{background:var(--green)}
"""
_HEIGHT = 60


def shots(analysis: Analysis) -> str:
    """Shots as bars in two shades, gradual transitions above them, motion below as steps."""
    bars = "".join(
        f'<rect class="{"odd" if number % 2 else "even"}" x="{_x(shot.start, analysis)}" y="10" '
        f'width="{_x(shot.end - shot.start, analysis)}" height="34"><title>Shot {number + 1}: '
        f"{clock(shot.start)} to {clock(shot.end)}</title></rect>"
        for number, shot in enumerate(analysis.shots)
    )
    marks = "".join(
        f'<rect class="gradual" x="{_x(item.start, analysis)}" y="2" '
        f'width="{_x(item.end - item.start, analysis)}" height="6"><title>gradual, '
        f"{clock(item.start)} to {clock(item.end)}</title></rect>"
        for item in analysis.transitions
        if item.kind == "gradual"
    )
    most = max([shot.motion for shot in analysis.shots] + [1e-9])
    steps = _steps(analysis, [84 - 34 * shot.motion / most for shot in analysis.shots])
    return (
        '<svg viewBox="0 0 1000 88" preserveAspectRatio="none" role="img" '
        f'aria-label="timeline of shots">{marks}{bars}'
        f'<line class="axis" x1="0" x2="1000" y1="86" y2="86"/>'
        f'<polyline class="line moves" points="{steps}"/></svg>'
        f"{_times(analysis)}"
        '<p class="legend"><i class="k1"></i>shots, in turns <i class="k2"></i>gradual '
        "transitions; the line below is how much moves in each shot</p>"
    )


def camera(analysis: Analysis) -> str:
    """The mean motion of the camera in each shot, above and below a line that stands still."""
    values = {
        "first": [shot.pan for shot in analysis.shots],
        "second": [shot.tilt for shot in analysis.shots],
        "third": [shot.zoom for shot in analysis.shots],
    }
    most = max(abs(value) for row in values.values() for value in row)
    if most == 0:
        return "<p>The camera stands still.</p>"
    middle = _HEIGHT / 2
    lines = "".join(
        f'<polyline class="line {kind}" points="'
        f'{_steps(analysis, [middle - (middle - 2) * value / most for value in row])}"/>'
        for kind, row in values.items()
    )
    return (
        f'<svg viewBox="0 0 1000 {_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="motion of the camera"><line class="axis" x1="0" x2="1000" y1="{middle:g}" '
        f'y2="{middle:g}"/>{lines}</svg>{_times(analysis)}'
        '<p class="legend"><i class="k1"></i>to the right, widths of the picture a second '
        '<i class="k2"></i>down, heights a second <i class="k3"></i>closer, growth a second; '
        f"the edges are {most:.2g} either way</p>"
    )


def complexity(analysis: Analysis, found: Complexity) -> str:
    """Spatial and temporal information over time, each on a scale of its own."""
    lines = "".join(
        f'<polyline class="line {kind}" points="'
        + " ".join(
            f"{_x(time, analysis)},{_HEIGHT - 2 - (_HEIGHT - 4) * value / max(most, 1e-9):.1f}"
            for time, value in zip(found.times, row, strict=True)
        )
        + '"/>'
        for kind, row, most in (
            ("first", found.si_over_time, found.si),
            ("second", found.ti_over_time, found.ti),
        )
    )
    return (
        f'<svg viewBox="0 0 1000 {_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="spatial and temporal information"><line class="axis" x1="0" x2="1000" '
        f'y1="{_HEIGHT - 1}" y2="{_HEIGHT - 1}"/>{lines}</svg>{_times(analysis)}'
        f'<p class="legend"><i class="k1"></i>spatial information, up to {found.si:.1f} '
        f'<i class="k2"></i>temporal, up to {found.ti:.1f} (ITU-T P.910; the largest in each '
        "part of the video)</p>"
    )


def _x(seconds: float, analysis: Analysis) -> str:
    whole = max(analysis.duration, 1e-9)
    return f"{1000 * min(max(seconds / whole, 0.0), 1.0):.2f}"


def _steps(analysis: Analysis, heights: Sequence[float]) -> str:
    """A step for each shot."""
    return " ".join(
        f"{_x(edge, analysis)},{height:.1f}"
        for shot, height in zip(analysis.shots, heights, strict=True)
        for edge in (shot.start, shot.end)
    )


def _times(analysis: Analysis) -> str:
    return (
        f'<div class="times"><span>{clock(0)}</span><span>{clock(analysis.duration)}</span></div>'
    )
