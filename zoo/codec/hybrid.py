"""The second mode: an ordinary MP4 by x264, and a small filter fitted to it where that pays.

The file plays everywhere. A decoder that knows the box at its end (`sidecar`) makes the pictures
better by `wiener`. The filter stays only where x264 would need more bytes for the same gain, which
a second encode at a coarser setting tells.
"""

import dataclasses
import math
import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from zoo.codec import sidecar, source
from zoo.codec.errors import BrokenFile
from zoo.codec.source import Pictures, chroma
from zoo.video.encode import write_whole
from zoo.video.ffmpeg import Source

_COARSER = 2  # Constant rate factors between the two encodes.
_FITTED_FRAMES = 48  # At most: more tell no more about a few hundred weights.
# Squared errors of luma and chroma, per sample, count as in PSNR 6:1:1.
_SHARES = (6 / 8, 1 / 8, 1 / 8)


class Result(NamedTuple):
    """What was written.

    Attributes:
      bytes: of the file; filter_bytes: of these, of the filter, 0 where it did not pay.
      gain: of PSNR, Y:U:V 6:1:1 over all frames, by the filter, in dB; 0 without one.
      saved: bytes that x264 would need for that gain, by the slope of two encodes.
      crf: x264's constant rate factor.
      frames: how many are in the file.
      seconds: that it took.
    """

    bytes: int
    filter_bytes: int
    gain: float
    saved: int
    crf: int
    frames: int
    seconds: float


def crf_of(quality: float) -> int:
    """x264's constant rate factor for 0 (worst) to 100 (best): 51 to 11."""
    if not 0 <= quality <= 100:
        raise ValueError(f"quality is {quality}; give 0 (smallest file) to 100 (best)")
    return round(51 - 0.4 * quality)


def compress(
    video: Source,
    path: str | os.PathLike,
    *,
    quality: float = 60,
    crf: int | None = None,
    frames: int | None = None,
    name: str | None = None,
) -> Result:
    """Compresses `video` to an MP4 with a filter, written whole or not at all.

    Args:
      video: path, or the file's bytes; only its pictures are taken.
      quality: 0 (smallest file) to 100; see `crf_of`.
      crf: x264's constant rate factor instead.
      frames: compress only so many.
      name: what errors call the video.

    Raises:
      ValueError: a setting is out of range; VideoError: the video cannot be read or encoded.
    """
    begin = time.monotonic()
    crf = crf_of(quality) if crf is None else crf
    if not 0 <= crf <= 51:
        raise ValueError(f"crf is {crf}; give 0 (best) to 51 (smallest file)")
    pictures = source.read(video, frames=frames, name=name)
    movie, coarser = (_movie(pictures, number) for number in (crf, min(crf + _COARSER, 51)))
    decoded = _cropped(source.read(movie), pictures.y.shape[1:])
    other = _cropped(source.read(coarser), pictures.y.shape[1:])
    before, less = (_errors(pictures, x) for x in (decoded, other))
    # Bytes that x264 pays for a relative change of the error.
    slope = 0.0
    if len(coarser) < len(movie) and _mean(less) > _mean(before) > 0:
        slope = math.log(len(movie) / len(coarser)) / math.log(_mean(less) / _mean(before))
    weights, gains = _fitted(pictures, decoded, before, slope * len(movie))
    box, gain, saved = b"", 0.0, 0
    after = _mean([max(b - g, 1e-9) for b, g in zip(before, gains, strict=True)])
    if weights.any() and after < _mean(before):
        h, w = pictures.y.shape[1:]
        box = sidecar.pack(sidecar.Filters(w, h, weights), movie)
        saved = round(len(movie) * math.expm1(slope * math.log(_mean(before) / after)))
        gain = 10 * math.log10(_mean(before) / after)
        if saved <= len(box):
            box, gain, saved = b"", 0.0, 0
    write_whole(path, movie + box)
    count, took = len(pictures.y), time.monotonic() - begin
    return Result(len(movie + box), len(box), gain, saved, crf, count, took)


def _movie(pictures: Pictures, crf: int) -> bytes:
    options = ["-c:v", "libx264", "-preset", "medium", "-crf", str(crf), "-threads:v", "2"]
    options += ["-video_track_timescale", str(pictures.time_base.denominator)]
    return source.encoded(source.even(pictures), options, "mp4", name="<x264>")


def _cropped(pictures: Pictures, size: Sequence[int]) -> Pictures:
    """Without the row and the column that an even size adds."""
    h, w = size
    uv = pictures.uv[:, :, : chroma(h), : chroma(w)]
    return dataclasses.replace(pictures, y=pictures.y[:, :h, :w], uv=uv)


