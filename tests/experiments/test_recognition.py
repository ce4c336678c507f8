"""Few-shot recognition of held-out motions: what is held out, and how accuracy is counted."""

import numpy as np
import pytest

from experiments.recognition import fewshot
from zoo.tasks.embed import unit


def test_a_motion_is_held_out_with_its_reversal():
    assert fewshot.held_out(["spin_clock", "up"]) == (
        "down", "up", "spin_clockwise", "spin_counterclockwise",
    )  # fmt: skip
    with pytest.raises(ValueError, match="'jump' begins the name of no motion"):
        fewshot.held_out(["jump"])
    with pytest.raises(ValueError, match="every motion is held out"):
        fewshot.held_out(["right", "down", "grow", "spin", "orbit"])


def test_accuracies_of_embeddings_that_tell_all_and_nothing():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 30)
    telling = unit(np.eye(4)[labels] + 0.05 * rng.standard_normal((120, 4)))
    noise = unit(rng.standard_normal((120, 4)))
    for rows, low, high in ((telling, 1, 1), (noise, 0.15, 0.35)):
        found = fewshot.accuracies(rows, labels, shots=5, draws=10)
        assert set(found) == {"mean", "probe"}
        for values in found.values():
            assert len(values) == 10 and low <= np.mean(values) <= high
