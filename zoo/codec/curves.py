"""Rate-distortion curves of this codec and of others, and what lies between them in per cent.

Others are ffmpeg's encoders at their usual settings over a ladder of constant rate factors; their
files count whole. The difference of two curves is Bjontegaard's (VCEG-M33, 2001) with the monotone
interpolation of JVET-H0030 (PCHIP) in place of a cubic: log rate as a function of quality, over the
interval that both curves have.
"""

import dataclasses
import functools
import hashlib
import json
import math
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from zoo.codec import encoding, source
from zoo.codec.metrics import METRICS, qualities
from zoo.codec.source import Pictures
from zoo.video import ffmpeg, messages
from zoo.video.encode import write_whole
from zoo.video.errors import VideoError

LADDER: Mapping[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    "x264 medium": (("-c:v", "libx264", "-preset", "medium"), (23, 28, 33, 38)),
    "x265 medium": (("-c:v", "libx265", "-preset", "medium"), (23, 28, 33, 38)),
    "SVT-AV1 6": (("-c:v", "libsvtav1", "-preset", "6"), (30, 38, 46, 54, 62)),
}
OWN = "zvc"
FILTERED = "x264 + filter"  # The second mode, on the ladder of its codec.
CODECS = (*LADDER, FILTERED, OWN)
QUALITIES = (50.0, 40.0, 30.0, 20.0)


@dataclasses.dataclass(frozen=True)
class Point:
    """One file.

    Attributes:
      setting: quality of this codec, constant rate factor of another.
      bytes: of the file, everything counted.
      rate: bits per second.
      qualities: by METRICS.
      encode_seconds, decode_seconds: by the clock.
      macs: multiply-accumulates of decoding for a pixel of luma; None where they were not counted.
    """

    setting: float
    bytes: int
    rate: float
    qualities: dict[str, float]
    encode_seconds: float
    decode_seconds: float
    macs: float | None = None


def bd_rate(
    anchor: Sequence[tuple[float, float]], tested: Sequence[tuple[float, float]]
) -> tuple[float, tuple[float, float]]:
    """How many per cent more rate `tested` needs than `anchor`, and the interval of quality.

    Both are (rate, quality), at least two points whose qualities rise with their rates. Raises
    ValueError where they do not, or have no quality in common.
    """
    from scipy.interpolate import PchipInterpolator

    curves = []
    for points in (anchor, tested):
        rates, values = np.array(sorted(points)).T
        if len(rates) < 2 or np.any(np.diff(values) <= 0) or rates[0] <= 0:
            raise ValueError(f"{list(points)} is no curve: qualities must rise with rates")
        curves.append((PchipInterpolator(values, np.log(rates)), values))
    low = max(values[0] for _, values in curves)
    high = min(values[-1] for _, values in curves)
    if low >= high:
        raise ValueError(
            f"the curves have no quality in common: one begins at {low}, one ends at {high}"
        )
    areas = [float(curve.integrate(low, high)) for curve, _ in curves]
    return 100 * float(np.expm1((areas[1] - areas[0]) / (high - low))), (float(low), float(high))


def encoded(pictures: Pictures, options: Sequence[str], crf: int) -> bytes:
    """The MP4 of one of ffmpeg's encoders."""
    with ffmpeg.Job() as job:
        inputs, result = source.raw_input(job, pictures), job.result()
        more = ["-crf", str(crf), "-fps_mode", "passthrough", "-f", "mp4", *result.options]
        arguments = ["-loglevel", "level+verbose", *inputs, *options, *more]
        job.run(arguments, name="<rd>", timeout=3600)
        if job.returncode:
            raise VideoError("<rd>", messages.first_error(job.log), "check ffmpeg's encoders")
        return result.read()


