"""Time codes, scene lists, EDL, OpenTimelineIO and chapters of an analysis."""

import csv
import io
import json
from fractions import Fraction

import numpy as np
import pytest

from zoo.tasks import editing
from zoo.tasks.analyze import Analysis, analysis
from zoo.tasks.shots.model import Seen
from zoo.tasks.timecode import Rate, clock, frame_rate, of_frame, timecode

NTSC = Rate(Fraction(30000, 1001), False)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (0, "00:00:00;00"),
        (1799, "00:00:59;29"),
        (1800, "00:01:00;02"),
        (3597, "00:01:59;29"),
        (3598, "00:02:00;02"),
        (17981, "00:09:59;29"),
        (17982, "00:10:00;00"),
        (107892, "01:00:00;00"),
    ],
)
def test_drop_frame(frame, code):
    assert of_frame(frame, NTSC) == code


def test_drop_frame_names_every_frame_once_in_order():
    """By counting: numbers 0 and 1 are left out in every minute but each tenth."""
    expected = [
        f"00:{m:02}:{s:02};{f:02}"
        for m in range(21)
        for s in range(60)
        for f in range(30)
        if not (s == 0 and f < 2 and m % 10)
    ]
    assert [of_frame(k, NTSC) for k in range(len(expected))] == expected
    fast = Rate(Fraction(60000, 1001), False)
    expected = [
        f"00:{m:02}:{s:02};{f:02}"
        for m in range(11)
        for s in range(60)
        for f in range(60)
        if not (s == 0 and f < 4 and m % 10)
    ]
    assert [of_frame(k, fast) for k in range(len(expected))] == expected


def test_time_codes_keep_to_the_clock():
    """After an hour of 29.97 frames a second, drop-frame time codes say an hour."""
    assert timecode(3600.0, NTSC) == "01:00:00;00"
    assert timecode(3600.0, Rate(Fraction(24000, 1001), False)) == "00:59:56:10"
    assert timecode(1.0, Rate(Fraction(25), False)) == "00:00:01:00"
    assert timecode(100 * 3600.0, Rate(Fraction(25), False)) == "100:00:00:00"
    assert clock(3723.0456) == "01:02:03.046"


@pytest.mark.parametrize(
    ("times", "rate", "variable"),
    [
        (np.arange(100) / 25, 25, False),
        (np.arange(5000) * 1001 / 30000, Fraction(30000, 1001), False),
        (np.round(np.arange(5000) * 1001 / 30000, 3), Fraction(30000, 1001), False),
        (np.round(np.arange(2000) * 1001 / 24000, 3), Fraction(24000, 1001), False),
        (np.arange(100) / 17, 17, False),
        (np.cumsum(np.tile([0.03, 0.05], 50)), 25, True),
        (np.zeros(1), 25, False),
    ],
)
def test_frame_rate(times, rate, variable):
    found = frame_rate(times)
    assert float(found.exact) == pytest.approx(float(rate), rel=0.01)
    assert found.variable == variable
    if not variable and rate != 17:
        assert found.exact == rate


def seen(frames: int) -> Seen:
    rng = np.random.default_rng(0)
    return Seen(
        np.zeros((frames, 2), np.float32),
        rng.integers(0, 255, (frames, 36)).astype(np.uint8),
        rng.random(frames),
        np.full(frames, 0.5),
        np.full(frames, 0.1),
    )


@pytest.fixture
def example() -> Analysis:
    """20 s at 29.97: a cut at frame 100, a transition over 300 to 319, and nothing more."""
    what = seen(600)
    what.probabilities[100, 0] = 0.9
    what.probabilities[300:320, 1] = 0.8
    times = np.arange(600) * 1001 / 30000
    return analysis(times, what, {"cut": 0.5, "gradual": 0.5})


def test_shots_of_an_analysis(example):
    frame = 1001 / 30000
    assert [(s.first_frame, s.last_frame) for s in example.shots] == [
        (0, 99), (100, 309), (310, 599),
    ]  # fmt: skip
    assert [s.start for s in example.shots] == pytest.approx([0, 100 * frame, 310 * frame])
    assert [s.end for s in example.shots] == pytest.approx([100 * frame, 310 * frame, 600 * frame])
    assert [(t.kind, t.first_frame, t.last_frame) for t in example.transitions] == [
        ("cut", 100, 100), ("gradual", 300, 319),
    ]  # fmt: skip
    assert example.transitions[1].end == pytest.approx(320 * frame)
    assert example.rate == "30000/1001" and not example.variable_rate
    # No key frame out of a transition.
    assert example.shots[1].key_frame < 300 and example.shots[2].key_frame >= 320
    assert Analysis.from_json(json.loads(json.dumps(_plain(example)))) == example


def _plain(value):
    import dataclasses

    return dataclasses.asdict(value)


def test_variable_rate_keeps_exact_times():
    what = seen(40)
    what.probabilities[20, 0] = 1
    times = np.cumsum(np.tile([0.01, 0.09], 20))
    found = analysis(times, what, {"cut": 0.5, "gradual": 0.5})
    assert found.variable_rate and found.shots[1].start == times[20] == found.shots[0].end


def test_scene_list_has_pyscenedetects_columns(example):
    rows = list(csv.reader(io.StringIO(editing.scene_list(example, "a.mp4"))))
    assert rows[0] == [
        "Scene Number", "Start Frame", "Start Timecode", "Start Time (seconds)", "End Frame",
        "End Timecode", "End Time (seconds)", "Length (frames)", "Length (timecode)",
        "Length (seconds)",
    ]  # fmt: skip
    assert rows[2] == [
        "2", "101", "00:00:03.337", "3.337", "310", "00:00:10.344", "10.344", "210",
        "00:00:07.007", "7.007",
    ]  # fmt: skip


def test_edit_decision_list(example):
    lines = editing.edl(example, "a\nb.mp4").splitlines()
    assert lines[:3] == ["TITLE: a?b.mp4", "FCM: DROP FRAME", ""]
    span = "00:00:03;10 00:00:10;10"
    assert lines[5] == f"002  AX       V     C        {span} {span}"


def test_opentimelineio(example):
    made = json.loads(editing.opentimelineio(example, "a.mp4"))
    (track,) = made["tracks"]["children"]
    spans = [clip["source_range"] for clip in track["children"]]
    assert [s["start_time"]["value"] for s in spans] == [0, 100, 310]
    assert [s["duration"]["value"] for s in spans] == [100, 210, 290]
    assert track["markers"][1]["marked_range"]["duration"]["value"] == 20


def test_opentimelineio_is_read_by_its_library(example):
    otio = pytest.importorskip("opentimelineio")
    made = otio.adapters.read_from_string(editing.opentimelineio(example, "a.mp4"), "otio_json")
    assert made.duration().to_frames() == 600 and len(made.find_clips()) == 3


def test_chapters(example):
    text = editing.chapters(example, "a.mp4")
    assert text.startswith("WEBVTT\n\n1\n00:00:00.000 --> 00:00:03.337\nShot 1\n\n2\n")


def test_writing(example, tmp_path):
    for suffix in editing.FORMATS:
        editing.write(example, "a.mp4", tmp_path / f"a{suffix}")
    assert len(list(tmp_path.iterdir())) == 4
    with pytest.raises(ValueError, match="must end with"):
        editing.write(example, "a.mp4", tmp_path / "a.xml")
