"""How near decoded pictures are to their original: PSNR, MS-SSIM and, from ffmpeg, VMAF."""

import re

import numpy as np

from zoo.codec import source
from zoo.codec.source import Pictures
from zoo.video import ffmpeg, messages
from zoo.video.errors import VideoError

METRICS = ("psnr_y", "psnr_yuv", "ms_ssim", "vmaf")
_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli and Bovik 2003
_AT_ONCE = 16  # Frames, so that a long video takes no more memory.
_VMAF = re.compile(r"VMAF score: ([\d.]+)")


def psnr(original: np.ndarray, decoded: np.ndarray, depth: int) -> float:
    """Mean over frames [t ...], in dB; equal frames count as 100."""
    error = np.square(original.astype(np.float64) - decoded)
    error = error.reshape(len(original), -1).mean(1)
    top = ((1 << depth) - 1) ** 2
    return float(np.mean(np.minimum(10 * np.log10(top / np.maximum(error, 1e-12)), 100)))


def ms_ssim(original: np.ndarray, decoded: np.ndarray, depth: int) -> float:
    """Multi-scale structural similarity of luma [t h w], as far as five scales fit a frame."""
    firsts = range(0, len(original), _AT_ONCE)
    parts = [(original[k : k + _AT_ONCE], decoded[k : k + _AT_ONCE]) for k in firsts]
    return float(np.mean(np.concatenate([_ms_ssim(a, b, depth) for a, b in parts])))


def _ms_ssim(original: np.ndarray, decoded: np.ndarray, depth: int) -> np.ndarray:
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
    return result


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
