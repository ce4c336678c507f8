"""python -m zoo classify: what it says, on many files, broken ones, and after a stop."""

import csv
import io
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import zoo
from zoo import __main__ as command_line
from zoo import video
from zoo.tasks import engine
from zoo.tasks.classify import Classify
from zoo.tasks.model import spatial_crops
from zoo.video import ffmpeg

MODEL = "cnn_small.moving_shapes"


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    status = command_line.main(["classify", "--model", MODEL, *arguments])
    out, err = capsys.readouterr()
    return status, out, err


def test_probabilities_are_the_models(fill, tmp_path):
    """The mean over windows of the softmax of the logits, as computed by hand from `decode`."""
    fill(tmp_path, whole=1)
    (path,) = tmp_path.iterdir()
    pretrained = zoo.load_pretrained(MODEL)
    spec = pretrained.spec
    task = Classify(pretrained, seconds=0.4, top=10)
    (outcome,) = engine.run([path], [task])
    frames = video.decode(path, size=(72, 72)).frames
    logits = []
    for start in (0, 10, 20):
        clip = frames[[start + 2, start + 7], 4:68, 4:68] / 255.0
        clip = (clip - np.array(spec.mean)) / np.array(spec.std)
        logits.append(pretrained.model.apply(pretrained.variables, clip[None].astype(np.float32)))
    odds = np.exp(np.stack(logits)[:, 0])
    expected = odds / odds.sum(axis=1, keepdims=True)
    result = outcome.results["classify"]
    for window, probabilities in zip(result.windows, expected, strict=True):
        found = {guess.name: guess.probability for guess in window.top}
        assert [found[name] for name in spec.classes] == pytest.approx(probabilities, abs=1e-5)
    found = {guess.name: guess.probability for guess in result.top}
    assert [found[name] for name in spec.classes] == pytest.approx(expected.mean(0), abs=1e-5)
    assert [w.start for w in result.windows] == pytest.approx([0, 0.4, 0.8])
    assert [w.end for w in result.windows] == pytest.approx([0.4, 0.8, 1.2])
    assert outcome.frames == 30 and outcome.duration == pytest.approx(1.2)


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_picture_is_a_video_of_one_frame(fill, tmp_path, ending):
    fill(tmp_path, whole=1)
    (path,) = tmp_path.iterdir()
    picture = tmp_path / f"picture.{ending}"
    command = [ffmpeg.executable(), "-loglevel", "error", "-i", str(path), "-frames:v", "1"]
    subprocess.run([*command, str(picture)], check=True)
    (outcome,) = engine.run([picture], [Classify(zoo.load_pretrained(MODEL))])
    assert outcome.error is None and outcome.frames == 1
    assert len(outcome.results["classify"].windows) == 1


@pytest.mark.parametrize("shape", [(80, 64), (64, 81), (64, 64), (70, 99)])
@pytest.mark.parametrize("crops", [1, 3])
def test_crops_are_those_of_training(shape, crops):
    from zoo.video import geometry

    clip = np.arange(2 * shape[0] * shape[1] * 3).reshape(2, *shape, 3)
    expected = geometry.spatial_crops(clip, (64, 64), crops)
    assert np.array_equal(spatial_crops(clip, 64, crops), expected)


def test_batches_join_windows_of_several_videos(fill, tmp_path):
    """A batch is computed when it is full; each video gets what is its own."""
    fill(tmp_path, whole=5)
    calls = []

    class Counting(Classify):
        def compute(self, windows):
            calls.append(len(windows))
            return super().compute(windows)

    pretrained = zoo.load_pretrained(MODEL)
    paths = sorted(tmp_path.iterdir())
    together = list(engine.run(paths, [Counting(pretrained, seconds=0.4, batch=8)]))
    assert calls == [8, 7]
    for path, outcome in zip(paths, together, strict=True):
        (alone,) = engine.run([path], [Classify(pretrained, seconds=0.4, batch=3)])
        assert outcome.video == str(path)
        best = [guess.name for guess in alone.results["classify"].top]
        assert [guess.name for guess in outcome.results["classify"].top] == best


def test_fifty_clips_of_which_five_are_broken(fill, tmp_path, capsys):
    fill(tmp_path / "in", whole=45, broken=5)
    status, out, err = run(capsys, str(tmp_path / "in"), "--json")
    records = [json.loads(line) for line in out.splitlines()]
    assert status == 3
    assert len(records) == 45 and all(record["classify"]["top"] for record in records)
    failed = [line for line in err.splitlines() if line.startswith("passed over: ")]
    assert len(failed) == 5
    for name, reason in (
        ("cut.mp4", "cut short"),
        ("empty.mp4", "it is empty"),
        ("text.mp4", "does not recognise"),
        ("zeros.avi", "does not recognise"),
        ("sound only.mkv", "no video stream"),
    ):
        assert any(name in line and reason in line for line in failed), failed
    assert err.splitlines()[-1] == "45 of 50 videos have results, 5 failed"


