"""RandAugment: a few random operations of one strength (Cubuk et al. 2020).

The operations and their strengths are those of torchvision.transforms.RandAugment with 31 bins.
What differs, so that a batch of clips costs little: the geometric operations of a clip are merged
into one bilinear sampling around the frame's centre that comes before the photometric ones, and
statistics (mean gray, extremes, histogram) are those of the whole clip. The photometric
operations that act on single values are tables of 256 entries, so that vmap, which evaluates all
branches of a choice, evaluates them for 256 values and not for every pixel.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Num, UInt8

from zoo.video import color, geometry
from zoo.video.policy import RANDAUGMENT_MAX_MAGNITUDE, Augmentation

GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")


class Draw(NamedTuple):
    """Operations of one clip as positions in `policy.randaugment_operations`, and their signs."""

    operations: Int[Array, "n"]
    signs: Float[Array, "n"]


def draw(draws: Float[Array, "n 2"], policy: Augmentation) -> Draw:
    """Operations and signs, all equally likely, from numbers uniform in [0, 1)."""
    count = len(policy.randaugment_operations)
    operations = jnp.minimum((draws[:, 0] * count).astype(jnp.int32), count - 1)
    return Draw(operations, jnp.where(draws[:, 1] < 0.5, -1.0, 1.0))


def moves(policy: Augmentation) -> bool:
    """Whether the policy can draw a geometric operation."""
    return bool(policy.randaugment) and any(
        name in GEOMETRIC for name in policy.randaugment_operations
    )


def movement(drawn: Draw, policy: Augmentation, size: tuple[int, int]) -> geometry.Map:
    """The geometric operations of a draw as one map of points relative to the frame's centre."""
    result = jnp.eye(3)
    for number in range(policy.randaugment):
        maps = jnp.stack(
            [
                _geometric(name, drawn.signs[number], policy, size)
                for name in policy.randaugment_operations
            ]
        )
        result = geometry.compose(result, maps[drawn.operations[number]])
    return result


def _geometric(
    name: str, sign: Float[Array, ""], policy: Augmentation, size: tuple[int, int]
) -> geometry.Map:
    strength = sign * _share(policy)
    if name == "shear_x":
        return geometry.shearing(0, 0.3 * strength)
    if name == "shear_y":
        return geometry.shearing(0.3 * strength, 0)
    if name == "translate_x":
        return geometry.translation(0, 150 / 331 * size[1] * strength)
    if name == "translate_y":
        return geometry.translation(150 / 331 * size[0] * strength, 0)
    if name == "rotate":
        return geometry.rotation(30 * strength)
    return jnp.eye(3)


def recolor(
    drawn: Draw, clip: Num[Array, "t h w c"], policy: Augmentation
) -> UInt8[Array, "t h w c"]:
    """The photometric operations of a draw, on pixels in 0..255; each leaves whole values."""
    names = policy.randaugment_operations
    values = jnp.broadcast_to(jnp.arange(256.0)[:, None], (256, clip.shape[-1]))

    def step(clip: Array, one: Draw) -> tuple[Array, None]:
        factor = 1 + 0.9 * one.signs * _share(policy)
        tables = _tables(clip, factor, policy)
        table = jnp.stack([tables.get(name, values) for name in names])[one.operations]

        def apply(frame: UInt8[Array, "h w c"]) -> UInt8[Array, "h w c"]:
            pixels = _blended(frame, one.operations, factor, policy)
            return _look_up(table, pixels) if tables else pixels

        # Frame by frame, because XLA would otherwise compute the table anew for every pixel.
        return lax.map(apply, clip), None

    clip, _ = lax.scan(step, jnp.round(clip).astype(jnp.uint8), drawn)
    return clip


