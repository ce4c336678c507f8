"""Few examples, none of these, copies, and the recognize command on real files."""

import json

import numpy as np
import pytest

from zoo import __main__ as command_line
from zoo import video
from zoo.tasks import duplicates, fewshot
from zoo.tasks.embed import Embedding, unit
from zoo.tasks.index import Index

MODEL = "cnn_small.moving_shapes"


def clusters(names: int, each: int, seed: int = 0, spread: float = 0.5):
    """Embeddings around one centre for each name."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(1).standard_normal((names, 32))
    x = np.repeat(centres, each, axis=0) + spread * rng.standard_normal((names * each, 32))
    return unit(x), [f"n{k}" for k in range(names) for _ in range(each)]


@pytest.mark.parametrize("method", ["mean", "probe"])
def test_names_and_none_of_them(method):
    x, labels = clusters(6, 5)
    taught = fewshot.teach(x[:25], labels[:25], method)
    tests, truth = clusters(6, 20, seed=5)
    found = [name for name, _ in taught.best(tests)]
    known = [a == b for a, b in zip(found, truth, strict=True)][:100]
    assert np.mean(known) > 0.8
    assert np.mean([name == fewshot.UNKNOWN for name in found[100:]]) > 0.8
    assert taught.accepted > 0.8 and taught.rejected > 0.8


def test_ridge_equals_its_definition():
    """The dual form against the normal equations."""
    x, _ = clusters(3, 5)
    targets = np.repeat(np.arange(3), 5)
    weights, middle, offsets = fewshot._fit(x, targets, 3, "probe", 0.1)
    hot = np.eye(3)[targets]
    centred = (x - x.mean(0)).astype(np.float64)
    expected = np.linalg.solve(centred.T @ centred + 0.1 * np.eye(32), centred.T @ (hot - offsets))
    assert pytest.approx(expected, abs=1e-6) == weights.T
    assert middle == pytest.approx(x.mean(0)) and offsets == pytest.approx(np.full(3, 1 / 3))


def test_leave_one_out_equals_fitting_again():
    x, _ = clusters(3, 5)
    targets = np.repeat(np.arange(3), 5)
    missed = fewshot.left_out(x.astype(np.float64), np.eye(3)[targets], 0.3)
    for k in range(len(x)):
        rest = np.arange(len(x)) != k
        fitted = fewshot._fit(x[rest].astype(np.float64), targets[rest], 3, "probe", 0.3)
        predicted = fewshot._scores(x[k : k + 1], *fitted)[0]
        assert missed[k] == pytest.approx(np.eye(3)[targets[k]] - predicted, abs=1e-9)


def test_teaching_needs_two_names():
    x, _ = clusters(1, 5)
    with pytest.raises(ValueError, match="at least two names"):
        fewshot.teach(x, ["a"] * 5)
    taught = fewshot.teach(clusters(2, 1)[0], ["a", "b"])
    assert taught.threshold == -np.inf


def test_copies_are_aligned(tmp_path):
    rng = np.random.default_rng(0)
    a, b, c = (unit(rng.standard_normal((n, 64))) for n in (10, 12, 6))
    b[5:9] = a[2:6]
    index = Index.create(tmp_path / "index", 64, {})
    for name, vectors in (("a", a), ("b", b), ("c", c)):
        start = 2.0 * np.arange(len(vectors))
        index.add(name, Embedding(vectors, np.stack([start, start + 2], axis=1)))
    (copy,) = duplicates.find(index)
    assert (copy.first, copy.second) == ("a", "b")
    assert (copy.start, copy.end, copy.offset) == (4, 12, 6)
    assert copy.score == pytest.approx(1, abs=1e-5)
    assert list(duplicates.find(index, shortest=9)) == []


def test_command(fill, tmp_path, capsys, clip_bytes):
    def run(*arguments: str) -> tuple[int, str, str]:
        status = command_line.main(["recognize", *arguments])
        return status, *capsys.readouterr()

    for name, seeds in (("a", (1, 1, 1)), ("b", (2, 2, 2)), ("c", (3, 3, 3))):
        (tmp_path / "in" / name).mkdir(parents=True)
        for k, seed in enumerate(seeds):
            (tmp_path / "in" / name / f"{name}{k}.mp4").write_bytes(
                clip_bytes(seed, 30 + min(k, 1))
            )
    (tmp_path / "in" / "a" / "empty.mp4").touch()
    index = str(tmp_path / "index")
    status, out, err = run(
        "add", index, str(tmp_path / "in"), "--label-folders", "--model", MODEL, "--json"
    )
    assert status == 3 and "empty.mp4: it is empty" in err
    assert [json.loads(line)["label"] for line in out.splitlines()] == [*"aaabbbccc"]
    query = tmp_path / "query.mp4"
    query.write_bytes(clip_bytes(2, 31))
    status, out, _ = run("search", index, str(query), "--top", "3", "--json")
    hits = json.loads(out)["hits"]
    assert status == 0 and {hit["label"] for hit in hits} == {"b"} and hits[0]["score"] > 0.99
    for method in ("mean", "probe"):
        status, out, _ = run("name", index, str(query), "--method", method, "--json")
        assert status == 0 and json.loads(out)["name"] == "b"
    assert run("duplicates", index, "--threshold", "0.999")[1].count(" = ") >= 3
    assert run("remove", index, "b/b0.mp4")[0] == 0
    status, out, _ = run("list", index, "--json")
    assert status == 0 and len(out.splitlines()) == 8
    # Adding again adds what is not there.
    status, out, err = run("add", index, str(tmp_path / "in"), "--label-folders")
    assert out.splitlines() == ["added b/b0.mp4, 1 windows"] and "8 are in the index" in err
    status, _, err = run("add", index, str(query), "--crops", "3")
    assert status == 2 and "leave these options out" in err
    status, _, err = run("remove", index, "x")
    assert status == 2 and "holds no x" in err
    status, _, err = run("search", index, str(query), "--start", "99")
    assert status == 2 and "it ends at" in err
    assert run("list", str(tmp_path / "in"))[0] == 2


def test_embedding_of_a_clip_is_the_models(tmp_path, clip_bytes):
    import zoo
    from zoo.tasks import engine
    from zoo.tasks.embed import Embed

    path = tmp_path / "a.mp4"
    path.write_bytes(clip_bytes(4))
    pretrained = zoo.load_pretrained(MODEL, num_classes=0)
    (outcome,) = engine.run([path], [Embed(pretrained, seconds=9)])
    frames = video.decode(path, size=(72, 72)).frames[[7, 22], 4:68, 4:68]
    clip = (frames / 255.0 - 0.45) / 0.225
    features = pretrained.model.apply(pretrained.variables, clip[None].astype(np.float32))
    result = outcome.results["embed"]
    assert result.mean == pytest.approx(unit(np.asarray(features)[0]), abs=1e-4)
    assert result.times == pytest.approx(np.array([[0, 1.2]]))
