"""Reports in a real browser: no complaint, no request, clips that play, cells that can be read."""

import pathlib
from collections.abc import Callable

import pytest

from experiments import report

MakeRun = Callable[..., pathlib.Path]
KINDS = {
    "two classes": {"classes": 2, "tested": 60, "accuracy": 0.75, "examples": 2},
    "ten classes": {"examples": 4},
    "101 classes": {"classes": 101, "tested": 1010, "accuracy": 0.6, "examples": 2},
    "interrupted": {"finished": False, "epochs": 3},
    "empty": {"finished": False, "epochs": 0},
}

# Ratio of WCAG 2.1 between the text of an element and what lies behind it.
CONTRAST = """
(() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = (color, below) => {
    canvas.fillStyle = below; canvas.fillRect(0, 0, 1, 1);
    canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (color) => {
    const [r, g, b] = color.map((c) => (c /= 255) <= 0.03928 ? c / 12.92
      : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    const chain = [];
    for (let at = element; at; at = at.parentElement) {
      chain.unshift(getComputedStyle(at).backgroundColor);
    }
    return chain.reduce((below, color) => `rgb(${rgb(color, below)})`, "white");
  };
  const found = [];
  for (const element of document.querySelectorAll(SELECTOR)) {
    const words = [...element.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data);
    if (!words.join("").trim() || !element.checkVisibility()) continue;
    const below = ground(element), style = getComputedStyle(element);
    const [a, b] = [light(rgb(style.color, below)), light(rgb(below, below))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push([element.tagName, element.className, words[0], ratio].join(" "));
  }
  return [...new Set(found)].slice(0, 5);
})()
"""


@pytest.mark.parametrize("kind", KINDS)
def test_page_is_quiet_and_fits(kind: str, run_folder: MakeRun, browser) -> None:
    """On a phone, a laptop and a wide screen, light and dark: nothing asked for, nothing cut."""
    run = run_folder(**KINDS[kind])
    page = report.write(run)
    for width, dark in ((360, True), (768, False), (1440, True), (2200, False)):
        browser.open(page, width=width, dark=dark)
        browser.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        assert browser.complaints() == []
        assert browser.requests() == [page.as_uri()]
        assert browser.evaluate("document.documentElement.scrollWidth") == width
        assert browser.evaluate(CONTRAST.replace("SELECTOR", '"main *, footer"')) == []


def test_long_names_do_not_widen_the_page(run_folder: MakeRun, browser) -> None:
    run = run_folder(classes=10, examples=2)
    long = "an_endless_name_without_any_place_to_break" * 4
    for path in (run / "metrics.json", run / "examples" / "index.json", run / "config.json"):
        changed = path.read_text().replace('"square"', f'"{long}"').replace('"relu"', f'"{long}"')
        path.write_text(changed.replace("test/circle/", f"{long}/"))
    page = report.write(run)
    for width in (360, 1280):
        browser.open(page, width=width)
        assert browser.evaluate("document.documentElement.scrollWidth") == width


def test_cells_of_every_shade_can_be_read(tmp_path: pathlib.Path, browser) -> None:
    """Figures on all ten shades of right and wrong, in both colour schemes."""
    from experiments.report.page import render
    from experiments.report.run_folder import Run

    matrix = [[k, 10 - k] for k in range(11)]
    names = [f"c{k}" for k in range(11)]
    rows = [[a if i == j else b if j == (i + 1) % 11 else 0 for j in range(11)]
            for i, (a, b) in enumerate(matrix)]  # fmt: skip
    metrics = {"classes": names, "test/confusion": rows, "test/top1": 0.5}
    path = tmp_path / "shades.html"
    path.write_text(render(Run("shades", {}, [], metrics, [])), "utf-8")
    for dark in (False, True):
        browser.open(path, dark=dark)
        shades = "new Set([...document.querySelectorAll('td')].map((t) => t.className)).size"
        assert browser.evaluate(shades) >= 21
        assert browser.evaluate(CONTRAST.replace("SELECTOR", '".confusion td"')) == []


def test_clips_play(run_folder: MakeRun, browser) -> None:
    """Clips in the window play in a loop without sound; one press stops them all."""
    browser.open(report.write(run_folder(examples=3)), height=4000)
    films = "[...document.querySelectorAll('video')]"
    browser.until(f"{films}.every((v) => v.readyState === 4 && !v.paused && v.currentTime > 0)")
    assert (
        browser.evaluate(f"{films}.map((v) => [v.muted, v.loop, v.videoWidth, v.error])")
        == [[True, True, 72, None]] * 3
    )
    # A clip lasts one second: time that falls back is a loop.
    browser.evaluate(f"{films}[0].addEventListener('seeked', () => {{ window.looped = true; }})")
    browser.until("window.looped === true")
    browser.evaluate("document.getElementById('playing').click()")
    browser.until(f"{films}.every((v) => v.paused)")
    assert browser.evaluate("document.getElementById('playing').textContent") == "Play all clips"
    browser.evaluate("document.getElementById('playing').click()")
    browser.until(f"{films}.every((v) => !v.paused)")
    assert browser.complaints() == []