class Bench:
    """Makes the points of one video's curves, and keeps each in a folder as soon as it is made.

    A point is made again only where the video, the number of its frames, the setting or, for this
    codec, its program has changed.
    """

    def __init__(
        self,
        video: str | os.PathLike,
        folder: pathlib.Path,
        *,
        frames: int | None = None,
        steps: int = 60,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        """frames: only so many of the video; steps: see zoo.codec.compress."""
        self._data = pathlib.Path(video).read_bytes()
        self._name = pathlib.Path(video).name
        self._folder, self._frames, self._steps, self._report = folder, frames, steps, report
        self.pictures = source.read(self._data, frames=frames, name=os.fspath(video))
        base = self.pictures.time_base
        self._seconds = float((self.pictures.ticks[-1] + self.pictures.last) * base)

    def curves(
        self, codecs: Sequence[str] = CODECS, settings: Sequence[float] = QUALITIES
    ) -> dict[str, list[Point]]:
        """Curves by codec; settings: qualities of this codec."""
        found: dict[str, list[Point]] = {}
        for codec in codecs:
            ladder = (
                LADDER["x264 medium" if codec == FILTERED else codec][1] if codec != OWN else ()
            )
            for setting in ladder or settings:
                point = self._point(codec, setting)
                found.setdefault(codec, []).append(point)
                self._report(f"{self._name}: {row(codec, point, len(self.pictures.ticks))}")
        return found

    def _point(self, codec: str, setting: float) -> Point:
        options = LADDER[codec][0] if codec in LADDER else f"steps {self._steps}, {_program()}"
        facts = f"{len(self.pictures.ticks)} {codec} {setting} {options}"
        key = hashlib.sha256(hashlib.sha256(self._data).digest() + facts.encode()).hexdigest()[:16]
        stem = pathlib.Path(self._name).stem
        path = self._folder / f"{stem} {codec} {setting:g} {key}.json".replace(" ", "_")
        if path.exists():
            return Point(**json.loads(path.read_text("utf-8")))
        make = {OWN: self._own, FILTERED: self._filtered}.get(codec)
        make = make or functools.partial(self._other, codec)
        size, back, encode_seconds, decode_seconds, macs = make(setting)
        found = qualities(self.pictures, back)
        rate = 8 * size / self._seconds
        point = Point(setting, size, rate, found, encode_seconds, decode_seconds, macs)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(dataclasses.asdict(point)).encode())
        return point

    def _other(self, codec: str, crf: float) -> tuple[int, Pictures, float, float, None]:
        begin = time.monotonic()
        data = encoded(self.pictures, LADDER[codec][0], int(crf))
        middle = time.monotonic()
        back = source.read(data)
        return len(data), back, middle - begin, time.monotonic() - middle, None

    def _filtered(self, crf: float) -> tuple[int, Pictures, float, float, float]:
        from zoo.codec import hybrid

        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "filtered.mp4"
            begin = time.monotonic()
            more = {"frames": self._frames, "name": self._name}
            size = hybrid.compress(self._data, path, crf=int(crf), **more).bytes
            return size, *self._decoded(path, time.monotonic() - begin)

    def _decoded(self, path: pathlib.Path, took: float) -> tuple[Pictures, float, float, float]:
        from zoo.codec import decoding, work

        with work.counted() as macs:  # The first decoding also compiles, and is not timed.
            decoding.decode(path)
        begin = time.monotonic()
        back = decoding.decode(path).pictures
        return back, took, time.monotonic() - begin, macs() / self.pictures.y.size

    def _own(self, quality: float) -> tuple[int, Pictures, float, float, float]:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "own.zvc"
            begin = time.monotonic()
            more = {"frames": self._frames, "name": self._name, "steps": self._steps}
            size = encoding.compress(self._data, path, quality=quality, **more).bytes
            return size, *self._decoded(path, time.monotonic() - begin)


def _program() -> str:
    """Changes with what this codec's points depend on."""
    others = {"curves.py", "chart.py", "metrics.py", "work.py"}
    files = sorted(p for p in pathlib.Path(__file__).parent.glob("*.py") if p.name not in others)
    return hashlib.sha256(b"".join(p.read_bytes() for p in files)).hexdigest()


def row(codec: str, point: Point, frames: int) -> str:
    """A point as a line of the table."""
    values = "  ".join(f"{key} {value:.4g}" for key, value in point.qualities.items())
    macs = "" if point.macs is None else f", {point.macs:.0f} MAC/pixel"
    speed = frames / point.decode_seconds
    return (
        f"{codec} {point.setting:g}: {point.rate / 1000:.1f} kbit/s, {values}, "
        f"encoded in {point.encode_seconds:.1f} s, decoded at {speed:.1f} frames/s{macs}"
    )


def compared(curves: Mapping[str, Sequence[Point]]) -> dict[str, dict[str, Any]]:
    """BD-rates in per cent and intervals of quality, by pair ("zvc to x264 medium") and metric.

    Both modes of this codec are compared to each of the others that has a curve.
    """
    result: dict[str, dict[str, Any]] = {}
    for own in (name for name in (OWN, FILTERED) if name in curves):
        for name in (name for name in LADDER if name in curves):
            for metric in METRICS:
                if metric not in curves[own][0].qualities:
                    continue
                pair = [[(p.rate, p.qualities[metric]) for p in curves[key]] for key in (name, own)]
                try:
                    value, interval = bd_rate(*pair)
                    entry = {"bd_rate": value, "interval": interval}
                except ValueError as error:
                    entry = {"bd_rate": None, "reason": str(error)}
                result.setdefault(f"{own} to {name}", {})[metric] = entry
    return result


def means(every: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Over videos: by pair and metric the mean BD-rate, and of how many videos.

    every: `compared` by the name of the video. A video without a BD-rate is not in the mean.
    """
    result: dict[str, dict[str, Any]] = {}
    for pair in dict.fromkeys(pair for one in every.values() for pair in one):
        for metric in METRICS:
            entries = [one[pair][metric] for one in every.values() if metric in one.get(pair, {})]
            values = [e["bd_rate"] for e in entries if e["bd_rate"] is not None]
            if entries:
                mean = math.fsum(values) / len(values) if values else None
                entry = {"bd_rate": mean, "videos": len(values), "of": len(entries)}
                result.setdefault(pair, {})[metric] = entry
    return result
