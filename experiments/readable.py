"""Numbers as people read them: in the progress bar and in the report."""

import math


def number(value: float) -> str:
    """Three significant digits without an exponent where the size allows; `nan` as it is."""
    if not math.isfinite(value):
        return str(value)
    if value and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.2e}"
    digits = 3 if abs(value) < 1 else 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{digits}f}"


def percent(share: float) -> str:
    """A share of 1 in percent with one decimal."""
    return f"{100 * share:.1f}%"


def duration(seconds: float) -> str:
    """Seconds as 9.5 s, 4 min 10 s or 2 h 05 min."""
    if not 0 <= seconds < float("inf"):
        return str(seconds)
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