def test_a_second_run_does_what_is_left(fill, tmp_path, capsys, monkeypatch):
    fill(tmp_path / "in", whole=6, broken=1)
    arguments = (str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--json")
    status, first, _ = run(capsys, *arguments)
    assert status == 3
    (failure,) = map(json.loads, (tmp_path / "out/failures.jsonl").read_text().splitlines())
    assert failure["video"] == "cut.mp4" and failure["error"]["type"] == "BrokenVideo"
    kept = sorted((tmp_path / "out").glob("*.mp4.json"))
    assert len(kept) == 6
    (tmp_path / "in/cut.mp4").unlink()
    kept[2].unlink()
    kept[3].write_text("{}")
    (tmp_path / "in/clip 00 ü'.mp4").touch()  # Changed since.
    seen = []
    done = engine.run

    def spy(videos, *rest, **options):
        seen.append(videos)
        return done(videos, *rest, **options)

    monkeypatch.setattr(engine, "run", spy)
    status, second, err = run(capsys, *arguments)
    assert status == 0 and err == ""
    assert [path.name[5:7] for path in seen[0]] == ["00", "02", "03"]
    assert sorted(second.splitlines()) == sorted(first.splitlines())
    assert (tmp_path / "out/failures.jsonl").read_text() == ""
    # Other settings are other results.
    assert run(capsys, *arguments, "--top", "2")[0] == 0 and len(seen[1]) == 6


def test_table_and_parquet(fill, tmp_path, capsys):
    import pyarrow.parquet

    fill(tmp_path / "in", whole=2)
    table = tmp_path / "table.parquet"
    status, out, _ = run(
        capsys, str(tmp_path / "in"), "--csv", "--top", "2", "--parquet", str(table)
    )
    rows = list(csv.DictReader(io.StringIO(out)))
    assert status == 0 and len(rows) == 2 * (2 + 2)
    assert rows[0]["window"] == "" and rows[2]["window"] == "0" and rows[1]["rank"] == "2"
    stored = pyarrow.parquet.read_table(table).to_pylist()
    assert [row["probability"] for row in stored] == [float(row["probability"]) for row in rows]
    assert [row["video"] for row in stored] == [row["video"] for row in rows]


def test_shards_share_the_videos(fill, tmp_path, capsys):
    fill(tmp_path, whole=5)
    names, sizes = [], []
    for k in range(3):
        status, out, _ = run(capsys, str(tmp_path), "--json", "--shard", f"{k}/3")
        assert status == 0
        names += [json.loads(line)["video"] for line in out.splitlines()]
        sizes.append(len(out.splitlines()))
    assert sorted(names) == sorted(path.name for path in tmp_path.iterdir())
    assert sizes == [2, 2, 1]


def test_what_a_broken_file_still_gives(fill, tmp_path, capsys):
    whole = video.encode(np.random.default_rng(0).integers(0, 256, (50, 64, 64, 3), np.uint8))
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "a.mp4").write_bytes(whole)
    command = [ffmpeg.executable(), "-loglevel", "error", "-i", str(tmp_path / "a.mp4")]
    subprocess.run([*command, "-c", "copy", str(tmp_path / "a.mkv")], check=True)
    content = (tmp_path / "a.mkv").read_bytes()
    (folder / "a.mkv").write_bytes(content[: len(content) // 2])
    assert run(capsys, str(folder), "--json")[:2] == (3, "")
    status, out, err = run(capsys, str(folder), "--json", "--partial")
    record = json.loads(out)
    assert status == 3 and "a part of it was read" in err
    assert record["error"]["type"] == "BrokenVideo" and 10 < record["frames"] < 40
    assert record["classify"]["windows"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.mp4", "--model", "x3d_s.k40"], "did you mean"),
        (["FOLDER"], "holds no video"),
        (["a/x.mp4", "b/x.mp4"], "same name"),
    ],
)
def test_wrong_requests(arguments, message, tmp_path, capsys):
    arguments = [str(tmp_path) if part == "FOLDER" else part for part in arguments]
    status = command_line.main(["classify", *arguments])
    assert status == 2 and message in capsys.readouterr().err


def test_absent_files_are_failures(tmp_path, capsys):
    status, out, err = run(capsys, str(tmp_path / "absent.mp4"), "--out", str(tmp_path / "out"))
    assert status == 3 and out == "" and "absent.mp4: it cannot be opened" in err


def test_ctrl_c_leaves_whole_results(fill, tmp_path):
    fill(tmp_path / "in", whole=400)
    # A shell that runs the tests in the background makes its children deaf to Ctrl-C.
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from zoo.__main__ import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", program, "classify", "--model", MODEL, "--json"]
    process = subprocess.Popen(
        [*command, "--batch", "2", str(tmp_path / "in"), "--out", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "the same command goes on" in err and "Traceback" not in err
    records = [json.loads(line) for line in (first + out).splitlines()]
    kept = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.mp4.json")]
    assert 1 <= len(records) < 400 and 0 <= len(kept) - len(records) + 1 <= 1