def test_clips_rest_where_nobody_sees_them(run_folder: MakeRun, browser) -> None:
    browser.open(report.write(run_folder(examples=1)), height=300)
    film = "document.querySelector('video')"
    browser.until(f"{film}.paused && {film}.readyState === 4")
    browser.evaluate(f"{film}.scrollIntoView()")
    browser.until(f"!{film}.paused && {film}.currentTime > 0")


def test_clips_wait_for_those_who_want_less_motion(run_folder: MakeRun, browser) -> None:
    page = report.write(run_folder(examples=1))
    browser.open(page, height=4000, reduced_motion=True)
    film = "document.querySelector('video')"
    browser.until(f"{film}.paused && {film}.readyState === 4")
    assert browser.evaluate("document.getElementById('playing').textContent") == "Play all clips"
    browser.evaluate("document.getElementById('playing').click()")
    browser.until(f"!{film}.paused && {film}.currentTime > 0")


def test_table_of_classes_sorts(run_folder: MakeRun, browser) -> None:
    browser.open(report.write(run_folder(examples=0)))
    column = (
        "[...document.querySelectorAll('.sortable tbody tr')].map((r) => r.cells[{0}].dataset.key)"
    )
    button = "document.querySelectorAll('.sortable th button')[{0}].click()"
    names, scores = (browser.evaluate(column.format(i)) for i in (0, 4))
    browser.evaluate(button.format(4))
    assert browser.evaluate(column.format(4)) == sorted(scores, key=float, reverse=True)
    browser.evaluate(button.format(4))
    assert browser.evaluate(column.format(4)) == sorted(scores, key=float)
    browser.evaluate(button.format(0))
    assert browser.evaluate(column.format(0)) == sorted(names)
    assert browser.evaluate("document.querySelector('[aria-sort]').textContent") == "class"


def test_hostile_names_run_nothing(run_folder: MakeRun, browser) -> None:
    """Neither script nor style nor request comes from a name, also with the browser's help."""
    run = run_folder(examples=1)
    hostile = (
        "<img src=x onerror='window.bad=1'><script>window.bad=1</script>"
        "<style>*{display:none}</style></title><svg onload='window.bad=1'>"
    )
    for path in (run / "metrics.json", run / "examples" / "index.json", run / "config.json"):
        text = path.read_text().replace('"circle"', f'"{hostile}"')
        path.write_text(text.replace('"cnn_small"', f'"{hostile}"'))
    page = report.write(run)
    assert "window.bad" in page.read_text()
    browser.open(page, height=4000)
    browser.until("!document.querySelector('video').paused")
    assert browser.evaluate("window.bad === undefined && document.images.length === 0")
    assert browser.evaluate("document.querySelector('h1').checkVisibility()")
    assert browser.complaints() == [] and browser.requests() == [page.as_uri()]


def test_policy_stops_what_does_not_belong(run_folder: MakeRun, browser) -> None:
    """The second wall: should markup ever slip in, the browser refuses to run or fetch it."""
    page = report.write(run_folder(examples=0, finished=False, epochs=0))
    bad = "<script>window.bad=1</script><img src='https://example.org/x.png'>"
    page.write_text(page.read_text().replace("<h1>", bad + "<h1>"))
    browser.open(page)
    assert browser.evaluate("window.bad === undefined")
    refused = [text for text in browser.complaints() if "Content Security Policy" in text]
    assert any("script" in text for text in refused) and any("img-src" in text for text in refused)


def test_page_prints(run_folder: MakeRun, browser) -> None:
    """On paper everything stands below each other; nothing scrolls or is cut at the edge."""
    browser.open(report.write(run_folder(examples=2)))
    assert len(browser("Page.printToPDF", printBackground=True)["data"]) > 50_000
    browser("Emulation.setEmulatedMedia", media="print")
    try:
        assert not browser.evaluate(
            "[...document.querySelectorAll('.scroll')].some((e) => "
            "getComputedStyle(e).overflowY !== 'visible')"
        )
        assert not browser.evaluate("document.getElementById('playing').checkVisibility()")
    finally:
        browser("Emulation.setEmulatedMedia", media="")
