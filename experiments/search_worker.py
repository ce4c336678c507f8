"""One contestant of `experiments.bench search`; also run by Pythons that have no jax.

    python -P search_worker.py CONTESTANT JOB

JOB is a JSON file. Every contestant trains the same network on the same clips, folds, batch sizes
and epochs, and prints one line of JSON: seconds, processor seconds, its version, and the score of
each combination. Starting Python and importing libraries is not in the time; compiling is.

together: this project's search. one_by_one: each combination and fold in turn, with this project's
train step, compiled once for each batch size; clips are decoded once, a run is validated at its end
only, and nothing is written. keras, keras_compiled (by XLA): scikit-learn's GridSearchCV over a
Keras network, which gets the decoded and normalised clips for nothing. The file imports nothing of
the project but for the first two.
"""

import json
import pathlib
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

# Before the line meant for the parent: libraries print, too.
MARK = "search_worker "
WIDTHS, HIDDEN = (32, 64, 128), 128

# The values of the axes and the share of right clips over the folds, for each combination.
Scores = list[tuple[dict[str, int], float]]
# Does the whole work once.
Work = Callable[[], Scores]


def together(job: dict[str, Any]) -> tuple[str, Work]:
    """This project's search."""
    import jax

    from experiments import data, grid
    from experiments.config import from_dict

    config = from_dict(job["config"])
    prepared = data.prepare(config.data, say=lambda line: None)

    def work() -> Scores:
        with tempfile.TemporaryDirectory() as folder:
            found = grid.search(config, prepared, pathlib.Path(folder), say=lambda line: None)
        return [(trial["values"], trial["val/top1"]) for trial in found["trials"]]

    return f"jax {jax.__version__}", work


def one_by_one(job: dict[str, Any]) -> tuple[str, Work]:
    """This project's train step, in one run after another."""
    import jax

    from experiments import data
    from experiments.config import from_dict
    from experiments.single_runs import Runs
    from experiments.trials import combinations

    config = from_dict(job["config"])
    prepared = data.prepare(config.data, say=lambda line: None)

    def work() -> Scores:
        runs = Runs(config, prepared)
        return [(values, runs.score(values)) for values in combinations(config.search)]

    return f"jax {jax.__version__}", work


def keras(job: dict[str, Any], compiled: bool) -> tuple[str, Work]:
    """Keras on TensorFlow, searched by scikit-learn."""
    import os

    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras  # pyright: ignore[reportMissingImports]
    import numpy as np
    import sklearn  # pyright: ignore[reportMissingImports]
    from sklearn.base import (  # pyright: ignore[reportMissingImports]
        BaseEstimator,
        ClassifierMixin,
    )
    from sklearn.model_selection import GridSearchCV  # pyright: ignore[reportMissingImports]

    with np.load(job["clips"]) as arrays:
        clips, labels = arrays["clips"], arrays["labels"]
    classes = int(labels.max()) + 1

    class Network(ClassifierMixin, BaseEstimator):
        def __init__(self, batch_size: int = 32, epochs: int = 1) -> None:
            self.batch_size, self.epochs = batch_size, epochs

        def fit(self, x: Any, y: Any) -> Any:
            keras.utils.clear_session()
            layers: list[Any] = [keras.Input(x.shape[1:])]
            for width in WIDTHS:
                layers.append(keras.layers.Conv2D(width, 3, activation="relu"))
                layers.append(keras.layers.MaxPool2D())
            layers += [keras.layers.Flatten(), keras.layers.Dense(HIDDEN, activation="relu")]
            self.network = keras.Sequential([*layers, keras.layers.Dense(classes)])
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            rate = keras.optimizers.Adam(job["learning_rate"])
            self.network.compile(rate, loss, jit_compile=compiled)
            self.network.fit(x, y, batch_size=self.batch_size, epochs=self.epochs, verbose=0)
            self.classes_ = np.arange(classes)
            return self

        def predict(self, x: Any) -> Any:
            return self.network.predict(x, batch_size=len(x), verbose=0).argmax(-1)

    def work() -> Scores:
        folds = [(np.array(train), np.array(held)) for train, held in job["folds"]]
        search = GridSearchCV(Network(), job["axes"], cv=folds, refit=False, error_score="raise")
        found = search.fit(clips, labels).cv_results_
        scores = zip(found["params"], found["mean_test_score"], strict=True)
        return [(values, float(score)) for values, score in scores]

    return f"keras {keras.__version__}, scikit-learn {sklearn.__version__}", work


CONTESTANTS: dict[str, Callable[[dict[str, Any]], tuple[str, Work]]] = {
    "together": together,
    "one_by_one": one_by_one,
    "keras": lambda job: keras(job, compiled=False),
    "keras_compiled": lambda job: keras(job, compiled=True),
}


def main(contestant: str, job: str) -> None:
    """Does the work once and tells what it took."""
    version, work = CONTESTANTS[contestant](json.loads(pathlib.Path(job).read_text("utf-8")))
    spent, began = _processor_seconds(), time.perf_counter()
    scores = work()
    answer = {
        "seconds": time.perf_counter() - began,
        "processor": _processor_seconds() - spent,
        "version": version,
        "scores": scores,
    }
    print(MARK + json.dumps(answer), flush=True)


def _processor_seconds() -> float:
    """Of this process and its finished children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    main(*sys.argv[1:])
