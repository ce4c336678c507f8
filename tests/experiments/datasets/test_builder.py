"""Preparation: what is written, that it is whole or absent, and what happens when it fails."""

import os
import pathlib
import signal
import subprocess
import sys
import time
from fractions import Fraction

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.datasets import builder, records
from experiments.datasets.plan import Contents, Item, Plan, Rejected
from experiments.datasets.records import DataError, Record, load, parse_record, to_example
from experiments.datasets.rendered import moving_shapes_plan

CLASSES = ("ä b", "c")


def encode(items: list[Item]) -> list[Record | Rejected]:
    return [
        Rejected(item, "it is broken")
        if item.job == "broken"
        else Record(item.job, item.label, item.source, 3, Fraction(30000, 1001), True, 24, 32)
        for item in items
    ]


def plan(count: int = 7, *, broken: tuple[int, ...] = (), name: str = "set", **more) -> Plan:
    def contents() -> Contents:
        def items(split: str, n: int) -> list[Item]:
            return [
                Item(f"{split}/é {i}.mp4", i % 2, "broken" if i in broken else bytes([i]) * i)
                for i in range(n)
            ]

        splits = {"train": items("train", count), "val": items("val", 2)}
        return Contents(CLASSES, splits, encode, **{"aliases": {"test": "val"}} | more)

    return Plan(name, {"count": count, "broken": broken}, contents)


