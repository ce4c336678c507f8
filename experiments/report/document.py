"""The frame of a report: one HTML document with nothing outside it."""

import base64
import hashlib
from collections.abc import Sequence

from experiments.report.markup import name, text
from experiments.report.run_folder import Run
from experiments.report.style import SCRIPT, STYLE


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
    # The policy lets nothing in from outside and no script run but the one below, whatever a file
    # name might smuggle into the page.
    script_hash = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; media-src data:; img-src data:; "
        f"script-src 'sha256-{script_hash}'; base-uri 'none'; form-action 'none'"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{text(run.name)}: {text(title)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<main>
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
file.</footer>
<script>{SCRIPT}</script>
</body>
</html>
"""
