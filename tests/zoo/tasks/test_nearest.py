"""The first look in int8 loses nothing: the ranking is that of the product of all rows."""

import numpy as np
import pytest

from zoo.tasks import nearest
from zoo.tasks.embed import Embedding, unit
from zoo.tasks.index import Index


def rows_of(kind: str, rng: np.random.Generator) -> np.ndarray:
    rows = unit(rng.standard_normal((3000, 64)))
    if kind == "alike":  # Nearer to each other than int8 can tell.
        rows = unit(rows[:1] + 1e-3 * rows)
    elif kind == "one large number":  # Its step loses all the others.
        rows[:, 0] += 50
    elif kind == "any length, some zero":
        rows *= rng.exponential(5, (3000, 1)).astype(np.float32)
        rows[::7] = 0
    return rows


@pytest.mark.parametrize("kind", ["random", "alike", "one large number", "any length, some zero"])
def test_nothing_is_missed(kind):
    rng = np.random.default_rng(0)
    rows = rows_of(kind, rng)
    codes = nearest.Codes(64)
    for end in (1000, 1001, 3000):  # Rows that come later are taken, too.
        codes.follow(rows[:end])
    hidden = rng.random(3000) < 0.1
    for query in (*unit(rng.standard_normal((3, 64))), rows[5], np.zeros(64, np.float32)):
        exact = rows.astype(np.float64) @ query
        for count in (1, 10, 3000):
            found, scores = codes.ranking(rows, query, hidden).best(count)
            assert len(set(found.tolist())) == count
            np.testing.assert_allclose(scores[np.isfinite(scores)],
                                       np.sort(exact[~hidden])[::-1][:count],
                                       rtol=1e-5, atol=1e-5 * np.abs(exact).max())  # fmt: skip
            np.testing.assert_array_equal(np.isfinite(scores), ~hidden[found])


def test_few_rows_are_looked_at_again():
    rng = np.random.default_rng(1)
    rows = unit(rng.standard_normal((20_000, 64)))
    codes = nearest.Codes(64)
    codes.follow(rows)
    ranking = codes.ranking(rows, rows[3], np.zeros(20_000, bool))
    (least,) = np.partition(ranking._low, -10)[-10:-9]
    assert 10 <= (ranking._high >= least).sum() < 500


def test_a_large_index_says_the_same(tmp_path):
    rng = np.random.default_rng(2)
    index = Index.create(tmp_path / "index", 64, {})
    vectors = unit(rng.standard_normal((17_000, 64)))
    for number in range(17):
        part = vectors[1000 * number : 1000 * number + 1000]
        times = np.arange(1000)[:, None] + np.array([0.0, 1.0])
        index.add(f"v{number}", Embedding(part, times))
    index.remove("v4")
    queries = np.concatenate([vectors[[8123, 4500]], unit(rng.standard_normal((4, 64)))])
    together = index.search(queries, without=["v2"])  # One product of two matrices.
    for query, expected in zip(queries, together, strict=True):
        (alone,) = index.search(query, without=["v2"])
        assert [(hit.video, hit.start) for hit in alone] == [
            (hit.video, hit.start) for hit in expected
        ]
        assert [hit.score for hit in alone] == pytest.approx([hit.score for hit in expected])
    index.add("late", Embedding(queries[2:3], np.array([[0.0, 1.0]])))
    assert index.search(queries[2])[0][0].video == "late"
