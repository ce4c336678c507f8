"""One HTML document with nothing outside it, and text made safe for it."""

import base64
import hashlib
import html


def text(value: object) -> str:
    """A value as HTML text, also safe inside a quoted attribute.

    Control characters and lone surrogates (bytes of a file name that are not UTF-8) become the
    replacement character: they cannot be shown, and some cannot be written.
    """
    shown = "".join(
        "\N{REPLACEMENT CHARACTER}"
        if (ord(c) < 32 and c not in "\t\n") or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000
        else c
        for c in str(value)
    )
    return html.escape(shown, quote=True)


def name(value: object) -> str:
    """A name from elsewhere as HTML; writing direction marks in it do not reach beyond it."""
    return f"<bdi>{text(value)}</bdi>"


def page(title: str, body: str, *, style: str, script: str) -> str:
    """A whole page that asks for nothing from outside itself.

    Its policy lets nothing in and no script run but this one, whatever a file name might smuggle
    into the page.

    Args:
        title: of the window, as text.
        body: HTML.
        style, script: CSS and JavaScript of the page.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; media-src data:; img-src data:; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{text(title)}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
{body}
<script>{script}</script>
</body>
</html>
"""
