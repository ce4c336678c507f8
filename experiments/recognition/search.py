"""How long a search of an index takes, beside the product of all vectors.

python -m experiments.recognition.search [--rows 100000] [--dimensions 512]
"""

import argparse
import pathlib
import statistics
import tempfile
import time

import numpy as np

from zoo.tasks.embed import Embedding, unit
from zoo.tasks.index import Index

_WINDOWS = 100  # of a video: adding writes through to the disk each time


def main() -> None:
    """Runs the command line: random unit vectors, the hardest to tell apart."""
    parser = argparse.ArgumentParser(prog="python -m experiments.recognition.search")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--queries", type=int, default=100)
    chosen = parser.parse_args()
    if chosen.rows < _WINDOWS or min(chosen.dimensions, chosen.queries) < 1:
        parser.error(f"give {_WINDOWS} or more --rows, and 1 or more of the others")
    rng = np.random.default_rng(0)
    times = np.arange(_WINDOWS)[:, None] + np.array([0.0, 1.0])
    with tempfile.TemporaryDirectory() as folder:
        index = Index.create(pathlib.Path(folder) / "index", chosen.dimensions, {})
        for number in range(chosen.rows // _WINDOWS):
            vectors = unit(rng.standard_normal((_WINDOWS, chosen.dimensions)))
            index.add(f"v{number}", Embedding(vectors, times))
        queries = unit(rng.standard_normal((chosen.queries, chosen.dimensions)))
        started = time.perf_counter()
        index.search(queries[0])
        print(f"first search, which rounds the vectors: {time.perf_counter() - started:.2f} s")
        everything = np.concatenate([index.vectors(video) for video in index.entries])
        spent: dict[str, list[float]] = {"index": [], "product alone": []}
        same = 0
        for query in queries:
            started = time.perf_counter()
            (hits,) = index.search(query)
            spent["index"].append(time.perf_counter() - started)
            started = time.perf_counter()
            scores = everything @ query
            spent["product alone"].append(time.perf_counter() - started)
            best = np.argsort(-scores.reshape(-1, _WINDOWS).max(1), kind="stable")[:10]
            same += [hit.video for hit in hits] == [f"v{number}" for number in best]
    for name, seconds in spent.items():
        ordered = sorted(seconds)
        print(
            f"{name:14} median {1e3 * statistics.median(ordered):6.2f} ms, "
            f"99 of 100 {1e3 * ordered[int(0.99 * (len(ordered) - 1))]:6.2f} ms"
        )
    print(f"the same ten videos in the same order: {same} of {len(queries)} queries")


if __name__ == "__main__":
    main()
