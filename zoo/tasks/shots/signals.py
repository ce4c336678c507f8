"""Cheap signals between frames of 27x48, from which a small network tells where shots change.

TransNetV2 (Soucek and Lokoc 2020) sees as many pixels and learns its features with 3D convolutions.
Here they are fixed, and cost a few operations a pixel: differences of frames at several distances,
in blocks, after the best shift of each block, and after removing brightness; likeness of
histograms; and how well a frame is explained as the mean of one before and one after it, which is
what a dissolve looks like and motion does not.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

HEIGHT, WIDTH = 27, 48
LAGS = (1, 2, 4, 8, 16, 24)
SHIFTED_LAGS = (1, 2, 4)
MIXES = (2, 4, 8, 12)
COUNT = 9 * len(LAGS) + 2 * len(SHIFTED_LAGS) + 5 * len(MIXES) + 4
# Frames on each side that the signals of a frame depend on.
REACH = max(*LAGS, *MIXES)
_BLOCKS = (3, 4)
_LEVELS = 4
_ROW_SHIFTS = (-3, 0, 3)
_COLUMN_SHIFTS = (-6, -3, 0, 3, 6)
_LUMA = (0.299, 0.587, 0.114)


def signals(frames: UInt8[Array, "t 27 48 3"]) -> Float[Array, "t s"]:
    """COUNT numbers for each frame, mostly in [0, 1]; before the first frame stands the first."""
    pixels = frames.astype(jnp.float32) / 255
    luma = pixels @ jnp.array(_LUMA)
    histogram = _histograms(frames)
    edges = _edges(luma)
    flat = _standard(luma)
    sharp = _standard(edges)
    result: list[Array] = []
    for lag in LAGS:
        blocks = _blocks(jnp.abs(luma - _before(luma, lag)))
        result += _spread(blocks)
        result.append(jnp.abs(pixels - _before(pixels, lag)).mean((1, 2, 3)))
        earlier = _before(histogram, lag)
        result.append(jnp.minimum(histogram, earlier).sum(-1))
        result.append(jnp.sqrt(histogram * earlier).sum(-1))
        result.append((flat * _before(flat, lag)).mean((1, 2)))
        result.append((sharp * _before(sharp, lag)).mean((1, 2)))
    for lag in SHIFTED_LAGS:
        best = _shifted(luma, _before(luma, lag))
        result += [best.mean(1), best.max(1)]
    for distance in MIXES:
        before, after = _before(luma, distance), _before(luma, -distance)
        apart = _blocks(jnp.abs(before - after))
        missed = _blocks(jnp.abs(luma - (before + after) / 2))
        ratio = missed / (apart + 0.02)
        result += [ratio.mean(1), jnp.median(ratio, axis=1), apart.mean(1), apart.min(1)]
        likeness = jnp.minimum(_before(histogram, distance), _before(histogram, -distance))
        result.append(likeness.sum(-1))
    saturation = (pixels.max(-1) - pixels.min(-1)).mean((1, 2))
    result += [luma.mean((1, 2)), luma.std((1, 2)), edges.mean((1, 2)), saturation]
    return jnp.stack(result, axis=-1)


def _before(values: Array, lag: int) -> Array:
    """Each frame's value `lag` frames earlier (later, if negative); the ends are repeated."""
    places = jnp.clip(jnp.arange(values.shape[0]) - lag, 0, values.shape[0] - 1)
    return values[places]


def _blocks(values: Float[Array, "t 27 48"]) -> Float[Array, "t 12"]:
    """Means of 3x4 blocks."""
    t = values.shape[0]
    rows, columns = _BLOCKS
    parts = values.reshape(t, rows, HEIGHT // rows, columns, WIDTH // columns)
    return parts.mean((2, 4)).reshape(t, -1)


def _spread(blocks: Float[Array, "t 12"]) -> list[Array]:
    return [blocks.mean(1), jnp.median(blocks, axis=1), blocks.min(1), blocks.max(1)]


def _histograms(frames: UInt8[Array, "t 27 48 3"]) -> Float[Array, "t 64"]:
    """Shares of pixels in 4x4x4 boxes of the colour cube."""
    levels = (frames // (256 // _LEVELS)).astype(jnp.int32)
    box = (levels[..., 0] * _LEVELS + levels[..., 1]) * _LEVELS + levels[..., 2]
    box = box.reshape(box.shape[0], -1)
    counts = [(box == k).mean(1) for k in range(_LEVELS**3)]
    return jnp.stack(counts, axis=-1)


def _edges(luma: Float[Array, "t 27 48"]) -> Float[Array, "t 27 48"]:
    """How steep brightness is."""
    down = jnp.abs(jnp.diff(luma, axis=1, append=luma[:, -1:]))
    right = jnp.abs(jnp.diff(luma, axis=2, append=luma[:, :, -1:]))
    return down + right


def _standard(values: Float[Array, "t 27 48"]) -> Float[Array, "t 27 48"]:
    """Mean 0 and deviation 1 in each frame, 0 where all is flat."""
    centred = values - values.mean((1, 2), keepdims=True)
    return centred / (jnp.sqrt((centred**2).mean((1, 2), keepdims=True)) + 0.01)


def _shifted(now: Float[Array, "t 27 48"], then: Float[Array, "t 27 48"]) -> Float[Array, "t 12"]:
    """Each block's smallest mean difference over a few shifts of the other frame."""
    rows, columns = max(_ROW_SHIFTS), max(_COLUMN_SHIFTS)
    wide = jnp.pad(then, ((0, 0), (rows, rows), (columns, columns)), mode="edge")
    best = None
    for row in _ROW_SHIFTS:
        for column in _COLUMN_SHIFTS:
            top, left = rows + row, columns + column
            other = wide[:, top : top + HEIGHT, left : left + WIDTH]
            difference = _blocks(jnp.abs(now - other))
            best = difference if best is None else jnp.minimum(best, difference)
    assert best is not None
    return best