def _planes(pictures: Pictures) -> list[np.ndarray]:
    return [pictures.y, pictures.uv[:, 0], pictures.uv[:, 1]]


def _errors(original: Pictures, decoded: Pictures) -> list[float]:
    """Mean squared errors of Y, U and V, in levels of 8 bits."""
    scale = 4.0 ** (original.depth - 8)
    pairs = zip(_planes(original), _planes(decoded), strict=True)
    squares = (np.square(a.astype(np.float32) - b) for a, b in pairs)
    return [float(square.mean(dtype=np.float64)) / scale for square in squares]


def _mean(errors: Sequence[float]) -> float:
    """Of the errors of Y, U and V, so that its logarithm is their PSNR 6:1:1."""
    return math.exp(sum(s * math.log(max(e, 1e-9)) for s, e in zip(_SHARES, errors, strict=True)))


def _fitted(
    original: Pictures, decoded: Pictures, before: Sequence[float], worth: float
) -> tuple[np.ndarray, list[float]]:
    """Weights [3 CLASSES FEATURES] in units of sidecar.STEP, and what each takes from its error.

    worth: bytes that x264 pays to make the error smaller by a factor of e.
    """
    from zoo.codec import wiener

    weights, gains = [], []
    scale = np.float32(1 << (original.depth - 8))
    places = np.unique(np.linspace(0, len(original.y) - 1, _FITTED_FRAMES).round().astype(int))
    planes = zip(_planes(original), _planes(decoded), before, _SHARES, strict=True)
    for wanted, given, error, share in planes:
        equations = wiener.Equations()
        for place in places.tolist():
            frames = wiener.three(given, place).astype(np.float32) / scale
            equations.add(frames, wanted[place].astype(np.float32) / scale)
        samples = len(places) * wanted[0].size
        best = np.zeros((wiener.CLASSES, wiener.FEATURES), np.int64), 0.0, 0.0
        for features, together in wiener.choices() if error > 0 else ():
            found = equations.solved(features, together=together, step=sidecar.STEP)
            gain = equations.gains(found) / samples
            # Bytes of a class, roughly; one that costs more than it is worth is left out.
            if not together:
                likely = 1.5 / 8 * np.log2(1 + np.abs(found / sidecar.STEP)).sum(1)
                pays = worth * share * gain / error > likely
                found, gain = found * pays[:, None], gain * pays
            numbers = np.rint(found / sidecar.STEP).astype(np.int64)
            total = float(gain.sum())
            alone = np.zeros((3, *numbers.shape), np.int64)
            alone[0] = numbers
            left = max(1 - total / error, 1e-6)
            cost = sidecar.size_of(alone) - sidecar.size_of(np.zeros_like(alone))
            value = -worth * share * math.log(left) - cost
            if value > best[1]:
                best = numbers, value, total
        weights.append(best[0])
        gains.append(best[2])
    return np.stack(weights), gains


def decode(data: bytes, name: str, *, max_bytes: int) -> Pictures | None:
    """The pictures of an MP4, corrected by its filter; None where it has none.

    Raises CodecError for a damaged filter, and as zoo.codec.source.read does.
    """
    place = sidecar.find(data)
    if place is None:
        return None
    from zoo.codec import wiener

    filters = sidecar.parse(data, place, name)
    pictures = source.read(data[:place], name=name, max_bytes=max_bytes)
    size = filters.height, filters.width
    if pictures.y.shape[1:] != tuple(n + n % 2 for n in size):
        raise BrokenFile(name, "its filter is for another size", offset=place)
    pictures = _cropped(pictures, size)
    planes = [
        wiener.apply(plane, weights * sidecar.STEP, pictures.depth) if weights.any() else plane
        for plane, weights in zip(_planes(pictures), filters.weights, strict=True)
    ]
    return dataclasses.replace(pictures, y=planes[0], uv=np.stack(planes[1:], 1))


def info(data: bytes, name: str) -> dict[str, Any] | None:
    """What an MP4's filter says about itself; None where it has none. Raises as `decode`."""
    place = sidecar.find(data)
    if place is None:
        return None
    filters = sidecar.parse(data, place, name)
    return {
        "bytes": len(data),
        "filter_bytes": len(data) - place,
        "width": filters.width,
        "height": filters.height,
        "weights": [int(np.count_nonzero(weights)) for weights in filters.weights],
    }