def test_records_come_back_in_order(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(builder, "CLIPS_PER_SHARD", 3)
    prepared = builder.build(plan(broken=(1, 6)), tmp_path, print)
    assert prepared.classes == CLASSES
    assert prepared.splits == ("train", "val", "test")
    assert [prepared.size(split) for split in prepared.splits] == [5, 1, 1]
    assert prepared.counts == {"train": (3, 2), "val": (1, 0), "test": (1, 0)}
    assert prepared.frames == {"train": 15, "val": 3, "test": 3}
    found = [prepared.record("train", i) for i in range(5)]
    assert [record.video for record in found] == [bytes([i]) * i for i in (0, 2, 3, 4, 5)]
    assert found[1] == Record(b"\2\2", 0, "train/é 2.mp4", 3, Fraction(30000, 1001), True, 24, 32)
    assert prepared.source_name("test", 0) == "val/é 0.mp4"
    with pytest.raises(IndexError, match="train has 5 clips"):
        prepared.record("train", 5)
    with pytest.raises(DataError, match="no split 'validation'"):
        prepared.size("validation")


def test_broken_files_are_listed_with_their_reasons(tmp_path) -> None:
    prepared = builder.build(plan(broken=(1,)), tmp_path, print)
    assert [
        (entry.source, entry.split, entry.label, entry.reason) for entry in prepared.quarantine
    ] == [
        ("train/é 1.mp4", "train", "c", "it is broken"),
        ("val/é 1.mp4", "val", "c", "it is broken"),
    ]
    assert "é 1.mp4" in prepared.quarantine_file.read_text("utf-8")


def test_a_shard_of_broken_files_only_is_empty(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(builder, "CLIPS_PER_SHARD", 2)
    prepared = builder.build(plan(6, broken=(2, 3)), tmp_path, print)
    assert [prepared.record("train", i).frames for i in range(4)] == [3] * 4
    assert prepared.source_name("train", 2) == "train/é 4.mp4"


def test_tfds_opens_what_was_prepared(tmp_path) -> None:
    prepared = builder.build(plan(), tmp_path, print)
    found = tfds.builder_from_directory(prepared.directory / "encoded_clips" / "1.0.0")
    assert found.info.features["label"].names == list(CLASSES)
    source = found.as_data_source("train")
    for i in range(7):
        ours = to_example(prepared.record("train", i))
        theirs = {k: v.decode() if k == "source" else v for k, v in source[i].items()}
        assert theirs == ours


def test_tensorflow_is_not_imported(tmp_path) -> None:
    builder.build(plan(), tmp_path, print)
    assert "tensorflow" not in sys.modules


integers = st.integers(0, 2**62)
rates = st.fractions(0, 1000, max_denominator=10**6)


@settings(max_examples=50)
@given(st.binary(max_size=300), integers, st.text(), integers, rates, st.booleans())
def test_records_are_parsed_as_tfds_writes_them(video, label, source, frames, fps, even) -> None:
    record = Record(video, label, source, frames, fps, even, 2**40, 7)
    features = tfds.features.FeaturesDict(
        {"video": tfds.features.Scalar(np.object_), "source": tfds.features.Text()}
        | {key: tfds.features.Scalar(np.int64) for key in (*records.FEATURES[3:], "label")}
    )
    assert parse_record(features.serialize_example(to_example(record))) == record


@given(st.binary(max_size=100))
def test_bytes_that_are_no_record_are_an_error(data) -> None:
    with pytest.raises(ValueError, match=r"cut off|wire type|not a clip|a number where"):
        parse_record(data)


def test_a_damaged_shard_names_the_record(tmp_path) -> None:
    content = os.urandom(5000)  # stored as it is; what is compressible would be compressed
    items = [Item(str(i), 0, content if i == 4 else b"") for i in range(7)]
    made = Plan("set", {}, lambda: Contents(CLASSES, {"train": items}, encode))
    prepared = builder.build(made, tmp_path, print)
    shard = next(prepared.directory.rglob("*train.array_record*"))
    data = bytearray(shard.read_bytes())
    data[data.index(content[1000:1010])] ^= 1
    shard.write_bytes(data)
    damaged = load(prepared.directory)
    assert damaged.record("train", 3).source == "3"
    with pytest.raises(DataError, match=r"record 4 \(clip 4 of train\).*hash mismatch.*delete"):
        damaged.record("train", 4)
    shard.write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read"):
        load(prepared.directory).record("train", 0)
    shard.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        load(prepared.directory).record("train", 0)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"classes": 3}'])
def test_a_damaged_description_says_what_to_do(tmp_path, text) -> None:
    prepared = builder.build(plan(), tmp_path, print)
    (prepared.directory / records.PREPARED).write_text(text)
    with pytest.raises(DataError, match=r"is not a prepared dataset .* delete it"):
        load(prepared.directory)


def test_a_dataset_is_prepared_once(tmp_path) -> None:
    lines: list[str] = []
    builder.build(plan(), tmp_path, lines.append)
    builder.build(plan(), tmp_path, lines.append)
    builder.build(plan(5), tmp_path, lines.append)
    assert [line.split()[:2] for line in lines] == [
        ["Preparing", "9"],
        ["Prepared", "set"],
        ["Preparing", "7"],
        ["Prepared", "set"],
    ]


def test_an_error_leaves_nothing_behind(tmp_path) -> None:
    def fail(items: list[Item]) -> list[Record | Rejected]:
        raise KeyError("unforeseen")

    failing = Plan("set", {}, lambda: Contents(CLASSES, plan().contents().splits, fail))
    with pytest.raises(KeyError, match="unforeseen"):
        builder.build(failing, tmp_path, print)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(DataError, match=r"file.*set ZOO_CACHE"):
        builder.build(plan(), file / "cache", print)


def moving_shapes(tmp_path: pathlib.Path, seed: int) -> dict[str, bytes]:
    clips = {"train": 30, "val": 1, "test": 1}
    made = moving_shapes_plan("motions", clips, size=36, seed=seed, crf=20, keyframe_interval=8)
    prepared = builder.build(made, tmp_path, print)
    assert prepared.counts["train"] == (3,) * 10
    return {path.name: path.read_bytes() for path in prepared.directory.rglob("*array_record*")}


def test_the_seed_decides_every_byte(tmp_path) -> None:
    first, second, other = (
        moving_shapes(tmp_path / name, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert len(first) == 3
    assert first == second
    assert all(first[name] != other[name] for name in first)


# The clips of these scripts are slow to encode, as their file names say.
SCRIPT = r"""
import os, sys, time
from experiments import data
from experiments.datasets import builder
from experiments.datasets.plan import Contents, Item, Plan
from experiments.datasets.records import DataError, Record
from fractions import Fraction

def encode(items):
    os.write(1, f"encoding {{items[0].source}} {{os.getpid()}}\n".encode())
    {body}
    return [Record(os.urandom(2000), 0, item.source, 1, Fraction(1), True, 2, 2) for item in items]

def contents():
    items = [Item(str(i), 0, None) for i in range({count})]
    return Contents(("a", "b"), {{"train": items}}, encode, processes={processes})

if __name__ == "__main__":
    {first}
    say = lambda line: print(line, flush=True)
    try:
        prepared = builder.build(Plan("set", {{}}, contents), data.cache_folder(), say)
    except DataError as error:
        raise SystemExit("DataError: " + str(error))
    print("size", prepared.size("train"))
"""


def script(body: str = "pass", count: int = 6, processes: bool = False, first: str = "") -> str:
    return SCRIPT.format(body=body, count=count, processes=processes, first=first or "pass")


def finish(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


def is_running(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("processes", [False, True])
def test_a_killed_preparation_is_done_anew(start_script, tmp_path, processes) -> None:
    process = start_script(script("time.sleep(0.2)", count=100, processes=processes))
    for line in process.stdout:
        if line.startswith("encoding 5 "):
            break
    process.kill()
    worker = int(line.split()[-1])
    process.wait()
    deadline = time.monotonic() + 10
    while processes and is_running(worker):
        assert time.monotonic() < deadline, "an orphan is left"
        time.sleep(0.02)
    cache = tmp_path / "cache" / "datasets"
    assert [path.suffix for path in cache.iterdir() if path.is_dir()] == [".tmp"]
    assert "size 100" in finish(start_script(script(count=100, processes=processes)))
    assert [path.suffix for path in cache.iterdir() if path.is_dir()] == [""]


def test_of_two_at_once_one_prepares_and_one_waits(start_script, tmp_path) -> None:
    slow = script(f"while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)")
    first = start_script(slow)
    assert first.stdout.readline().startswith("Preparing")
    second = start_script(slow)
    assert "Another process is preparing set" in second.stdout.readline()
    (tmp_path / "go").touch()
    assert "size 6" in finish(first)
    out = finish(second)
    assert "size 6" in out
    assert "encoding" not in out


def test_a_killed_worker_is_an_error(start_script) -> None:
    process = start_script(
        script("os.kill(os.getpid(), 9 if items[0].source == '3' else 0)", processes=True)
    )
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "DataError: set: a process that prepared clips was killed" in err


def test_a_full_disk_is_an_error(start_script, tmp_path) -> None:
    # A limit on the size of files fails like a full disk, in the same place.
    first = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    first += "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))"
    process = start_script(script(count=100, first=first))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "DataError: " in err and "make room, or set ZOO_CACHE" in err
    assert not [path for path in (tmp_path / "cache" / "datasets").iterdir() if path.is_dir()]


def test_an_interrupted_preparation_ends(start_script) -> None:
    process = start_script(script("time.sleep(0.1)", count=1000, processes=True))
    for line in process.stdout:
        if line.startswith("encoding 5 "):
            break
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert "size" in finish(start_script(script(count=3)))
