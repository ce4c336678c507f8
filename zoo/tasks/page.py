"""An analysis as a page to look at: a timeline and a playing clip for each shot, in one file."""

import base64
import os
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from zoo import document, video
from zoo.tasks import timeline
from zoo.tasks.analyze import Analysis, Shot, camera
from zoo.tasks.complexity import Complexity
from zoo.tasks.timecode import clock

# More shots than this are listed without a clip: the page has to stay one that a browser opens.
MOST_CLIPS = 200
_WIDTH = 192
_FPS = 12
_RATE = Fraction(_FPS)
_FRAMES = 24

STYLE = (
    """
:root{color-scheme:light dark;--page:#faf9f7;--card:#fff;--ink:#1d1c1a;--muted:#5f5b54;
--line:#e2ded7;--blue:#1f5fa8;--pale:#a9c6e6;--orange:#b3540a;--green:#156a3a}
@media (prefers-color-scheme:dark){:root{--page:#131416;--card:#1c1e21;--ink:#e8e5df;
--muted:#a8a39a;--line:#34373c;--blue:#7fb4ef;--pale:#2f4c6c;--orange:#efa45f;
--green:#79d3a0}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);overflow-wrap:anywhere;
font:1rem/1.5 ui-sans-serif,system-ui,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
font-variant-numeric:tabular-nums}
main{max-width:76rem;margin:0 auto;padding:2.5rem 1.25rem 3rem}
h1{font-size:clamp(1.5rem,1.1rem + 2vw,2.3rem);line-height:1.15;margin:0 0 .4rem;
letter-spacing:-.02em}
h2{font-size:1.2rem;margin:2.2rem 0 .6rem}
p{color:var(--muted);margin:0 0 .8rem;max-width:46rem}
dl{display:flex;flex-wrap:wrap;gap:.6rem 2.2rem;margin:1.2rem 0 0}
dt{color:var(--muted);font-size:.85rem}
dd{margin:0;font-size:1.25rem;font-weight:600}
ol{list-style:none;padding:0;margin:0;display:grid;gap:.9rem;
grid-template-columns:repeat(auto-fill,minmax(min(100%,12rem),1fr))}
li{background:var(--card);border:1px solid var(--line);border-radius:8px;overflow:hidden;
break-inside:avoid}
video,.none{display:block;width:100%;background:#000}
.none{background:var(--line);padding:1.5rem .7rem;text-align:center;color:var(--ink)}
li div{padding:.5rem .7rem .6rem;font-size:.85rem;color:var(--muted)}
li b{color:var(--ink);font-size:.95rem}
.turn{color:var(--orange)}
.chosen{border-color:var(--blue);box-shadow:0 0 0 1px var(--blue)}
li:target{outline:3px solid var(--orange)}
a{color:var(--blue)}
button{font:inherit;color:inherit;background:var(--card);border:1px solid var(--line);
border-radius:8px;padding:.35rem .8rem;cursor:pointer;margin:0 0 .9rem}
:focus-visible{outline:2px solid var(--blue);outline-offset:2px}
@media print{button{display:none}}
"""
    + timeline.STYLE
)

SCRIPT = """
"use strict";
(() => {
  const films = [...document.querySelectorAll("video")];
  const button = document.getElementById("playing");
  if (!films.length) return;
  let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  const seen = new Set();
  const update = () => {
    for (const film of films) {
      if (playing && seen.has(film)) film.play().catch(() => {}); else film.pause();
    }
    button.textContent = playing ? "Pause all clips" : "Play all clips";
  };
  button.hidden = false;
  button.addEventListener("click", () => { playing = !playing; update(); });
  const watch = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) seen.add(target); else seen.delete(target);
    }
    update();
  });
  for (const film of films) watch.observe(film);
  update();
})();
"""


