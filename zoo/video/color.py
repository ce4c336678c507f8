"""What the pixels of a clip look like: brightness, contrast, saturation and hue.

Every function takes one clip [t h w c] of floats in 0..255 with one channel or three (RGB) and
returns the same, clamped. The definitions are those of torchvision.transforms.functional, with
means taken over the whole clip, so that all frames change alike. Factors may be traced; a factor
of 1 and a shift of 0 change nothing.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Num

from zoo.video.policy import Augmentation, is_plain

Clip = Float[Array, "t h w c"]
Scalar = float | Num[Array, ""]

_LUMA = (0.2989, 0.587, 0.114)


def grayscale(clip: Num[Array, "*b c"]) -> Float[Array, "*b 1"]:
    """Luma of RGB with the weights of ITU-R 601-2; one channel is returned as it is."""
    channels = clip.shape[-1]
    if channels == 1:
        return clip.astype(jnp.float32)
    if channels != 3:
        raise ValueError(
            f"clips have {channels} channels; color changes are defined for 1 (gray) or 3 (RGB)"
        )
    # Slices, because a sum over so short an axis costs thirty times as much on the CPU.
    red, green, blue = clip[..., :1], clip[..., 1:2], clip[..., 2:]
    return _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue


def mean_gray(clip: Num[Array, "t h w c"]) -> Float[Array, ""]:
    """The mean luma of the whole clip."""
    t, h, w, c = clip.shape
    # Rows first: the sums run along whole rows, which the CPU does in vectors.
    channels = (
        clip.reshape(t * h, w * c).astype(jnp.float32).mean(axis=0).reshape(w, c).mean(axis=0)
    )
    return grayscale(channels)[0]


def extremes(clip: Num[Array, "t h w c"]) -> tuple[Num[Array, "c"], Num[Array, "c"]]:
    """The smallest and the largest value of each channel in the whole clip."""
    t, h, w, c = clip.shape
    rows = clip.reshape(t * h, w * c)
    return rows.min(axis=0).reshape(w, c).min(axis=0), rows.max(axis=0).reshape(w, c).max(axis=0)


def blend(clip: Clip, other: Num[Array, "..."], factor: Scalar) -> Clip:
    """factor * clip + (1 - factor) * other, clamped to 0..255."""
    return jnp.clip(factor * clip + (1 - factor) * other, 0, 255)


def adjust_brightness(clip: Clip, factor: Scalar) -> Clip:
    """0 is black, 2 is twice as bright."""
    return blend(clip, jnp.zeros(()), factor)


def adjust_contrast(clip: Clip, factor: Scalar) -> Clip:
    """0 is the clip's mean gray everywhere."""
    return blend(clip, mean_gray(clip), factor)


def adjust_saturation(clip: Clip, factor: Scalar) -> Clip:
    """0 is gray."""
    return blend(clip, grayscale(clip), factor)


def adjust_hue(clip: Clip, shift: Scalar) -> Clip:
    """Turns the hue by a share of the color circle, -0.5 to 0.5; gray stays gray."""
    if clip.shape[-1] == 1:
        return clip

    def turn(frame: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        hue, saturation, value = _rgb_to_hsv(frame)
        return _hsv_to_rgb(hue + shift, saturation, value)

    # Frame by frame, because XLA would otherwise repeat this long chain for every later use.
    return lax.map(turn, clip)


def _rgb_to_hsv(rgb: Float[Array, "*b 3"]) -> tuple[Array, Array, Array]:
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    value = jnp.maximum(jnp.maximum(r, g), b)
    spread = value - jnp.minimum(jnp.minimum(r, g), b)
    saturation = spread / jnp.where(value == 0, 1, value)
    divisor = jnp.where(spread == 0, 1, spread)
    sector = jnp.where(
        value == r,
        (g - b) / divisor,
        jnp.where(value == g, 2 + (b - r) / divisor, 4 + (r - g) / divisor),
    )
    return sector / 6, saturation, value


def _hsv_to_rgb(hue: Array, saturation: Array, value: Array) -> Float[Array, "*b 3"]:
    hue = 6 * (hue - jnp.floor(hue))

    def channel(offset: int) -> Array:
        k = offset + hue
        k = jnp.where(k < 6, k, k - 6)
        return value - value * saturation * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)

    return jnp.stack([channel(5), channel(3), channel(1)], axis=-1)


def jitter(draws: Float[Array, "4"], clip: Clip, policy: Augmentation) -> Clip:
    """Random brightness, contrast, saturation and hue of the policy, one draw in [0, 1) for each.

    The ranges of torchvision ColorJitter, times `policy.strength`; always in this order, where
    torchvision shuffles it.
    """
    changes = (
        (adjust_brightness, policy.brightness),
        (adjust_contrast, policy.contrast),
        (adjust_saturation, policy.saturation),
    )
    for draw, (adjust, most) in zip(draws[:3], changes, strict=True):
        if most:
            change = policy.strength * most
            lowest = max(0.0, 1 - change) if is_plain(change) else jnp.maximum(0, 1 - change)
            clip = adjust(clip, lowest + draw * (1 + change - lowest))
    if policy.hue:
        clip = adjust_hue(clip, (2 * draws[3] - 1) * (policy.strength * policy.hue))
    return clip
