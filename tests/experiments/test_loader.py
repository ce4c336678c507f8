"""Batches: their order, their content, continuation, and failures that must not become stalls."""

import json
import multiprocessing
import os
import pathlib
import signal
import stat
import subprocess
import sys
import threading
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments import data
from experiments.data import BatchIterator, DataError, Prepared
from experiments.datasets import builder
from experiments.datasets.plan import Contents, Item, Plan, Record
from experiments.loader import Stream
from zoo import video
from zoo.video import ffmpeg, sample

SIZES = {"train": 23, "val": 11, "test": 1}
LENGTH = 7


def numbered_clip(number: int, length: int = LENGTH) -> np.ndarray:
    """The left half of the frames says which clip it is, the right half which frame."""
    clip = np.zeros((length, 16, 16, 3), np.uint8)
    clip[:, :, :8] = 10 * number + 5
    clip[:, :, 8:] = 30 * np.arange(length)[:, None, None, None] + 10
    return clip


def numbers(clip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The clip and the frames that were seen: [...] and [... t] of [... t h w c]."""
    left, right = clip[..., 4:-4, 1:6, :], clip[..., 4:-4, -6:-1, :]
    number = (left.mean((-1, -2, -3)) - 5) / 10
    frame = (right.mean((-1, -2, -3)) - 10) / 30
    assert np.abs(number - number.round()).max() < 0.4
    assert np.abs(frame - frame.round()).max() < 0.3
    assert (number.round() == number.round()[..., :1]).all()
    return number[..., 0].round().astype(int), frame.round().astype(int)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    clips = [numbered_clip(i) for i in range(max(SIZES.values()))]
    encoded = video.encode_many(clips, fps=10, crf=4, keyframe_interval=2)

    def encode(items: list[Item]) -> list[Record]:
        return [
            Record(encoded[i.job], i.label, i.source, LENGTH, Fraction(10), True, 16, 16)
            for i in items
        ]

    def contents() -> Contents:
        splits = {
            split: [Item(f"{split} {i}.mp4", i % 3, i) for i in range(count)]
            for split, count in SIZES.items()
        }
        return Contents(("a", "b", "c"), splits, encode)

    return builder.build(Plan("numbered", {}, contents), tmp_path_factory.mktemp("cache"), print)


@pytest.fixture
def batches(prepared: Prepared):
    """`data.batches` with defaults; the iterators are closed at the end of the test."""
    made: list[BatchIterator] = []

    def make(split: str = "train", **changes) -> BatchIterator:
        arguments = {"batch_size": 4, "frames": 3, "size": (16, 16), "seed": 0, "timeout": 60.0}
        arguments |= {"train": split == "train"} | changes
        made.append(
            data.batches(
                changes.pop("prepared", prepared),
                split,
                **{k: v for k, v in arguments.items() if k != "prepared"},
            )
        )
        return made[-1]

    yield make
    for iterator in made:
        iterator.close()


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        one[k].dtype == other[k].dtype and np.array_equal(one[k], other[k]) for k in one
    )


def take(iterator: BatchIterator, count: int) -> list[dict]:
    return [next(iterator) for _ in range(count)]


def test_a_training_batch(batches) -> None:
    batch = next(batches())
    assert {k: (v.shape, v.dtype.name) for k, v in batch.items()} == {
        "clip": ((4, 3, 16, 16, 3), "uint8"),
        "label": ((4,), "int32"),
        "index": ((4,), "int32"),
        "weight": ((4,), "float32"),
    }
    seen, frames = numbers(batch["clip"])
    assert seen.tolist() == batch["index"].tolist()
    assert batch["label"].tolist() == [i % 3 for i in seen]
    assert batch["weight"].tolist() == [1.0] * 4
    assert (np.diff(frames) > 0).all()


def test_each_epoch_is_a_new_order_of_whole_batches(batches) -> None:
    iterator = batches(epochs=3)
    assert iterator.batches_per_epoch == 5
    found = [batch["index"].tolist() for batch in iterator]
    assert len(found) == 15
    epochs = [np.concatenate(found[i : i + 5]).tolist() for i in (0, 5, 10)]
    assert all(len(set(epoch)) == 20 for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    with pytest.raises(StopIteration):
        next(iterator)
    with pytest.raises(StopIteration):
        next(iterator)


def test_the_seed_decides_order_and_frames(batches) -> None:
    first, same, other = (take(batches(seed=seed), 6) for seed in (1, 1, 2))
    assert all(map(equal, first, same))
    assert [b["index"].tolist() for b in first] != [b["index"].tolist() for b in other]
    # A clip is not seen through the same frames each time.
    seen: dict[int, set] = {}
    for batch in first:
        for number, frames in zip(*numbers(batch["clip"]), strict=True):
            seen.setdefault(number, set()).add(tuple(frames))
    assert any(len(frames) > 1 for frames in seen.values())


def test_evaluation_sees_every_clip_once_in_order(batches) -> None:
    found = list(batches("val", views=2))
    assert [batch["clip"].shape for batch in found] == [(4, 2, 3, 16, 16, 3)] * 3
    index = np.concatenate([batch["index"] for batch in found])
    weight = np.concatenate([batch["weight"] for batch in found])
    assert index.tolist() == [*range(11), 0]
    assert weight.tolist() == [1.0] * 11 + [0.0]
    seen, frames = numbers(np.concatenate([batch["clip"] for batch in found])[:11])
    assert seen.tolist() == [[i] * 2 for i in range(11)]
    assert (frames == [[0, 2, 5], [1, 4, 6]]).all() or len(set(map(str, frames))) == 1
    assert not np.array_equal(frames[0][0], frames[0][1])
    assert not found[2]["clip"][3].any()
    assert all(map(equal, found, batches("val", views=2, seed=9)))


@pytest.mark.parametrize(
    ("sampling", "stride", "steps"), [("dense", 2, {2}), ("dense", 1, {1}), ("uniform", 1, {2, 3})]
)
def test_sampling(batches, sampling, stride, steps) -> None:
    for batch in take(batches(sampling=sampling, stride=stride), 3):
        _, frames = numbers(batch["clip"])
        assert set(np.diff(frames).ravel()) <= steps
    _, frames = numbers(next(batches("val", sampling=sampling, stride=stride, views=1))["clip"])
    assert set(np.diff(frames).ravel()) <= steps


@pytest.mark.parametrize("memory", [0, 10**6])
def test_dense_clips_are_entered_at_the_right_frame(batches, memory) -> None:
    batch = next(batches(batch_size=20, sampling="dense", stride=2, memory=memory))
    seen, frames = numbers(batch["clip"])
    expected = [
        sample.dense_clip(LENGTH, 3, 2, np.random.default_rng([0, 0, number])) for number in seen
    ]
    assert np.array_equal(frames, expected)
    assert len(set(frames[:, 0])) == 3


def test_a_clip_shorter_than_asked_for_repeats_frames(batches) -> None:
    _, frames = numbers(next(batches(frames=12))["clip"])
    assert set(frames.ravel()) == set(range(LENGTH))
    _, frames = numbers(next(batches("val", frames=5, sampling="dense", stride=3))["clip"])
    assert (frames == [0, 3, 6, 6, 6]).all()


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_frames_are_decoded_to_one_size(batches, fit) -> None:
    clip = next(batches(size=(12, 24), fit=fit))["clip"]
    assert clip.shape == (4, 3, 12, 24, 3)
    assert (clip[:, :, 6, :4] == 0).all() == (fit == "pad")


@pytest.mark.parametrize("changes", [{"threads": 1}, {"threads": 5}, {"memory": 10**6}])
def test_neither_threads_nor_memory_change_the_stream(batches, changes) -> None:
    assert all(map(equal, take(batches(), 12), take(batches(**changes), 12)))
    assert all(map(equal, batches("val", views=3), batches("val", views=3, **changes)))


def test_worker_processes_do_not_change_the_stream(batches) -> None:
    expected = take(batches(batch_size=3), 9)
    iterator = batches(batch_size=3, workers=2, threads=1)
    assert all(map(equal, expected[:5], take(iterator, 5)))
    # A stream that two workers made goes on without them, and the other way round.
    alone = batches(batch_size=3)
    alone.set_state(json.loads(json.dumps(iterator.get_state())))
    assert all(map(equal, expected[5:], take(alone, 4)))
    assert iterator.stage_seconds()["decode"] > 0


@pytest.mark.parametrize("memory", [0, 10**6])
def test_an_interrupted_stream_goes_on_exactly(batches, memory) -> None:
    expected = take(batches(), 11)
    for stop in (0, 1, 5, 7) if not memory else (6,):
        first = batches(memory=memory)
        take(first, stop)
        state = json.loads(json.dumps(first.get_state()))
        first.close()
        second = batches(memory=memory)
        take(second, 2)
        second.set_state(state)
        assert all(map(equal, expected[stop:], take(second, 11 - stop)))
    second.rewind()
    assert all(map(equal, expected, take(second, 11)))


def test_a_finished_stream_stays_finished(batches) -> None:
    iterator = batches("val")
    assert len(list(iterator)) == 3
    state = iterator.get_state()
    assert state["position"] == 3
    again = batches("val")
    again.set_state(state)
    assert list(again) == []


@pytest.mark.parametrize("changes", [{"batch_size": 5}, {"seed": 3}])
def test_a_state_of_another_stream_is_refused(batches, changes) -> None:
    state = batches().get_state()
    with pytest.raises(DataError, match=f"has {next(iter(changes))} .* start anew"):
        batches(**changes).set_state(state)


@pytest.mark.parametrize("hosts, parts", [(2, 2), (2, 8), (3, 3)])
def test_hosts_share_the_rows_of_the_same_batches(batches, hosts, parts) -> None:
    for split, batch_size, count in (("train", 6, 7), ("val", 5, 3)):
        alone = take(batches(split, batch_size=batch_size), count)
        shares = [
            take(
                batches(split, batch_size=batch_size, host_index=i, host_count=hosts, parts=parts),
                count,
            )
            for i in range(hosts)
        ]
        for number, whole in enumerate(alone):
            rows = [share[number] for share in shares]
            assert len({len(part["label"]) for part in rows}) == 1
            for name, values in whole.items():
                joined = np.concatenate([part[name] for part in rows])
                np.testing.assert_array_equal(joined[:batch_size], values)
            assert np.concatenate([part["weight"] for part in rows])[batch_size:].sum() == 0


def test_another_number_of_hosts_goes_on_where_one_was(batches) -> None:
    one = batches(batch_size=6)
    take(one, 4)
    state, expected = one.get_state(), next(one)
    for i in (0, 1):
        host = batches(batch_size=6, host_index=i, host_count=2, parts=2)
        host.set_state(state)
        np.testing.assert_array_equal(next(host)["index"], expected["index"][3 * i :][:3])


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 5), st.booleans(), st.integers(0, 3))
def test_positions(clips, batch_size, hosts, train, seed) -> None:
    streams = [Stream(clips, batch_size, train, seed, 2, h, hosts, hosts) for h in range(hosts)]
    per_epoch = streams[0].batches_per_epoch
    if not per_epoch:
        assert train and clips < batch_size
        return
    for epoch in (0, 1):
        seen: list[int] = []
        for stream in streams:
            positions = stream.positions()
            assert len(positions) == 2 * per_epoch
            for i in range(per_epoch):
                batch = positions[epoch * per_epoch + i]
                assert len(batch) == stream.rows
                seen += batch.tolist()
        real = [position for position in seen if position >= 0]
        assert len(set(real)) == len(real)
        assert set(real) <= set(range(clips))
        assert len(real) == (per_epoch * batch_size if train else clips)


def test_a_split_with_fewer_clips_than_a_batch(batches) -> None:
    with pytest.raises(DataError, match=r"train of .* has 23 clips, .* lower batch_size"):
        batches(batch_size=24)
    assert next(batches("test"))["weight"].tolist() == [1, 0, 0, 0]
    with pytest.raises(DataError, match="no split 'dev'"):
        batches("dev")


def test_what_fits_into_memory_is_decoded_once(batches, monkeypatch) -> None:
    decoded: list[str] = []
    decode_many = video.decode_many

    def count(requests, **more):
        decoded.extend(request.name for request in requests)
        return decode_many(requests, **more)

    monkeypatch.setattr(video, "decode_many", count)
    need = SIZES["val"] * LENGTH * 16 * 16 * 3
    for memory, times in ((need, 1), (need - 1, 2)):
        decoded.clear()
        iterator = batches("val", memory=memory)
        first = list(iterator)
        iterator.rewind()
        assert all(map(equal, first, iterator))
        assert len(decoded) == 11 * times
    assert first[0]["clip"].flags.writeable


def test_no_more_than_a_few_batches_are_ahead(batches, monkeypatch) -> None:
    asked: list[int] = []
    decode_many = video.decode_many
    monkeypatch.setattr(
        video, "decode_many", lambda r, **more: asked.append(len(r)) or decode_many(r, **more)
    )
    iterator = batches(batch_size=2, threads=1)
    next(iterator)
    time.sleep(1.0)
    # One is taken; one waits to be; Grain's thread holds one and prepares two.
    assert sum(asked) <= 2 * 5


def test_seconds_are_measured(batches) -> None:
    iterator = batches()
    assert iterator.stage_seconds() == {"read": 0.0, "decode": 0.0, "wait": 0.0}
    take(iterator, 3)
    seconds = iterator.stage_seconds()
    assert all(value > 0 for value in seconds.values())
    take(iterator, 1)
    assert all(iterator.stage_seconds()[name] >= value for name, value in seconds.items())


def test_a_closed_iterator_says_so_and_leaves_no_thread(batches) -> None:
    before = set(threading.enumerate())  # a run of another test may still be ending its own
    iterator = batches()
    next(iterator)
    iterator.close()
    with pytest.raises(DataError, match="batches of train were closed"):
        next(iterator)
    deadline = time.monotonic() + 30

    def left() -> list[str]:
        names = [thread.name for thread in set(threading.enumerate()) - before]
        return [name for name in names if name.startswith(("input", "decode", "grain"))]

    while left() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert left() == []


# Failures.


def damaged(prepared: Prepared, folder: pathlib.Path) -> Prepared:
    """The same dataset with one clip of val that is no video, and one shard with a bad byte."""

    def contents() -> Contents:
        items = {
            s: [Item(f"{s} {i}.mp4", i % 3, i) for i in range(prepared.size(s))] for s in SIZES
        }

        def encode(chunk: list[Item]) -> list[Record]:
            found = []
            for item in chunk:
                record = prepared.record(item.source.split()[0], item.job)
                content = record.video
                if item.source == "val 6.mp4":
                    content = content[:200] + os.urandom(len(content) - 200)
                found.append(
                    Record(content, item.label, item.source, LENGTH, Fraction(10), True, 16, 16)
                )
            return found

        return Contents(("a", "b", "c"), items, encode)

    return builder.build(Plan("damaged", {}, contents), folder, print)


def test_a_clip_that_cannot_be_decoded_is_named(batches, prepared, tmp_path) -> None:
    iterator = batches("val", prepared=damaged(prepared, tmp_path))
    assert next(iterator)["index"].tolist() == [0, 1, 2, 3]
    for _ in range(2):
        with pytest.raises(DataError, match=r"val 6.mp4 \(clip 6 of val\) cannot be decoded: "):
            next(iterator)


def test_a_damaged_shard_is_named(batches, prepared, tmp_path) -> None:
    broken = damaged(prepared, tmp_path)
    shard = next(broken.directory.rglob("*train.array_record*"))
    data = bytearray(shard.read_bytes())
    # Most of it: how much of a small file is padding, which nobody reads, is not known.
    middle = slice(len(data) // 5, 4 * len(data) // 5)
    data[middle] = bytes(byte ^ 255 for byte in data[middle])
    shard.write_bytes(data)
    with pytest.raises(DataError, match=r"train.array_record.* cannot be read"):
        take(batches(prepared=broken), 6)


def fake_ffmpeg(folder: pathlib.Path, text: str, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Puts a shell script in place of ffmpeg; `$REAL` is the real one."""
    script = folder / "ffmpeg"
    script.write_text(f"#!/bin/sh\nREAL={ffmpeg.executable()}\n{text}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(ffmpeg, "executable", lambda: str(script))
    return script


def test_an_ffmpeg_that_hangs_is_an_error(batches, tmp_path, monkeypatch) -> None:
    fake_ffmpeg(tmp_path, "exec sleep 100", monkeypatch)
    started = time.monotonic()
    with pytest.raises(DataError, match=r"train \d+.mp4 .*took more than|No batch of train came"):
        next(batches(timeout=2.0))
    assert time.monotonic() - started < 4


def test_an_ffmpeg_that_is_stopped_is_an_error(batches, tmp_path, monkeypatch) -> None:
    fake_ffmpeg(tmp_path, "kill -STOP $$", monkeypatch)
    with pytest.raises(DataError, match=r"train \d+.mp4 .*took more than|is stopped"):
        next(batches(timeout=2.0))


def test_an_ffmpeg_that_is_killed_is_an_error(batches, tmp_path, monkeypatch) -> None:
    fake_ffmpeg(tmp_path, "kill -KILL $$", monkeypatch)
    with pytest.raises(DataError, match=r"train \d+.mp4 \(clip \d+ of train\) cannot be decoded"):
        next(batches())


def test_one_ffmpeg_that_is_killed_does_no_harm(batches, tmp_path, monkeypatch) -> None:
    expected = take(batches(), 3)
    once = tmp_path / "once"
    fake_ffmpeg(tmp_path, f'mkdir {once} && kill -KILL $$; exec $REAL "$@"', monkeypatch)
    assert all(map(equal, expected, take(batches(), 3)))
    assert once.exists()


def workers() -> list[multiprocessing.Process]:
    return [p for p in multiprocessing.active_children() if p.name.startswith("grain")]


def test_a_killed_worker_is_an_error(batches) -> None:
    iterator = batches(workers=1, timeout=30.0)
    next(iterator)
    os.kill(workers()[0].pid, signal.SIGKILL)
    started = time.monotonic()
    with pytest.raises(DataError, match=r"batches of train ended: .*exit code -9"):
        take(iterator, 20)
    assert time.monotonic() - started < 20


def test_a_stopped_worker_is_an_error_and_is_ended(batches) -> None:
    iterator = batches(workers=1, timeout=60.0)
    next(iterator)
    iterator._timeout = 3.0  # starting the worker takes longer than this on a busy machine
    worker = workers()[0]
    os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(
        DataError, match=rf"No batch of train came within 3 s; process {worker.pid} \(.*stopped"
    ):
        take(iterator, 20)
    ended = time.monotonic() + 60
    while worker.exitcode is None and time.monotonic() < ended:  # Grain too waits for it
        worker.join(1)
    assert worker.exitcode == -signal.SIGKILL


SCRIPT = """
import multiprocessing, pathlib, sys, time
from experiments import data
from experiments.datasets.records import load

if __name__ == "__main__":
    prepared = load(pathlib.Path(sys.argv[1]))
    iterator = data.batches(
        prepared, "train", batch_size=2, frames=2, size=(16, 16), train=True, seed=0, workers=1
    )
    next(iterator)
    print(multiprocessing.active_children()[0].pid, flush=True)
    time.sleep(100)
"""


def test_workers_end_with_a_parent_that_is_killed(prepared, tmp_path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    repository = pathlib.Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, str(script), str(prepared.directory)],
        env=os.environ | {"PYTHONPATH": str(repository)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        worker = pathlib.Path("/proc") / parent.stdout.readline().strip() / "stat"
        parent.kill()
    deadline = time.monotonic() + 20
    while worker.exists() and worker.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline, "the worker is left"
        time.sleep(0.02)


def test_grain_is_imported_before_another_thread_runs() -> None:
    """While it is, imports of all threads are lazy: what jax imports just then stays a shell."""
    program = (
        "import sys, threading\n"
        "from experiments import loader\n"
        "assert 'grain' not in sys.modules\n"
        "start = threading.Thread.start\n"
        "def checked(self):\n"
        "    if self.name == 'input':\n"
        "        sys.exit(0 if 'grain' in sys.modules else 'too late')\n"
        "    start(self)\n"
        "threading.Thread.start = checked\n"
        "class Decoder:\n"
        "    shards = type('Shards', (), {'split': 'train'})\n"
        "iterator = object.__new__(loader.BatchIterator)\n"
        "vars(iterator).update(\n"
        "    _stream=None, _decoder=Decoder(), _workers=0, _position=0)\n"
        "iterator._start()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=pathlib.Path(__file__).parents[2],
    )
    assert (done.returncode, done.stderr) == (0, "")
