"""What a report says, for whole runs, interrupted ones and hostile ones."""

import html.parser
import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments import report
from experiments.report import results

ROOT = pathlib.Path(__file__).resolve().parents[3]
MakeRun = Callable[..., pathlib.Path]
VOID = {"meta", "link", "br", "img", "hr"}


class Document(html.parser.HTMLParser):
    """The elements and the text of a page; an element that is not closed is an error."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [
            found
            for name, found in self.elements
            if name == tag and all(found.get(k) == v for k, v in attributes.items())
        ]


def written(run_dir: pathlib.Path) -> tuple[str, Document]:
    """The report of a run, checked to be one file that asks for nothing."""
    page = report.write(run_dir).read_text("utf-8")
    document = Document(page)
    for _, attributes in document.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (name, value)
            if name in ("src", "href", "poster", "srcset", "action", "data"):
                assert (value or "").startswith("data:"), (name, value)
    assert len(document.all("script")) == 1
    assert not document.all("iframe") and not document.all("object") and not document.all("base")
    assert not re.search(r"@import|url\(", page)
    return page, document


def edit(path: pathlib.Path, **changes: object) -> None:
    """Changes keys of a JSON file; `__` in a name stands for the slash."""
    values = json.loads(path.read_text())
    values.update({name.replace("__", "/"): value for name, value in changes.items()})
    path.write_text(json.dumps(values))


def test_whole_run(run_folder: MakeRun) -> None:
    run = run_folder()
    metrics = json.loads((run / "metrics.json").read_text())
    edit(run / "metrics.json", test__top1=0.95, test__count=400, best__epoch=9)
    page, document = written(run)
    assert page.startswith("<!doctype html>")
    text = document.text
    assert "cnn_small on moving_shapes, shapes" in text
    assert "95.0% of 400 test clips recognized" in text
    assert "95% interval 92.4% to 96.7%" in text
    assert "Guessing among 10 classes gives 10.0%." in text
    assert "weights after epoch 9 of 10" in text
    assert "Clips: 1,000 to train, 200 to validate, 400 to test." in text
    assert "The run took 2 min 22 s." in text
    assert "1,213,130" in text
    assert f"macro F1{100 * metrics['test/macro_f1']:.1f}%" in text
    for title in (
        "Learning curves",
        "Example clips",
        "Which classes are taken for which",
        "Each class",
        "Can its confidence be trusted?",
        "Where the time went",
        "Configuration",
    ):
        assert title in text
    assert len(document.all("video")) == 12
    for video in document.all("video"):
        assert {"autoplay", "muted", "loop", "playsinline"} <= video.keys()
        assert (video["src"] or "").startswith("data:video/mp4;base64,")


def test_report_depends_on_the_files_alone(run_folder: MakeRun) -> None:
    run = run_folder(examples=2)
    first = report.write(run).read_bytes()
    assert report.write(run).read_bytes() == first
    assert not [path for path in run.iterdir() if path.name.startswith(".")]


def test_wilson_interval() -> None:
    """Values of Brown, Cai, DasGupta 2001 (their formula 4), and the ends."""
    assert results.interval(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert results.interval(1.0, 20) == pytest.approx((0.8389, 1.0), abs=1e-4)
    assert results.interval(0.0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_examples_are_told_apart_in_words(run_folder: MakeRun) -> None:
    run = run_folder(examples=2)
    index = run / "examples" / "index.json"
    entry = json.loads(index.read_text())[0]
    good = entry | {"label": "star", "prediction": "star", "source": "a/b.mp4"}
    bad = entry | {"label": "star", "prediction": "ring", "file": "001.mp4"}
    good["probabilities"] = [["star", 0.75], ["ring", 0.2], ["cross", 0.05], ["heart", 0.0]]
    index.write_text(json.dumps([good, bad]))
    _, document = written(run)
    assert "1 right, 1 wrong" in document.text
    assert "✓ righttruestarpredictedstarstar75.0%ring20.0%cross5.0%a/b.mp4" in document.text
    assert "✗ wrongtruestarpredictedring" in document.text
    assert "heart0.0%" not in document.text


@pytest.mark.parametrize("classes", [2, 10, 25, 26, 101])
def test_confusion_matrix(classes: int, run_folder: MakeRun) -> None:
    """Every count is in a cell under its class, however many classes there are."""
    run = run_folder(classes=classes, tested=4 * classes, accuracy=0.7, examples=0)
    matrix = json.loads((run / "metrics.json").read_text())["test/confusion"]
    page, document = written(run)
    table = re.search(r'<table class="confusion.*?</table>', page, re.S)
    assert table
    rows = re.findall(r"<tr>(.*?)</tr>", table[0], re.S)[1:]
    cells = [re.findall(r"<td[^>]*>([^<]*)", row) for row in rows]
    assert [[int(cell or 0) for cell in row] for row in cells] == matrix
    off = [(-v, -v / sum(r), i, j) for i, r in enumerate(matrix) for j, v in enumerate(r) if i != j]
    count, _, i, j = min(off)
    names = json.loads((run / "metrics.json").read_text())["classes"]
    expected = f"Most often {names[i]} is taken for {names[j]}: {-count} of {sum(matrix[i])} clips."
    assert expected in document.text
    assert ("heat" in {e.get("class") for e in document.all("svg")}) == (classes > 25)


def test_perfect_matrix_says_so(run_folder: MakeRun) -> None:
    run = run_folder(classes=2, examples=0)
    edit(run / "metrics.json", test__confusion=[[30, 0], [0, 30]])
    assert "No clip is taken for another class." in written(run)[1].text


def test_few_classes_have_no_top5(run_folder: MakeRun) -> None:
    """Five guesses among two classes are always right: not a figure to show."""
    assert "top-5" in written(run_folder(examples=0))[1].text
    assert "top-" not in written(run_folder(classes=2, examples=0))[1].text.replace("top-1", "")


def test_class_that_was_never_predicted(run_folder: MakeRun) -> None:
    run = run_folder(classes=2, examples=0)
    rows = [
        {"class": "fight", "precision": 0.5, "recall": 1.0, "f1": 2 / 3, "support": 30},
        {"class": "noFight", "precision": None, "recall": 0.0, "f1": 0.0, "support": 30},
    ]
    edit(run / "metrics.json", test__per_class=rows)
    text = written(run)[1].text
    assert "fight3050.0%100.0%66.7%noFight30\N{EN DASH}0.0%0.0%" in text
    assert "F1 runs from 0.0% (noFight) to 66.7% (fight)." in text


@pytest.mark.parametrize(
    ("confidence", "verdict"),
    [(0.9, "10.0 points too sure"), (0.75, "5.0 points too modest"), (0.8, "exactly as sure")],
)
def test_calibration_in_words(confidence: float, verdict: str, run_folder: MakeRun) -> None:
    run = run_folder(classes=2, examples=0)
    empty = {"low": 0.0, "high": 0.6, "weight": 0, "confidence": None, "accuracy": None}
    full = {"low": 0.6, "high": 1.0, "weight": 40, "confidence": confidence, "accuracy": 0.8}
    edit(run / "metrics.json", test__calibration=[empty, full], test__ece=0.123)
    text = written(run)[1].text
    assert f"{100 * confidence:.1f}% confidence and is right in 80.0% of the clips" in text
    assert verdict in text and "Over the bins the gap is 12.3%" in text


# Runs that did not end, or ended badly.


def test_empty_folder(tmp_path: pathlib.Path) -> None:
    text = written(tmp_path)[1].text
    assert "Not finished: no epoch is complete yet" in text
    assert "--resume" in text


def test_interrupted_run(run_folder: MakeRun) -> None:
    """Killed while a line was being written: the half line goes, without a complaint."""
    run = run_folder(finished=False, epochs=3)
    log = run / "metrics.jsonl"
    log.write_bytes(log.read_bytes()[:-25])
    text = written(run)[1].text
    assert "Not finished: 2 of 10 epochs trained" in text
    assert re.search(r"best validation accuracy so far is \d\d\.\d%, after epoch 2\.", text)
    assert "could not be read" not in text
    assert "The slowest stage of the input pipeline is decoding" in text


def test_garbage_in_the_middle_is_reported(run_folder: MakeRun) -> None:
    run = run_folder(finished=False, epochs=2)
    log = run / "metrics.jsonl"
    log.write_bytes(b'\x00\xff{"step": \n[1, 2]\n{"epoch": 1}\n' + log.read_bytes())
    assert "3 of the lines of metrics.jsonl could not be read." in written(run)[1].text


def test_last_line_without_an_end_counts_if_it_is_whole(run_folder: MakeRun) -> None:
    run = run_folder(finished=False, epochs=2)
    log = run / "metrics.jsonl"
    log.write_bytes(log.read_bytes()[:-1])
    assert "2 of 10 epochs trained" in written(run)[1].text


@pytest.mark.parametrize("name", ["config.json", "metrics.json"])
@pytest.mark.parametrize("content", [b"", b'{"epochs": ', b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_unreadable_json_is_reported(name: str, content: bytes, run_folder: MakeRun) -> None:
    run = run_folder(examples=0, epochs=2)
    (run / name).write_bytes(content)
    text = written(run)[1].text
    assert f"{name} " in text
    assert "Learning curves" in text


def test_missing_and_unusable_clips(run_folder: MakeRun) -> None:
    """What is there is shown; what is not says why, and no name leads out of the folder."""
    run = run_folder(examples=6)
    folder = run / "examples"
    (run / "secret.mp4").write_bytes((folder / "000.mp4").read_bytes())
    (folder / "000.mp4").unlink()
    (folder / "001.mp4").write_bytes(b"not a video at all")
    (folder / "002.mp4").unlink()
    (folder / "002.mp4").symlink_to(run / "secret.mp4")
    (folder / "003.mp4").write_bytes(b"\0\0\0\x18ftyp" + bytes(9 * 2**20))
    entries = json.loads((folder / "index.json").read_text())
    entries[4]["file"] = "../secret.mp4"
    entries.append({"file": "\0", "label": 3, "probabilities": [["a"], 5, ["b", "x"]]})
    (folder / "index.json").write_text(json.dumps([*entries, "nonsense"]))
    _, document = written(run)
    assert len(document.all("video")) == 1
    text = document.text
    assert text.count("no clip: the file is missing") == 2
    assert "no clip: the file is not an MP4 video" in text
    assert "no clip: 9.0 MB are too large for a report" in text
    assert text.count("no clip: the file is a link") == 1
    assert text.count("no clip: the file's name is not one of this folder") == 1
    assert "examples/index.json has an entry that is not an object." in text


def test_diverged_run(run_folder: MakeRun) -> None:
    """Values that are not finite are a gap in the curve and a sentence."""
    run = run_folder(finished=False, epochs=0)
    lines = [
        {"step": 1, "epoch": 0, "step/loss": 2.0},
        {"step": 2, "epoch": 0, "step/loss": 1.0},
        {"step": 3, "epoch": 0, "step/loss": float("nan")},
        {"step": 4, "epoch": 0, "step/loss": float("inf")},
        {"step": 5, "epoch": 0, "step/loss": 1.5},
        {"step": 6, "epoch": 0, "step/loss": 1.0},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page, document = written(run)
    curve = re.search(r'<path class="curve step" d="(M(?!1 5)[^"]*)"', page)
    assert curve and curve[1].count("M") == 2 and curve[1].count("L") == 2
    assert "2 values not finite: drawn as a gap" in document.text
    assert "nan" not in document.text.lower() and "inf" not in curve[1]


def test_resumed_run_has_one_curve(run_folder: MakeRun) -> None:
    """A run that went back to step 2 logs steps 3 and 4 again: the later values count."""
    run = run_folder(finished=False, epochs=0)
    steps = [(1, 4.0), (2, 3.0), (3, 99.0), (4, 99.0), (3, 2.0), (4, 1.0), (4, 1.0)]
    lines = [{"step": step, "epoch": 0, "step/loss": loss} for step, loss in steps]
    lines.append({"step": 4, "epoch": 0, "train/loss": 2.5, "val/loss": 1.0, "val/top1": 0.5})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page, document = written(run)
    curve = re.search(r'<path class="curve step" d="(M(?!1 5)[^"]*)"', page)
    assert curve
    # Four points on an axis of one epoch (46 to 448) and of losses 0 to 4 (210 to 12).
    assert curve[1] == "M146.5 12.0L247.0 61.5L347.5 111.0L448.0 160.5"
    assert "Validation accuracy is highest after epoch 1, at 50.0%" in document.text


def test_best_of_equals_has_the_lower_loss(run_folder: MakeRun) -> None:
    """As training chooses; the run's own choice counts once it is known."""
    run = run_folder(finished=False, epochs=0)
    found = [(0.5, 2.0), (0.75, 1.0), (0.75, 0.5), (0.75, 0.5), (0.25, 0.1)]
    lines = [
        {"step": 10 * i + 10, "epoch": i, "val/top1": top1, "val/loss": loss}
        for i, (top1, loss) in enumerate(found)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page, document = written(run)
    assert "best validation accuracy so far is 75.0%, after epoch 3." in document.text
    assert page.count('<circle class="best"') == 2
    (run / "metrics.json").write_text(json.dumps({"best/epoch": 2, "val/top1": 0.75}))
    assert "Tested are the weights after epoch 2 of 10" in written(run)[1].text


def test_other_curves_get_their_own_line(run_folder: MakeRun) -> None:
    """Averaged weights, and prefixes that the report has never heard of."""
    run = run_folder(finished=False, epochs=0)
    line = {"step": 5, "epoch": 0, "train/top1": 0.5, "ema/top1": 0.75, "<b>/top1": 0.25, "top1": 1}
    (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    page, document = written(run)
    assert "training 50.0%validation, averaged weights 75.0%<b> 25.0%" in document.text
    assert page.count('class="curve ema"') == 2 and page.count('class="curve other"') == 2


def test_long_logs_stay_small(run_folder: MakeRun) -> None:
    run = run_folder(finished=False, epochs=0)
    with (run / "metrics.jsonl").open("w") as log:
        for step in range(1, 20_001):
            log.write(json.dumps({"step": step, "epoch": 0, "step/loss": 1 / step}) + "\n")
    page, _ = written(run)
    assert len(page) < 60_000


def test_first_loss_does_not_press_the_rest_flat(run_folder: MakeRun) -> None:
    run = run_folder(finished=False, epochs=0)
    losses = [1e6, 3.0, 2.0, 1.5, 1.0]
    lines = [{"step": i + 1, "epoch": 0, "step/loss": loss} for i, loss in enumerate(losses)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page, document = written(run)
    assert "logarithmic scale" in document.text
    curve = re.search(r'<path class="curve step" d="(M[^"]*)" ?/?>.*?', page.split("</figcap")[1])
    assert curve and curve[1].startswith("M126.4 12.0") and curve[1].endswith("448.0 210.0")


# Where the time went.


@pytest.mark.parametrize(
    ("waited", "verdict"),
    [(1.0, "The input kept up"), (10.0, "nearly kept up"), (90.0, "held the training up")],
)
def test_time_in_words(waited: float, verdict: str, run_folder: MakeRun) -> None:
    run = run_folder(examples=0)
    stages = {
        "stage/step": 60.0,
        "stage/wait for input": waited,
        "stage/transfer": 5.0,
        "input/read": 20.0,
        "input/decode": 30.0,
        "input/wait": 500.0,
        "input/<i>": 1.0,
    }
    edit(run / "metrics.json", stages=stages, seconds=200.0)
    text = written(run)[1].text
    slowest = "waiting for input: 1 min 30 s" if waited > 60 else "training steps, with compilation"
    assert f"Most of the time went into {slowest}" in text
    assert "slowest stage of the input pipeline is decoding, with 30.0 s, 58.8% of its work" in text
    assert verdict in text
    assert f"everything else{'45.0 s' if waited > 60 else '2 min'}" in text
    assert "<i>1.0 s" in text


def test_stage_seconds_of_an_interrupted_run_add_up(run_folder: MakeRun) -> None:
    """Sums that begin at zero again, because the run was resumed, are added to those before."""
    run = run_folder(finished=False, epochs=0)
    decode = [10.0, 25.0, 5.0, 12.0]
    lines = [
        {"step": i + 1, "epoch": i, "train/loss": 1.0, "input/decode": value, "input/read": 1.0}
        for i, value in enumerate(decode)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "decoding, with 37.0 s" in written(run)[1].text


# Names from elsewhere.


HOSTILE = [
    "</title><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'onmouseover='alert(1)",
    "</style><style>*{display:none}",
    "javascript:alert(1)",
    "\u202ereversed\u202c &amp; \u0000\u001b[31m",
    "caf\udce9.mp4",  # a file name that is not UTF-8
    "名前 with spaces 🎬",
    "x" * 500,
    "",
]


def test_hostile_names_are_only_text(tmp_path: pathlib.Path, run_folder: MakeRun) -> None:
    run = run_folder(classes=10, examples=10)
    names = HOSTILE
    metrics = json.loads((run / "metrics.json").read_text())
    for entry, name in zip(metrics["test/per_class"], names, strict=True):
        entry["class"] = name
    edit(run / "metrics.json", classes=names, test__per_class=metrics["test/per_class"])
    index = run / "examples" / "index.json"
    entries = json.loads(index.read_text())
    for entry, name in zip(entries, names, strict=True):
        entry |= {"label": name, "prediction": names[0], "source": name}
        entry["probabilities"] = [[name, 0.9], [names[0], 5e9], [name, -1]]
    index.write_text(json.dumps(entries))
    edit(run / "config.json", model={"name": names[0], "<b>": names}, data={"dataset": names[1]})
    moved = run.rename(tmp_path / "<b>&\u202e'\"")
    page, document = written(moved)
    assert not document.all("img") and not document.all("b", onerror="alert(1)")
    assert len(document.all("style")) == 1
    shown = document.text
    assert shown.count("</title><script>alert(1)</script>") > 20
    assert "caf\N{REPLACEMENT CHARACTER}.mp4" in shown and "名前 with spaces 🎬" in shown
    assert "\x00" not in page and "\x1b" not in page
    for width in re.findall(r"width:(-?[\d.e+]+)%", page):
        assert 0 <= float(width) <= 100


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.just(10**400),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(("class", "f1", "low", "weight", "accuracy", "train", "stage/step"))
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
KEYS = st.sampled_from(
    (
        *("test/top1", "test/top5", "test/top5_k", "test/count", "test/loss", "test/ece"),
        *("test/per_class", "test/confusion", "test/calibration", "classes", "clips", "stages"),
        *("best/epoch", "broken_files", "parameters", "seconds", "step", "epoch", "train/loss"),
        *(
            "val/loss",
            "val/top1",
            "step/loss",
            "input/decode",
            "stage/step",
            "stage/wait for input",
        ),
        *("epochs", "model", "data", "file", "label", "prediction", "probabilities", "source"),
    )
)
OBJECTS = st.dictionaries(KEYS, JSON, max_size=8)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    config=OBJECTS, metrics=OBJECTS, lines=st.lists(OBJECTS, max_size=5), index=st.lists(OBJECTS)
)
def test_no_values_break_the_page(tmp_path, config, metrics, lines, index) -> None:
    """Whatever the files hold, there is a well-formed page."""
    (tmp_path / "examples").mkdir(exist_ok=True)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    numbered = [{"step": i, "epoch": i} | line for i, line in enumerate(lines)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(v) + "\n" for v in numbered))
    (tmp_path / "examples" / "index.json").write_text(json.dumps(index))
    written(tmp_path)


# Writing.


def test_failed_writing_leaves_the_old_report(
    run_folder: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_folder(examples=0)
    before = report.write(run).read_bytes()
    monkeypatch.setattr(pathlib.Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        report.write(run)
    assert (run / "report.html").read_bytes() == before
    assert sorted(path.name for path in run.iterdir()) == [
        "config.json",
        "metrics.json",
        "metrics.jsonl",
        "report.html",
    ]


def test_missing_folder_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-run is not a folder"):
        report.write(tmp_path / "no-such-run")


def test_command_line(run_folder: MakeRun, tmp_path: pathlib.Path) -> None:
    """Reports can be made again by hand, with nothing heavy imported."""
    run = run_folder(examples=0)
    program = [sys.executable, "-X", "importtime", "-m", "experiments.report"]
    done = subprocess.run(
        [*program, run, tmp_path / "none"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stdout == f"{run / 'report.html'}\n"
    assert f"error: {tmp_path / 'none'} is not a folder" in done.stderr
    imported = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.M))
    assert not imported & {"jax", "flax", "numpy", "tyro", "tensorflow", "grain", "tensorboardX"}
