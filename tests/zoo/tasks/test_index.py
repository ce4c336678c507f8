"""The index: what is added is found, removed is not, and a killed process breaks nothing."""

import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

from zoo.tasks.embed import Embedding, unit
from zoo.tasks.index import Index, IndexDamage


def embedding(seed: int, windows: int = 3, d: int = 16) -> Embedding:
    vectors = unit(np.random.default_rng(seed).standard_normal((windows, d)))
    times = np.arange(windows)[:, None] + np.array([0.0, 1.0])
    return Embedding(vectors, times)


@pytest.fixture
def index(tmp_path):
    made = Index.create(tmp_path / "index", 16, {"model": "m"})
    for seed in range(20):
        made.add(f"v{seed}", embedding(seed), label=f"l{seed % 2}")
    return made


def test_search_finds_what_is_most_alike(index):
    query = embedding(7).vectors
    for hits in (index.search(query), Index(index.path).search(query)):
        for window, found in enumerate(hits):
            assert found[0].video == "v7" and found[0].score == pytest.approx(1, abs=1e-5)
            assert (found[0].start, found[0].end, found[0].label) == (window, window + 1, "l1")
            scores = [hit.score for hit in found]
            assert len(found) == 10 and scores == sorted(scores, reverse=True)
            assert len({hit.video for hit in found}) == 10
    everything = np.concatenate([embedding(seed).vectors for seed in range(20)]) @ query[0]
    best = everything.reshape(20, 3).max(axis=1)
    assert [hit.video for hit in index.search(query[0])[0]] == [
        f"v{k}" for k in np.argsort(-best)[:10]
    ]
    assert index.search(query[:1], without=["v7"])[0][0].video != "v7"
    assert len(index.search(query[:1], top=50)[0]) == 20


def test_many_windows_of_one_video_do_not_hide_the_others(tmp_path):
    made = Index.create(tmp_path / "index", 16, {})
    made.add("long", Embedding(np.tile(embedding(0).vectors[:1], (500, 1)), np.zeros((500, 2))))
    made.add("other", embedding(1))
    hits = made.search(embedding(0).vectors[:1], top=2)[0]
    assert [hit.video for hit in hits] == ["long", "other"]


def test_removed_and_replaced(index):
    index.remove("v7")
    index.add("v3", embedding(99))
    for opened in (index, Index(index.path)):
        assert len(opened) == 19 and "v7" not in opened.entries
        assert opened.search(embedding(7).vectors[:1])[0][0].score < 0.99
        assert opened.search(embedding(3).vectors[:1])[0][0].score < 0.99
        assert opened.search(embedding(99).vectors[:1])[0][0].video == "v3"
    with pytest.raises(KeyError):
        index.remove("v7")
    assert Index.create(index.path, 16, {"model": "m"}).rows == 63


def test_empty_index(tmp_path):
    made = Index.create(tmp_path / "index", 16, {})
    assert made.search(embedding(0).vectors) == [[], [], []]


@pytest.mark.parametrize("torn", range(0, 60, 7))
def test_what_a_killed_process_left_is_cut_off(index, torn):
    """Half a line, and vectors without a line."""
    with (index.path / "vectors.f32").open("ab") as file:
        file.write(b"x" * 7 * torn)
    with (index.path / "entries.jsonl").open("ab") as file:
        file.write(b'{"video": "half", "first": 60, "times": [[0.0, 1.0]], "label": "", '[:torn])
    opened = Index(index.path)
    assert len(opened) == 20
    opened.add("new", embedding(50))
    again = Index(index.path)
    assert len(again) == 21
    assert np.array_equal(again.vectors("new"), embedding(50).vectors)


def test_killed_while_adding(tmp_path):
    """kill -9 at any moment: everything that was reported is there, and the index goes on."""
    program = f"""
import sys
sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})
from test_index import Index, embedding
index = Index.create(sys.argv[1], 16, {{}})
for seed in range(len(index), 100000):
    index.add(f"v{{seed}}", embedding(seed))
    print(seed, flush=True)
"""
    path = tmp_path / "index"
    reported = -1
    for lines in (1, 5, 12):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(lines):
            reported = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        with process:  # communicate() would pass over the lines that readline() has read ahead
            rest = process.stdout.read()
        reported = max([reported, *map(int, rest.split())])
        index = Index(path)
        assert reported + 1 <= len(index) <= reported + 2
        for seed in range(len(index)):
            assert np.array_equal(index.vectors(f"v{seed}"), embedding(seed).vectors)


def test_two_writers_take_turns(tmp_path):
    first = Index.create(tmp_path / "index", 16, {})
    second = Index(tmp_path / "index")
    for seed in range(0, 10, 2):
        first.add(f"v{seed}", embedding(seed))
        second.add(f"v{seed + 1}", embedding(seed + 1))
    again = Index(tmp_path / "index")
    assert len(again) == len(second) == 10
    for seed in range(10):
        assert np.array_equal(again.vectors(f"v{seed}"), embedding(seed).vectors)


@pytest.mark.parametrize("name", ["vectors.f32", "entries.jsonl"])
def test_damage_is_seen(index, name):
    content = bytearray((index.path / name).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (index.path / name).write_bytes(content)
    with pytest.raises(IndexDamage, match="make the index again"):
        Index(index.path)


def test_wrong_use(index, tmp_path):
    with pytest.raises(IndexDamage, match="is no index"):
        Index(tmp_path)
    with pytest.raises(IndexDamage, match="use another folder"):
        Index.create(index.path, 16, {"model": "other"})
    with pytest.raises(ValueError, match="rows of 16 numbers"):
        index.add("a", embedding(0, d=8))
    with pytest.raises(ValueError, match="not finite"):
        index.add("a", Embedding(np.full((1, 16), np.nan, np.float32), np.zeros((1, 2))))
