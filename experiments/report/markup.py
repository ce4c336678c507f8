"""Text into HTML. Every string that comes from a file passes `text` or `name`."""

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.readable import percent
from zoo.document import name as name
from zoo.document import text as text

NOTHING = '<span class="none">&ndash;</span>'
"""Stands where there is no number."""


def share(value: float | None) -> str:
    """A share of 1 in percent, or a dash."""
    return NOTHING if value is None else percent(value)


def count(value: float) -> str:
    """A number of things: whole where it is whole, thousands set apart."""
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def plural(number: float, thing: str) -> str:
    """`1 clip`, `2 clips`, `3 classes`."""
    ending = "" if number == 1 else "es" if thing.endswith("s") else "s"
    return f"{count(number)} {thing}{ending}"


@dataclass(frozen=True)
class Column:
    """A column of a table. `kind` is "text", "number" or "bar" (a share of 1 with a bar)."""

    title: str
    kind: str = "number"


def table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[tuple[str, float | str | None]]],
    *,
    caption: str,
    sortable: bool = False,
) -> str:
    """A table whose first column heads the rows.

    Args:
        columns: what each column holds.
        rows: for each row and column, HTML and the value to sort by.
        caption: for those who do not see it.
        sortable: whether a press on a heading sorts.
    """
    heads = "".join(
        f'<th scope="col" class="{column.kind}">'
        + (f'<button type="button">{text(column.title)}</button>' if sortable else column.title)
        + "</th>"
        for column in columns
    )
    body = []
    for row in rows:
        cells = []
        for i, (column, (shown, value)) in enumerate(zip(columns, row, strict=True)):
            tag, scope = ("th", ' scope="row"') if i == 0 else ("td", "")
            key = f' data-key="{"" if value is None else text(value)}"' if sortable else ""
            if column.kind == "bar" and isinstance(value, float):
                width = f"width:{100 * value:.1f}%"
                meter = f'<span class="meter"><i style="{width}"></i></span>'
                shown = f'<span class="metered">{meter}<span>{shown}</span></span>'
            cells.append(f'<{tag}{scope} class="{column.kind}"{key}>{shown}</{tag}>')
        body.append(f"<tr>{''.join(cells)}</tr>")
    kind = ' class="sortable"' if sortable else ""
    return (
        f'<table{kind}><caption class="unseen">{text(caption)}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    )
