"""Cheap signals between frames of 27x48, from which a small network tells where shots change.

TransNetV2 (Soucek and Lokoc 2020) sees as many pixels and learns its features with 3D convolutions.
Here they are fixed, and cost a few operations a pixel: differences of frames at several distances,
in blocks, after the best shift of each block, and after removing brightness; likeness of
histograms; how much a difference stands out from those around it (the idea of PySceneDetect's
adaptive detector), for the picture and for each block; and how well a frame is explained as the
mean of one before and one after it, which is what a dissolve looks like and motion does not.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, UInt8

HEIGHT, WIDTH = 27, 48
LAGS = (1, 2, 4, 8, 16, 24)
SHIFTED_LAGS = (1, 2, 4)
MIXES = (2, 4, 8, 12)
COUNT = 9 * len(LAGS) + 2 * len(SHIFTED_LAGS) + 5 * len(MIXES) + 4 * 8 + 5 + 4
# Frames on each side that the signals of a frame depend on.
REACH = max(*LAGS, *MIXES)
ROWS, COLUMNS = 3, 4  # of blocks
_LEVELS = 4
# Pixels down and right.
COARSE = tuple((row, column) for row in (-3, 0, 3) for column in (-6, -3, 0, 3, 6))
FINE = tuple((row, column) for row in (-2, -1, 0, 1, 2) for column in (-3, -2, -1, 0, 1, 2, 3))
SHIFTS = tuple(sorted({*COARSE, *FINE}))
# Frames before and after whose differences one is measured against.
_AROUND = (1, 2, 3)
LUMA = (0.299, 0.587, 0.114)


def signals(frames: UInt8[Array, "t 27 48 3"]) -> Float[Array, "t s"]:
    """COUNT numbers for each frame, mostly in [0, 1]; before the first frame stands the first."""
    return with_shifts(frames)[0]


def with_shifts(
    frames: UInt8[Array, "t 27 48 3"],
) -> tuple[Float[Array, "t s"], Float[Array, "k t 12"]]:
    """`signals`, and how each block differs from the frame before after each of SHIFTS."""
    pixels = frames.astype(jnp.float32) / 255
    luma = pixels @ jnp.array(LUMA)
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
    shifted = _shifted(luma, _before(luma, 1), SHIFTS)
    moved = shifted.min(0)
    for lag in SHIFTED_LAGS:
        best = moved if lag == 1 else _shifted(luma, _before(luma, lag), COARSE).min(0)
        result += [best.mean(1), best.max(1)]
    for distance in MIXES:
        before, after = _before(luma, distance), _before(luma, -distance)
        apart = _blocks(jnp.abs(before - after))
        missed = _blocks(jnp.abs(luma - (before + after) / 2))
        ratio = missed / (apart + 0.02)
        result += [ratio.mean(1), jnp.median(ratio, axis=1), apart.mean(1), apart.min(1)]
        likeness = jnp.minimum(_before(histogram, distance), _before(histogram, -distance))
        result.append(likeness.sum(-1))
    changes = _blocks(jnp.abs(luma - _before(luma, 1)))
    tones = jnp.abs(_tones(luma) - jnp.roll(_tones(luma), 1, 0).at[0].set(_tones(luma)[0]))
    colours = _cells(pixels - luma[..., None])
    turned = jnp.abs(colours - _before(colours, 1)).sum(-1)
    for blocks, floor in ((changes, 0.01), (moved, 0.01), (tones.sum(-1), 0.1), (turned, 0.01)):
        result += _standing_out(blocks, floor)
    result += _content(pixels)
    saturation = (pixels.max(-1) - pixels.min(-1)).mean((1, 2))
    result += [luma.mean((1, 2)), luma.std((1, 2)), edges.mean((1, 2)), saturation]
    return jnp.stack(result, axis=-1), shifted


def _before(values: Array, lag: int) -> Array:
    """Each frame's value `lag` frames earlier (later, if negative); the ends are repeated."""
    places = jnp.clip(jnp.arange(values.shape[0]) - lag, 0, values.shape[0] - 1)
    return values[places]


