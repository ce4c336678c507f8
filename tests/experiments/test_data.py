"""From a configuration to prepared data: what is accepted, refused and said."""

import pathlib
import struct
import subprocess
import sys

import numpy as np
import pytest

from experiments import data
from experiments.config import Data
from experiments.data import DataError
from zoo import video

SMALL = {"decode_size": 16, "size": 16, "crf": 30}


@pytest.fixture(autouse=True)
def cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def content() -> bytes:
    frames = np.random.default_rng(0).integers(0, 255, (4, 24, 32, 3), np.uint8)
    encoded = video.encode(frames, fps=10)
    assert encoded is not None
    return encoded


@pytest.fixture
def folder(tmp_path: pathlib.Path, content: bytes) -> pathlib.Path:
    """20 videos, five of each class in train and in val."""
    for split in ("train", "val"):
        for label in "ab":
            for i in range(5):
                path = tmp_path / "my data" / split / label / f"{i}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                # An empty box at the end: the same video in other bytes.
                name = f"{split[0]}{label}{i:02d}".encode()
                path.write_bytes(content + struct.pack(">I4s4s", 12, b"free", name))
    return tmp_path / "my data"


def settings(folder: pathlib.Path, **changes) -> Data:
    return Data(**SMALL | {"dataset": "video_folder", "root": str(folder)} | changes)


def test_a_folder_is_prepared_once_and_said_so(folder, cache) -> None:
    first: list[str] = []
    prepared = data.prepare(settings(folder), say=first.append)
    assert [line.split()[0] for line in first[:2]] == ["Preparing", "Prepared"]
    assert prepared.directory.parent == cache / "datasets"
    assert data.cache_folder() == cache / "datasets"
    second: list[str] = []
    again = data.prepare(settings(folder), say=second.append)
    assert again.directory == prepared.directory
    assert second == first[2:]
    assert any("the final test is measured on val" in line for line in second)
    # Fields that decide nothing about the shards do not prepare anew.
    other = settings(folder, frames=3, stride=5, workers=1, threads=7, max_broken=0.5)
    assert data.prepare(other, say=first.append).directory == prepared.directory
    assert data.prepare(settings(folder, crf=31), say=first.append).directory != prepared.directory


def break_files(folder: pathlib.Path, count: int) -> None:
    for i in range(count):
        (folder / "train" / "ab"[i % 2] / f"{i}.mp4").write_text("this is not a video")


def test_five_percent_of_broken_files_are_left_out_and_said(folder) -> None:
    break_files(folder, 1)
    lines: list[str] = []
    prepared = data.prepare(settings(folder), say=lines.append)
    assert prepared.size("train") == 9
    assert len(prepared.quarantine) == 1
    (line,) = [line for line in lines if "unusable" in line]
    assert line.startswith("1 of 20 clips of video_folder-my data are unusable and left out: ")
    assert "train/a/0.mp4 (" in line and str(prepared.quarantine_file) in line
    batch = next(iter_batches(prepared))
    assert batch["clip"].shape == (9, 2, 16, 16, 3)


def iter_batches(prepared: data.Prepared) -> data.BatchIterator:
    return data.batches(
        prepared, "train", batch_size=9, frames=2, size=(16, 16), train=True, seed=0, epochs=1
    )


def test_too_many_broken_files_are_an_error_each_time(folder) -> None:
    break_files(folder, 3)
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            data.prepare(settings(folder), say=lambda line: None)
        message = str(caught.value)
        assert "3 of 20 clips" in message
        assert "data.max_broken" in message
        for name in ("train/a/0.mp4", "train/a/2.mp4", "train/b/1.mp4"):
            assert name in message
        report = pathlib.Path(message.partition("reasons in ")[2].partition(";")[0])
        assert "train/b/1.mp4" in report.read_text()
    assert data.prepare(settings(folder, max_broken=0.2), say=print).size("train") == 7


def test_a_class_whose_files_are_all_broken_is_an_error(folder) -> None:
    for path in (folder / "train" / "b").iterdir():
        path.write_text("this is not a video")
    with pytest.raises(DataError, match=r"has no usable training clip of 'b': add some, or remove"):
        data.prepare(settings(folder, max_broken=0.9), say=print)


def test_a_split_whose_files_are_all_broken_is_an_error(folder) -> None:
    for path in (folder / "val").rglob("*.mp4"):
        path.write_text("this is not a video")
    with pytest.raises(DataError, match="has no clips in val"):
        data.prepare(settings(folder, max_broken=0.9), say=print)


def test_moving_shapes_follows_the_configuration() -> None:
    config = Data(**SMALL, task="motions", train_clips=20, val_clips=10, test_clips=10, seed=3)
    prepared = data.prepare(config, say=print)
    assert {split: prepared.size(split) for split in prepared.splits} == {
        "train": 20,
        "val": 10,
        "test": 10,
    }
    assert prepared.classes[:2] == ("right", "left")
    record = prepared.record("val", 7)
    assert (record.height, record.width, record.frames, record.label) == (16, 16, 16, 7)
    assert record.source == "motions/val/00007"
    assert video.probe(record.video).codec == "h264"


def test_reading_prepared_data_imports_neither_jax_nor_tfds(folder, cache) -> None:
    data.prepare(settings(folder), say=print)
    program = (
        "import sys; from experiments import data; from experiments.config import Data; "
        f"data.prepare(Data(**{SMALL}, dataset='video_folder', root={str(folder)!r})); "
        "print({'jax', 'grain', 'tensorflow_datasets', 'tensorflow', 'flax'} & set(sys.modules))"
    )
    repository = pathlib.Path(__file__).resolve().parents[2]
    environment = {"ZOO_CACHE": str(cache), "PYTHONPATH": str(repository)}
    out = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert out.splitlines()[-1] == "set()"
