"""The input benchmark runs, compares equal frames, and names a bottleneck."""

import dataclasses
import importlib.util
import re

import pytest

from experiments import bench, configs
from experiments.config import dumps
from zoo import video


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("bench") / "made.mp4"
    path.write_bytes(bench.generated_video())
    return str(path)


def test_generated_video_has_long_groups_of_pictures(made: str):
    info = video.probe(made)
    assert (info.width, info.height, info.frames, info.frame_rate) == (426, 240, 300, 30)


def test_compare_without_other_libraries(made: str, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    options = ["--video", made, "--clips", "3", "--rounds", "2", "--size", "32"]
    assert bench.main(["input", *options]) == 0
    text = capsys.readouterr().out
    assert "PyAV is not installed" in text and "decord is not installed" in text
    for label in ("zoo.video", "zoo.video, a process per clip", "zoo.video, shard records"):
        row = re.search(rf"^{label} +([\d.]+) +([\d.]+)$", text, re.MULTILINE)
        assert row and float(row[1]) > 0 and float(row[2]) > 0


def test_compare_with_pyav(made: str, capsys, monkeypatch):
    pytest.importorskip("av")
    found = importlib.util.find_spec("av")
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: found if n == "av" else None)
    options = ["--video", made, "--clips", "2", "--rounds", "1", "--size", "32", "--workers", "1"]
    assert bench.main(["input", *options]) == 0
    assert re.search(r"zoo.video decodes [\d.]+ times as fast as PyAV", capsys.readouterr().out)


def test_other_frames_are_noticed(made: str):
    clips = bench.Clips(made, 30.0, 4, 32)
    runs = {
        "zoo.video": lambda starts: (clips.with_zoo(starts), 0.0),
        "wrong": lambda starts: (clips.with_zoo([start + 1 for start in starts]), 0.0),
    }
    with pytest.raises(SystemExit, match="wrong gives other frames"):
        bench._check_agreement(runs, [0.0, 1.0], 4)


@pytest.mark.slow
def test_stages_name_a_bottleneck(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    small = configs.CONFIGS["cnn_small"]
    data = dataclasses.replace(
        small.data, train_clips=20, val_clips=10, test_clips=10, frames=1, size=24, decode_size=24
    )
    path = tmp_path / "small.json"
    path.write_text(dumps(dataclasses.replace(small, data=data, batch_size=4)))
    assert bench.main(["input", "--config", str(path), "--steps", "3"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^The bottleneck is (decode|transfer|step)\.$", text, re.MULTILINE)
    for stage in ("decode", "transfer", "step"):
        assert re.search(rf"^{stage} +[\d.]+ ms/batch +[\d]+ clips/s alone$", text, re.MULTILINE)
