"""The search for labels: what moves is found, what stands still costs nothing."""

import jax.numpy as jnp
import numpy as np
import pytest

from zoo.codec import fields, labelling, motion
from zoo.codec.network import Planes

pytestmark = pytest.mark.slow  # Compiling the search takes seconds.


def _search(target, first, second, distances=(-1, 1)):
    h, w = (n // motion.BLOCK for n in target.shape)
    temporal = np.zeros((2, h, w, fields.LABEL), np.int32)
    temporal[..., 0], temporal[..., 1] = [[[1]], [[2]]], motion.BOTH
    return labelling.search(
        *(jnp.asarray(x, jnp.float32) for x in (target, first, second)),
        jnp.asarray(temporal),
        jnp.array(distances, jnp.int32),
        jnp.float32(8.0),
        jnp.float32(0.14),
    )


def test_half_a_picture_that_moves_is_found_and_has_few_labels():
    rng = np.random.default_rng(3)
    scene = np.kron(rng.integers(40, 210, (20, 30)), np.ones((4, 4)))
    first = second = scene[8:56, 8:104].copy()
    target = first.copy()
    target[:, 48:] = scene[11:59, 54:102]  # 3 down and 2 left of where it was.
    labels = np.asarray(_search(target, first, second))
    planes = [
        Planes(jnp.asarray(x[None], jnp.float32), jnp.zeros((1, 2, 24, 48))) for x in (first,)
    ]
    predicted = np.asarray(motion.predict(planes[0], planes[0], jnp.asarray(labels)[None]).y[0])
    inner = np.abs(predicted - target)[8:-8, 8:-8]
    assert inner.mean() < 1.0
    assert np.all(labels[1:-1, 1:5, 2:] == 0)
    assert len(np.unique(labels.reshape(-1, 6), axis=0)) < 12


def test_a_picture_that_stands_still_takes_its_motion_on_over_time():
    scene = np.kron(np.random.default_rng(4).integers(40, 210, (12, 24)), np.ones((4, 4)))
    assert np.all(np.asarray(_search(scene, scene, scene))[..., 0] > 0)
