"""Between samples as files have them and padded planes of floats in levels of 8 bits."""

import jax.numpy as jnp
import numpy as np

from zoo.codec.network import Planes, Shape
from zoo.codec.source import Pictures, chroma


def padded(pictures: Pictures, first: int, end: int) -> Planes:
    """Frames first to end - 1; the last row and column are repeated."""
    _, h, w = pictures.y.shape
    tall, wide = Shape(h, w).padded
    scale = np.float32(1 / (1 << (pictures.depth - 8)))
    y = np.pad(pictures.y[first:end], ((0, 0), (0, tall - h), (0, wide - w)), mode="edge")
    spare = (0, tall // 2 - chroma(h)), (0, wide // 2 - chroma(w))
    uv = np.pad(pictures.uv[first:end], ((0, 0), (0, 0), *spare), mode="edge")
    return Planes(jnp.asarray(y * scale, jnp.float32), jnp.asarray(uv * scale, jnp.float32))


def samples(planes: Planes, shape: Shape, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Luma and chroma as integers of `depth` bits, without padding."""
    h, w = shape.height, shape.width
    top, scale = (1 << depth) - 1, 1 << (depth - 8)
    kind = np.uint8 if depth == 8 else np.dtype("<u2")
    y = np.asarray(planes.y)[:, :h, :w]
    uv = np.asarray(planes.uv)[:, :, : chroma(h), : chroma(w)]
    y, uv = (np.clip(np.rint(x * scale), 0, top).astype(kind) for x in (y, uv))
    return y, uv
