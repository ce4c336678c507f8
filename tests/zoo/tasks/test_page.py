"""The page of an analysis in a real browser, and the analyze command that writes it."""

import json

import numpy as np
import pytest

import zoo
from zoo import __main__ as command_line
from zoo import video
from zoo.tasks import engine, page
from zoo.tasks.analyze import Analyze, analysis
from zoo.tasks.classify import Classify
from zoo.tasks.complexity import Complexity
from zoo.tasks.shots.model import Seen

HOSTILE = "<img src=x onerror='window.bad=1'></title><script>window.bad=1</script>\u202e.mp4"


@pytest.fixture
def made(tmp_path):
    """Five shots of a second each; the last border is gradual."""
    frames = np.zeros((125, 36, 64, 3), np.uint8)
    for shot in range(5):
        frames[25 * shot : 25 * shot + 25] = (50 * shot, 200 - 40 * shot, 90)
        for k in range(25):
            frames[25 * shot + k, 10:20, 2 * k : 2 * k + 10] = 255
    path = tmp_path / "film.mp4"
    video.encode(frames, path, fps=25)
    rows = np.zeros((125, 2))
    rows[[25, 50, 75], 0] = 1
    rows[95:106, 1] = 1
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 255, (125, 36)).astype(np.uint8)
    seen = Seen(
        rows, colours, rng.random(125), np.full(125, 0.5), rng.random(125),
        np.full((125, 3), (0.01, 0, 0)), np.zeros(125),
    )  # fmt: skip
    found = analysis(np.arange(125) / 25, seen, {"cut": 0.5, "gradual": 0.5})
    detail = Complexity(3.0, 2.0, 1.0, 1.0, (0.0, 1.0, 4.0), (1.0, 3.0, 2.0), (0.0, 2.0, 1.0))
    text = page.render(found, HOSTILE, path, detail)
    (tmp_path / "page.html").write_text(text, "utf-8")
    return tmp_path / "page.html"


def test_page_is_quiet_and_fits(made, browser):
    for width, dark in ((360, True), (1280, False)):
        browser.open(made, width=width, dark=dark)
        assert browser.complaints() == []
        assert browser.requests() == [made.as_uri()]
        assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert browser.evaluate("window.bad === undefined && document.images.length === 0")
    assert browser.evaluate("document.querySelectorAll('li').length") == 5
    assert browser.evaluate("document.querySelectorAll('svg rect').length") == 6
    labels = "[...document.querySelectorAll('svg')].map((s) => s.getAttribute('aria-label'))"
    assert browser.evaluate(labels) == [
        "timeline of shots", "motion of the camera", "spatial and temporal information",
    ]  # fmt: skip
    # Every link of the summary leads to a framed shot; the camera's motion is said in words.
    links = "[...document.querySelectorAll('a')].map((a) => a.hash.slice(1))"
    framed = browser.evaluate("[...document.querySelectorAll('li.chosen')].map((l) => l.id)")
    assert browser.evaluate(links) == framed != []
    assert browser.evaluate("document.body.innerText.includes('pans right')")


def test_clips_play(made, browser):
    browser.open(made, height=3000)
    films = "[...document.querySelectorAll('video')]"
    browser.until(f"{films}.every((v) => v.readyState === 4 && !v.paused && v.currentTime > 0)")
    assert browser.evaluate(f"{films}.map((v) => [v.videoWidth, v.error])") == [[192, None]] * 5
    browser.evaluate("document.getElementById('playing').click()")
    browser.until(f"{films}.every((v) => v.paused)")
    assert browser.complaints() == []


def test_clips_wait_for_those_who_want_less_motion(made, browser):
    browser.open(made, height=3000, reduced_motion=True)
    film = "document.querySelector('video')"
    browser.until(f"{film}.paused && {film}.readyState === 4")


def film(path, seed: int = 3) -> list[int]:
    """Four shots of 40 frames with cuts between; returns where those are."""
    rng = np.random.default_rng(seed)
    shots = []
    for colour in ((40, 60, 160), (200, 180, 90), (60, 130, 50), (150, 40, 40)):
        coarse = np.clip(colour + rng.normal(0, 40, (9, 30, 3)), 0, 255).astype(np.uint8)
        wide = coarse.repeat(16, 0).repeat(16, 1)
        shots += [wide[:, k : k + 256] for k in range(40)]
    video.encode(np.stack(shots), path, fps=25)
    return [40, 80, 120]


def test_command(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    cuts = film(tmp_path / "in" / "a.mp4")
    (tmp_path / "in" / "empty.mp4").touch()
    out = tmp_path / "out"
    arguments = ["analyze", str(tmp_path / "in"), "--json", "--out", str(out), "--formats"]
    assert command_line.main([*arguments, "csv", "edl", "otio", "vtt", "html"]) == 3
    captured = capsys.readouterr()
    record = json.loads(captured.out)
    assert "empty.mp4: it is empty" in captured.err
    assert [t["first_frame"] for t in record["analyze"]["transitions"]] == cuts
    assert record["analyze"]["rate"] == "25" and len(record["analyze"]["shots"]) == 4
    written = {path.name for path in out.iterdir()}
    endings = ("json", "csv", "edl", "otio", "vtt", "html")
    assert written == {"failures.jsonl", *(f"a.mp4.{ending}" for ending in endings)}
    assert (out / "a.mp4.html").read_text("utf-8").count("<video") == 4
    assert command_line.main(["analyze", str(tmp_path / "in" / "a.mp4")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and " cut " in lines[1] and " end " in lines[4]
    assert all(line.endswith("pans right") for line in lines[1:5])
    assert lines[5].startswith("  in short: shot ")
    assert command_line.main(["analyze", "a.mp4", "--formats", "edl"]) == 2


def test_tasks_share_one_decoding(tmp_path):
    film(tmp_path / "a.mp4")
    tasks = [Analyze(), Classify(zoo.load_pretrained("cnn_small.moving_shapes"))]
    (both,) = engine.run([tmp_path / "a.mp4"], tasks)
    for task in tasks:
        (alone,) = engine.run([tmp_path / "a.mp4"], [task])
        assert both.results[task.name] == alone.results[task.name]
