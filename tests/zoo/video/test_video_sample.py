"""Index arithmetic: always in range, in order, and of the promised spacing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.video import sample

LENGTHS, FRAMES = st.integers(1, 500), st.integers(1, 64)


@given(length=LENGTHS, frames=FRAMES)
def test_uniform_segments(length: int, frames: int):
    indices = sample.uniform_segments(length, frames)
    assert indices.shape == (frames,) and indices.dtype == np.int64
    exact = (np.arange(frames) + 0.5) * length / frames
    assert np.all(indices <= exact) and np.all(exact < indices + 1)


def test_uniform_segments_by_hand():
    assert sample.uniform_segments(8, 8).tolist() == list(range(8))
    assert sample.uniform_segments(16, 4).tolist() == [2, 6, 10, 14]
    assert sample.uniform_segments(3, 6).tolist() == [0, 0, 1, 1, 2, 2]


@given(length=LENGTHS, frames=FRAMES, seed=st.integers(0, 99))
def test_jittered_segments(length: int, frames: int, seed: int):
    indices = sample.jittered_segments(length, frames, np.random.default_rng(seed))
    edges = np.arange(frames + 1) * length // frames
    assert np.all(np.diff(indices) >= 0)
    assert np.all((indices >= 0) & (indices < length))
    if length >= frames:
        assert np.all((edges[:-1] <= indices) & (indices < edges[1:]))
        assert len(set(indices)) == frames


def test_jitter_reaches_every_frame_and_repeats_with_its_seed():
    rng = np.random.default_rng(0)
    draws = np.stack([sample.jittered_segments(12, 4, rng) for _ in range(200)])
    assert [sorted(set(column)) for column in draws.T] == [
        *([0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]),
    ]
    first, again = (sample.jittered_segments(99, 8, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, again)


@given(length=LENGTHS, frames=FRAMES, stride=st.integers(1, 9), seed=st.none() | st.integers(0, 9))
def test_dense_clip(length: int, frames: int, stride: int, seed: int | None):
    rng = None if seed is None else np.random.default_rng(seed)
    indices = sample.dense_clip(length, frames, stride, rng)
    assert indices.shape == (frames,)
    assert np.all((indices >= 0) & (indices < length))
    span = (frames - 1) * stride + 1
    if length >= span:
        assert np.all(np.diff(indices) == stride)
        if rng is None:
            before, after = indices[0], length - 1 - indices[-1]
            assert 0 <= after - before <= 1
    else:
        expected = np.minimum(np.arange(frames) * stride, length - 1)
        np.testing.assert_array_equal(indices, expected)


def test_dense_clip_starts_everywhere():
    rng = np.random.default_rng(0)
    starts = {int(sample.dense_clip(10, 4, 2, rng)[0]) for _ in range(100)}
    assert starts == {0, 1, 2, 3}


@given(
    length=LENGTHS, frames=FRAMES, views=st.integers(1, 12), stride=st.none() | st.integers(1, 9)
)
def test_temporal_views(length: int, frames: int, views: int, stride: int | None):
    indices = sample.temporal_views(length, frames, views, stride)
    assert indices.shape == (views, frames)
    assert np.all((indices >= 0) & (indices < length))
    assert np.all(np.diff(indices, axis=1) >= 0)
    assert np.all(np.diff(indices, axis=0) >= 0)
    if views == 1:
        alone = (
            sample.uniform_segments(length, frames)
            if stride is None
            else sample.dense_clip(length, frames, stride)
        )
        np.testing.assert_array_equal(indices[0], alone)


def test_temporal_views_by_hand():
    assert sample.temporal_views(10, 4, 3, stride=1)[:, 0].tolist() == [0, 3, 6]
    assert sample.temporal_views(16, 2, 2).tolist() == [[2, 10], [6, 14]]


@pytest.mark.parametrize(
    "call",
    [
        lambda: sample.uniform_segments(0, 4),
        lambda: sample.uniform_segments(4, 0),
        lambda: sample.dense_clip(4, 4, 0),
        lambda: sample.temporal_views(4, 4, 0),
        lambda: sample.temporal_views(4, 4, 1, stride=0),
    ],
)
def test_impossible_requests(call):
    with pytest.raises(ValueError, match=r"ask for|leave it out"):
        call()