def _blended(
    frame: UInt8[Array, "h w c"],
    operation: Int[Array, ""],
    factor: Float[Array, ""],
    policy: Augmentation,
) -> UInt8[Array, "h w c"]:
    """The operations that need more than a pixel's own value: color and sharpness."""
    names = policy.randaugment_operations
    others = {}
    if "color" in names:
        others["color"] = _whole(color.grayscale(frame))
    if "sharpness" in names:
        others["sharpness"] = _smoothed(frame)
    result = frame
    for name, other in others.items():
        changed = _whole(color.blend(frame.astype(jnp.float32), other, factor)).astype(jnp.uint8)
        result = jnp.where(operation == names.index(name), changed, result)
    return result


def _look_up(table: Float[Array, "256 c"], frame: UInt8[Array, "h w c"]) -> UInt8[Array, "h w c"]:
    channels = frame.shape[-1]
    positions = frame.astype(jnp.int32) * channels + jnp.arange(channels)
    found = table.ravel().at[positions].get(mode="promise_in_bounds")
    return found.astype(jnp.uint8)


def _whole(values: Float[Array, "*b"]) -> Float[Array, "*b"]:
    # Truncated as in torchvision, but what is whole up to rounding stays whole, so that the result
    # does not hang on the order in which a compiler adds.
    return jnp.floor(values + 1e-3)


def _share(policy: Augmentation) -> float:
    return policy.strength * policy.randaugment_magnitude / RANDAUGMENT_MAX_MAGNITUDE


def _tables(
    clip: UInt8[Array, "t h w c"], factor: Float[Array, ""], policy: Augmentation
) -> dict[str, Float[Array, "256 c"]]:
    """What each value of each channel becomes, for the operations that the policy names."""
    names = policy.randaugment_operations
    values = jnp.broadcast_to(jnp.arange(256.0)[:, None], (256, clip.shape[-1]))
    tables = {}
    if "brightness" in names:
        tables["brightness"] = _whole(color.adjust_brightness(values, factor))
    if "contrast" in names:
        tables["contrast"] = _whole(color.blend(values, color.mean_gray(clip), factor))
    if "posterize" in names:
        step = 1 << jnp.round(4 * _share(policy)).astype(jnp.int32)  # 8 bits less up to 4
        tables["posterize"] = values // step * step
    if "solarize" in names:
        threshold = 255 * (1 - _share(policy))
        tables["solarize"] = jnp.where(values >= threshold, 255 - values, values)
    if "autocontrast" in names:
        low, high = color.extremes(clip)
        flat = low == high
        scale = 255 / jnp.where(flat, 255, high - low)
        stretched = (values - jnp.where(flat, 0, low)) * scale
        tables["autocontrast"] = _whole(jnp.clip(stretched, 0, 255))
    if "equalize" in names:
        tables["equalize"] = _equalizing(clip)
    return tables


def _equalizing(clip: UInt8[Array, "t h w c"]) -> Float[Array, "256 c"]:
    # Whole numbers throughout, as in Pillow and torchvision.
    channels = clip.shape[-1]
    pixels = clip.size // channels
    positions = clip.astype(jnp.int32) * channels + jnp.arange(channels)
    counts = jnp.bincount(positions.ravel(), length=256 * channels).reshape(256, channels)
    below = jnp.cumsum(counts, axis=0) - counts
    brightest = pixels - below.max(axis=0, where=counts > 0, initial=0)
    step = (pixels - brightest) // 255
    table = jnp.clip((below + step // 2) // jnp.maximum(step, 1), 0, 255)
    return jnp.where(step == 0, jnp.arange(256)[:, None], table).astype(jnp.float32)


def _smoothed(frame: UInt8[Array, "h w c"]) -> Float[Array, "h w c"]:
    # 3x3 filter of ones with 5 in the middle, over 13; the outermost pixels stay as they are.
    h, w, _ = frame.shape
    pixels = frame.astype(jnp.float32)
    padded = jnp.pad(pixels, ((1, 1), (1, 1), (0, 0)))
    box = sum(padded[y : y + h, x : x + w] for y in range(3) for x in range(3))
    inner = geometry.inside(h, 1, h - 1)[:, None] & geometry.inside(w, 1, w - 1)
    return jnp.where(inner[..., None], jnp.round((box + 4 * pixels) / 13), pixels)
