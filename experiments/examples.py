"""A few tested clips with what the model said, for people to look at."""

import json
import pathlib

import numpy as np

from experiments.datasets.records import Prepared


def choose(log_probabilities: np.ndarray, labels: np.ndarray, count: int) -> list[int]:
    """Indices of clips worth showing: half of them the surest mistakes, the rest right answers
    from as many classes as possible.

    Args:
        log_probabilities: [n k].
        labels: [n].
    """
    predicted = log_probabilities.argmax(1)
    sure = log_probabilities.max(1)
    order = np.argsort(-sure, kind="stable")
    wrong = [int(i) for i in order if predicted[i] != labels[i]][: count // 2]
    right: list[int] = []
    by_class = {
        int(label): [int(i) for i in np.flatnonzero((labels == label) & (predicted == label))]
        for label in np.unique(labels)
    }
    while len(right) < count - len(wrong) and any(by_class.values()):
        for indices in by_class.values():
            if indices and len(right) < count - len(wrong):
                right.append(indices.pop(0))
    return wrong + right


def write(
    folder: pathlib.Path,
    prepared: Prepared,
    split: str,
    log_probabilities: np.ndarray,
    labels: np.ndarray,
    count: int = 12,
) -> None:
    """Writes the chosen clips of `split` as MP4 files, and index.json which describes them."""
    folder.mkdir(exist_ok=True)
    index = []
    for number, i in enumerate(choose(log_probabilities, labels, count)):
        record = prepared.record(split, i)
        file = f"{number:03d}.mp4"
        (folder / file).write_bytes(record.video)
        best = np.argsort(-log_probabilities[i], kind="stable")[:3]
        index.append(
            {
                "file": file,
                "source": record.source,
                "label": prepared.classes[labels[i]],
                "prediction": prepared.classes[best[0]],
                "probabilities": [
                    [prepared.classes[k], float(np.exp(log_probabilities[i, k]))] for k in best
                ],
            }
        )
    text = json.dumps(index, indent=2, ensure_ascii=False) + "\n"
    (folder / "index.json").write_text(text, "utf-8")
