"""Rate-distortion curves of this codec and of others, and what lies between them in per cent.

Others are ffmpeg's encoders at their usual settings over a ladder of
constant rate factors; their files count whole. Quality is the mean over frames. The difference of
two curves is Bjontegaard's (VCEG-M33, 2001) with the monotone interpolation of JVET-H0030 (PCHIP)
in place of a cubic: log rate as a function of quality, over the interval that both curves have.
"""

import dataclasses
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from zoo.codec import source
from zoo.codec.source import Pictures
from zoo.video import ffmpeg, messages
from zoo.video.errors import VideoError

LADDER: Mapping[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    "x264 medium": (("-c:v", "libx264", "-preset", "medium"), (23, 28, 33, 38)),
    "x265 medium": (("-c:v", "libx265", "-preset", "medium"), (23, 28, 33, 38)),
    "SVT-AV1 6": (("-c:v", "libsvtav1", "-preset", "6"), (30, 38, 46, 54)),
}
OWN = "zvc"
QUALITIES = (50, 40, 30, 20)
METRICS = ("psnr_y", "psnr_yuv", "ms_ssim", "vmaf")
_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli and Bovik 2003
_VMAF = re.compile(r"VMAF score: ([\d.]+)")


@dataclasses.dataclass(frozen=True)
class Point:
    """One file: its setting, bits per second, qualities by METRICS, and seconds to make it."""

    setting: float
    rate: float
    qualities: dict[str, float]
    encode_seconds: float
    decode_seconds: float


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
        rates, qualities = np.array(sorted(points)).T
        if len(rates) < 2 or np.any(np.diff(qualities) <= 0) or rates[0] <= 0:
            raise ValueError(f"{list(points)} is no curve: qualities must rise with rates")
        curves.append((PchipInterpolator(qualities, np.log(rates)), qualities))
    low = max(qualities[0] for _, qualities in curves)
    high = min(qualities[-1] for _, qualities in curves)
    if low >= high:
        raise ValueError(
            f"the curves have no quality in common: one begins at {low}, one ends at {high}"
        )
    areas = [float(curve.integrate(low, high)) for curve, _ in curves]
    return 100 * float(np.expm1((areas[1] - areas[0]) / (high - low))), (float(low), float(high))


def psnr(original: np.ndarray, decoded: np.ndarray, depth: int) -> float:
    """Mean over frames [t ...], in dB; equal frames count as 100."""
    error = np.square(original.astype(np.float64) - decoded)
    error = error.reshape(len(original), -1).mean(1)
    top = ((1 << depth) - 1) ** 2
    return float(np.mean(np.minimum(10 * np.log10(top / np.maximum(error, 1e-12)), 100)))


