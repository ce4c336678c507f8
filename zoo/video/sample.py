"""Which frames of a video make a clip: index arithmetic only, no decoding.

Every function returns indices into [0, length) in non-decreasing order. A video with fewer frames
than asked for repeats frames: segments repeat neighbours, dense clips repeat the last frame.
"""

import numpy as np


def uniform_segments(length: int, frames: int) -> np.ndarray:
    """Middle frame of each of `frames` equal segments, int64 [frames] (TSN, arXiv:1608.00859)."""
    _check(length, frames)
    # (2i + 1) * length / (2 * frames), in integers: exact for every length.
    return (2 * np.arange(frames, dtype=np.int64) + 1) * length // (2 * frames)


def jittered_segments(length: int, frames: int, rng: np.random.Generator) -> np.ndarray:
    """A random frame of each of `frames` equal segments, int64 [frames] (TSN training)."""
    _check(length, frames)
    edges = np.arange(frames + 1, dtype=np.int64) * length // frames
    # A segment of a video shorter than `frames` may be empty: it takes its left neighbour.
    width = np.maximum(edges[1:] - edges[:-1], 1)
    return np.minimum(edges[:-1] + rng.integers(0, width), length - 1)


def dense_clip(
    length: int, frames: int, stride: int = 1, rng: np.random.Generator | None = None
) -> np.ndarray:
    """`frames` frames `stride` apart, int64 [frames]; start random with `rng`, else centred.

    A video shorter than the clip starts at 0 and repeats its last frame.
    """
    _check(length, frames, stride)
    room = max(length - ((frames - 1) * stride + 1), 0)
    start = room // 2 if rng is None else int(rng.integers(0, room + 1))
    return np.minimum(start + stride * np.arange(frames, dtype=np.int64), length - 1)


def temporal_views(length: int, frames: int, views: int, stride: int | None = None) -> np.ndarray:
    """`views` clips spread evenly from the first to the last, int64 [views, frames].

    With `stride`, dense clips whose starts are evenly spaced (one view: centred). Without, segment
    clips: each of the `frames` equal segments is sampled at `views` evenly spaced places.
    """
    _check(length, frames, 1 if stride is None else stride)
    if views < 1:
        raise ValueError(f"views is {views}; ask for at least 1")
    view = np.arange(views, dtype=np.int64)[:, None]
    frame = np.arange(frames, dtype=np.int64)[None, :]
    if stride is None:
        # Segment i is [i, i + 1) * length / frames; view v takes its point (2v + 1) / (2 views).
        return (2 * (frame * views + view) + 1) * length // (2 * views * frames)
    room = max(length - ((frames - 1) * stride + 1), 0)
    start = room // 2 + 0 * view if views == 1 else view * room // (views - 1)
    return np.minimum(start + stride * frame, length - 1)


def _check(length: int, frames: int, stride: int = 1) -> None:
    if length < 1:
        raise ValueError(f"a video of {length} frames has nothing to sample; leave it out")
    if frames < 1:
        raise ValueError(f"frames is {frames}; ask for at least 1")
    if stride < 1:
        raise ValueError(f"stride is {stride}; ask for at least 1")
