"""The frame of a report: one HTML document with nothing outside it."""

from collections.abc import Sequence

from experiments.report.run_folder import Run
from experiments.report.style import SCRIPT, STYLE
from zoo.document import name, page, text


def document(
    run: Run,
    *,
    title: str,
    what: str,
    lead: str,
    figures: str,
    sections: Sequence[tuple[str, str]],
) -> str:
    """A whole page.

    Args:
        title: the headline, as text.
        what: the line above it; lead: the sentences below; figures: the tiles. All HTML.
        sections: heading and content, HTML; those without content are left out.
    """
    body = "".join(
        f"<section><h2>{heading}</h2>{content}</section>"
        for heading, content in sections
        if content
    )
    notes = "".join(f"<li>{text(note)}</li>" for note in run.notes)
    content = f"""<main>
<header>
<p class="what">{what}</p>
<h1>{text(title)}</h1>
<p class="lead">{lead}</p>
{f'<ul class="notes">{notes}</ul>' if notes else ""}
{figures}
</header>
{body}
</main>
<footer>Run folder {name(run.name)}. The page holds everything it shows; it can be sent as one
file.</footer>"""
    return page(f"{run.name}: {title}", content, style=STYLE, script=SCRIPT)