def ms_ssim(original: np.ndarray, decoded: np.ndarray, depth: int) -> float:
    """Multi-scale structural similarity of luma [t h w], as far as five scales fit a frame."""
    from scipy.ndimage import gaussian_filter

    def blurred(x: np.ndarray) -> np.ndarray:
        return gaussian_filter(x, (0, 1.5, 1.5), truncate=3.4)[:, 5:-5, 5:-5]

    a, b = original.astype(np.float64), decoded.astype(np.float64)
    top = (1 << depth) - 1
    c1, c2 = (0.01 * top) ** 2, (0.03 * top) ** 2
    result = np.ones(len(a))
    for scale, weight in enumerate(_SCALES):
        ma, mb = blurred(a), blurred(b)
        va, vb = blurred(a * a) - ma * ma, blurred(b * b) - mb * mb
        both = (2 * (blurred(a * b) - ma * mb) + c2) / (va + vb + c2)
        last = scale == len(_SCALES) - 1 or min(a.shape[1:]) < 44
        if last:
            both = both * (2 * ma * mb + c1) / (ma * ma + mb * mb + c1)
        result *= np.maximum(both.mean((1, 2)), 0) ** weight
        if last:
            break
        h, w = (n // 2 * 2 for n in a.shape[1:])
        a, b = (x[:, :h, :w].reshape(len(x), h // 2, 2, w // 2, 2).mean((2, 4)) for x in (a, b))
    return float(result.mean())


def vmaf(original: Pictures, decoded: Pictures) -> float | None:
    """ffmpeg's VMAF with its built-in model; None where ffmpeg was built without it."""
    with ffmpeg.Job() as job:
        inputs: list[str] = []
        for pictures in (decoded, original):
            inputs += source.raw_input(job, pictures)
        arguments = ["-loglevel", "level+info", *inputs, "-lavfi", "libvmaf", "-f", "null", "-"]
        job.run(arguments, name="<vmaf>", timeout=600)
        if "No such filter" in job.log or "Unknown filter" in job.log:
            return None
        found = _VMAF.search(job.log)
        if job.returncode or found is None:
            raise VideoError("<vmaf>", messages.first_error(job.log), "leave VMAF out")
        return float(found[1])


def qualities(original: Pictures, decoded: Pictures) -> dict[str, float]:
    """All METRICS that can be had."""
    y = psnr(original.y, decoded.y, original.depth)
    u, v = (psnr(original.uv[:, k], decoded.uv[:, k], original.depth) for k in range(2))
    result = {"psnr_y": y, "psnr_yuv": (6 * y + u + v) / 8}
    result["ms_ssim"] = ms_ssim(original.y, decoded.y, original.depth)
    if (score := vmaf(original, decoded)) is not None:
        result["vmaf"] = score
    return result


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


def measure(
    pictures: Pictures,
    own: Callable[[float], tuple[int, Pictures, float, float]],
    *,
    own_settings: Sequence[float] = QUALITIES,
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, list[Point]]:
    """Curves by name.

    own: gives, of a quality, bytes of the file, decoded pictures, and seconds of both.
    """
    seconds = float((pictures.ticks[-1] + pictures.last) * pictures.time_base)
    curves: dict[str, list[Point]] = {}
    for name, (options, ladder) in LADDER.items():
        for crf in ladder:
            begin = time.monotonic()
            data = encoded(pictures, options, crf)
            middle = time.monotonic()
            back = source.read(data)
            took = middle - begin, time.monotonic() - middle
            point = Point(crf, 8 * len(data) / seconds, qualities(pictures, back), *took)
            curves.setdefault(name, []).append(point)
            report(f"{name} {crf}: {point.rate / 1000:.0f} kbit/s, {point.qualities}")
    for quality in own_settings:
        size, back, *took = own(quality)
        point = Point(quality, 8 * size / seconds, qualities(pictures, back), *took)
        curves.setdefault(OWN, []).append(point)
        report(f"{OWN} {quality}: {point.rate / 1000:.0f} kbit/s, {point.qualities}")
    return curves


def compared(curves: Mapping[str, Sequence[Point]]) -> dict[str, dict[str, Any]]:
    """For each other codec and metric: BD-rate of this one in per cent, and the interval."""
    result: dict[str, dict[str, Any]] = {}
    for name in LADDER:
        for metric in METRICS:
            if metric not in curves[OWN][0].qualities:
                continue
            pair = [[(p.rate, p.qualities[metric]) for p in curves[key]] for key in (name, OWN)]
            try:
                value, interval = bd_rate(*pair)
                entry = {"bd_rate": value, "interval": interval}
            except ValueError as error:
                entry = {"bd_rate": None, "reason": str(error)}
            result.setdefault(name, {})[metric] = entry
    return result


def picture(curves: Mapping[str, Sequence[Point]], metric: str = "psnr_y") -> str:
    """An SVG of quality over the logarithm of the rate."""
    colors = ("#1b6ca8", "#c8553d", "#4f772d", "#111111")
    points = [p for curve in curves.values() for p in curve]
    rates, values = np.log2([p.rate for p in points]), [p.qualities[metric] for p in points]
    low, high, bottom, top = min(rates), max(rates), min(values), max(values)

    def place(point: Point) -> str:
        x = 60 + 520 * (np.log2(point.rate) - low) / max(high - low, 1e-9)
        y = 340 - 300 * (point.qualities[metric] - bottom) / max(top - bottom, 1e-9)
        return f"{x:.1f},{y:.1f}"

    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 400" font-family="sans-serif">'
    ]
    lines.append('<path d="M60 30V340H590" fill="none" stroke="#888"/>')
    for k, (name, curve) in enumerate(curves.items()):
        path = " ".join(place(p) for p in sorted(curve, key=lambda p: p.rate))
        color = colors[k % len(colors)]
        lines.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        lines.append(f'<text x="70" y="{45 + 18 * k}" font-size="13" fill="{color}">{name}</text>')
    for rate, x in ((low, 60), (high, 560)):
        lines.append(f'<text x="{x}" y="360" font-size="12">{2**rate / 1000:.0f} kbit/s</text>')
    for value, y in ((bottom, 340), (top, 40)):
        lines.append(f'<text x="10" y="{y}" font-size="12">{value:.2f}</text>')
    lines.append(f'<text x="250" y="390" font-size="13">{metric} over rate (log)</text></svg>')
    return "\n".join(lines)