def _blocks(values: Float[Array, "t 27 48"]) -> Float[Array, "t 12"]:
    """Means of 3x4 blocks."""
    t = values.shape[0]
    parts = values.reshape(t, ROWS, HEIGHT // ROWS, COLUMNS, WIDTH // COLUMNS)
    return parts.mean((2, 4)).reshape(t, -1)


def _spread(blocks: Float[Array, "t 12"]) -> list[Array]:
    return [blocks.mean(1), jnp.median(blocks, axis=1), blocks.min(1), blocks.max(1)]


def _histograms(frames: UInt8[Array, "t 27 48 3"]) -> Float[Array, "t 64"]:
    """Shares of pixels in 4x4x4 boxes of the colour cube."""
    levels = (frames // (256 // _LEVELS)).astype(jnp.int32)
    box = (levels[..., 0] * _LEVELS + levels[..., 1]) * _LEVELS + levels[..., 2]
    box = box.reshape(box.shape[0], -1)
    # One box of the cube after the other: all at once would take 64 times the pixels' memory.
    return lax.map(lambda number: (box == number).mean(1), jnp.arange(_LEVELS**3)).T


def _edges(luma: Float[Array, "t 27 48"]) -> Float[Array, "t 27 48"]:
    """How steep brightness is."""
    down = jnp.abs(jnp.diff(luma, axis=1, append=luma[:, -1:]))
    right = jnp.abs(jnp.diff(luma, axis=2, append=luma[:, :, -1:]))
    return down + right


def _standard(values: Float[Array, "t 27 48"]) -> Float[Array, "t 27 48"]:
    """Mean 0 and deviation 1 in each frame, 0 where all is flat."""
    centred = values - values.mean((1, 2), keepdims=True)
    return centred / (jnp.sqrt((centred**2).mean((1, 2), keepdims=True)) + 0.01)


def _standing_out(blocks: Float[Array, "t 12"], floor: float) -> list[Array]:
    """Eight numbers: how large differences are, and how many times those of the frames around."""
    around = [_before(blocks, k) for lag in _AROUND for k in (lag, -lag)]
    ratios = jnp.log((blocks + floor) / (sum(around) / len(around) + floor))
    most = jnp.log((blocks + floor) / (jnp.stack(around).max(0) + floor))
    ordered = jnp.sort(ratios, axis=1)
    whole = blocks.mean(1) + floor
    usual = sum(around).mean(1) / len(around) + floor  # pyright: ignore[reportAttributeAccessIssue]
    return [
        jnp.log(whole), jnp.log(whole / usual), ratios.mean(1), jnp.median(ratios, axis=1),
        ordered[:, -1], ordered[:, -3], most.mean(1), jnp.log(jnp.median(blocks, axis=1) + floor),
    ]  # fmt: skip


def _cells(values: Float[Array, "t 27 48 c"]) -> Float[Array, "t 12 c"]:
    """Means of 3x4 blocks, of each channel."""
    t, *_, c = values.shape
    parts = values.reshape(t, ROWS, HEIGHT // ROWS, COLUMNS, WIDTH // COLUMNS, c)
    return parts.mean((2, 4)).reshape(t, -1, c)


def _tones(luma: Float[Array, "t 27 48"]) -> Float[Array, "t 12 8"]:
    """Histograms of the brightness of each block; a pixel between two levels counts for both."""
    levels = jnp.linspace(0, 1, 8)
    return _cells(jnp.maximum(1 - 7 * jnp.abs(luma[..., None] - levels), 0))


def _content(pixels: Float[Array, "t 27 48 3"]) -> list[Array]:
    """Differences of hue, saturation and value to the frame before, and their sum's prominence."""
    value, low = pixels.max(-1), pixels.min(-1)
    spread = value - low
    saturation = spread / (value + 1e-3)
    red, green, blue = jnp.moveaxis(pixels, -1, 0)
    third = jnp.where(value == green, (blue - red) / (spread + 1e-3) + 2, 0.0)
    hue = jnp.where(value == blue, (red - green) / (spread + 1e-3) + 4, third)
    hue = jnp.where(value == red, ((green - blue) / (spread + 1e-3)) % 6, hue) / 6
    parts = []
    for plane, circle in ((hue, True), (saturation, False), (value, False)):
        change = jnp.abs(plane - _before(plane, 1))
        change = jnp.minimum(change, 1 - change) if circle else change
        parts.append(change.mean((1, 2)))
    total = sum(parts)
    around = sum(_before(total, k) for k in (-2, -1, 1, 2)) / 4  # pyright: ignore[reportArgumentType]
    return [*parts, jnp.log(total + 0.01), jnp.log((total + 0.01) / (around + 0.01))]


def _shifted(
    now: Float[Array, "t 27 48"],
    then: Float[Array, "t 27 48"],
    shifts: tuple[tuple[int, int], ...],
) -> Float[Array, "k t 12"]:
    """Each block's mean difference from the other frame, shifted in k ways."""
    rows = max(row for row, _ in shifts)
    columns = max(column for _, column in shifts)
    wide = jnp.pad(then, ((0, 0), (rows, rows), (columns, columns)), mode="edge")

    def difference(shift: Array) -> Array:
        place = (jnp.zeros_like(shift[0]), rows + shift[0], columns + shift[1])
        return _blocks(jnp.abs(now - lax.dynamic_slice(wide, place, now.shape)))

    # A loop: unrolled, the many equal operations take long to compile.
    return lax.map(difference, jnp.array(shifts))