def render(
    analysis: Analysis,
    name: str,
    path: str | os.PathLike,
    complexity: Complexity | None = None,
) -> str:
    """The page as HTML; it asks for nothing from outside itself.

    Args:
      analysis: of the video.
      name: what the page calls it.
      path: the file, from which the clips are taken.
      complexity: of the video, where it is known.

    Raises:
      VideoError: the clips cannot be read.
    """
    films = _films(analysis.shots[:MOST_CLIPS], path)
    cards = "".join(
        _card(number, shot, films.get(number), _turn(analysis, number), analysis.summary)
        for number, shot in enumerate(analysis.shots)
    )
    note = ""
    if len(analysis.shots) > MOST_CLIPS:
        note = f"<p>Only the first {MOST_CLIPS} shots have a clip.</p>"
    title = f"{len(analysis.shots)} shot{'' if len(analysis.shots) == 1 else 's'}"
    links = ", ".join(f'<a href="#shot{number}">{number}</a>' for number in analysis.summary)
    detail = ""
    if complexity is not None:
        detail = f"<h2>Detail and change</h2>\n{timeline.complexity(analysis, complexity)}"
    body = f"""<main>
<h1>{document.name(name)}</h1>
<p>{title} in {clock(analysis.duration)}, {analysis.rate} frames per second\
{" on average, unevenly spaced" if analysis.variable_rate else ""}.</p>
{_figures(analysis)}
<h2>In short</h2>
<p>Key frames that stand for nine tenths of the video are those of shot\
{"" if len(analysis.summary) == 1 else "s"} {links}.</p>
<h2>Timeline</h2>
{timeline.shots(analysis)}
<h2>Camera</h2>
{timeline.camera(analysis)}
{detail}
<h2>Shots</h2>
<p>Each clip begins with the shot's key frame: the one most like its others, among the sharper.
Framed are the shots that stand for the whole.</p>
{note}
<button type="button" id="playing" hidden>Pause all clips</button>
<ol>{cards}</ol>
</main>"""
    return document.page(f"{name}: {title}", body, style=STYLE, script=SCRIPT)


def _figures(analysis: Analysis) -> str:
    lengths = np.array([shot.end - shot.start for shot in analysis.shots])
    gradual = sum(transition.kind == "gradual" for transition in analysis.transitions)
    figures = (
        ("cuts", str(len(analysis.transitions) - gradual)),
        ("gradual transitions", str(gradual)),
        ("median shot", f"{np.median(lengths):.2f} s"),
        ("shortest shot", f"{lengths.min():.2f} s"),
        ("longest shot", f"{lengths.max():.2f} s"),
    )
    return f"<dl>{''.join(f'<div><dt>{a}</dt><dd>{b}</dd></div>' for a, b in figures)}</dl>"


def _turn(analysis: Analysis, number: int) -> str:
    """How a shot ends."""
    if number + 1 >= len(analysis.shots):
        return "end"
    border = analysis.shots[number + 1].first_frame
    for transition in analysis.transitions:
        if transition.first_frame <= border <= transition.last_frame + 1:
            return transition.kind
    return "cut"


def _card(number: int, shot: Shot, film: bytes | None, turn: str, summary: Sequence[int]) -> str:
    if film is None:
        picture = '<p class="none">no clip</p>'
    else:
        content = base64.b64encode(film).decode()
        picture = (
            '<video muted loop playsinline preload="auto" aria-label="clip of shot '
            f'{number + 1}" src="data:video/mp4;base64,{content}"></video>'
        )
    after = '<span class="turn">gradual</span>' if turn == "gradual" else turn
    chosen = ' class="chosen"' if number + 1 in summary else ""
    moves = camera(shot.pan, shot.tilt, shot.zoom)
    return (
        f'<li id="shot{number + 1}"{chosen}>{picture}<div><b>{number + 1}</b> {clock(shot.start)}'
        f"<br>{shot.end - shot.start:.2f} s, then {after}{f'<br>{moves}' if moves else ''}</div>"
        "</li>"
    )


def _films(shots: Sequence[Shot], path: str | os.PathLike) -> dict[int, bytes]:
    """A small clip for each shot, from its key frame on."""
    info = video.probe(path)
    height = max(2, round(_WIDTH * info.height / info.width / 2) * 2)
    requests = [
        video.ClipRequest(
            path,
            start=shot.key_time,
            frames=int(min(max((shot.end - shot.key_time) * _FPS, 1), _FRAMES)),
            fps=_RATE,
        )
        for shot in shots
    ]
    clips = video.decode_many(requests, size=(height, _WIDTH))
    usable = {k: clip.frames for k, clip in enumerate(clips) if isinstance(clip, video.Clip)}
    films = video.encode_many(list(usable.values()), fps=_FPS, crf=30) if usable else []
    return dict(zip(usable, films, strict=True))
