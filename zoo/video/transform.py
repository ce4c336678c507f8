"""From decoded uint8 clips to what a model takes: augmentation, crops, normalisation.

Everything here runs on the device, is a pure function of its arguments and of an explicit key,
and may be jitted and vmapped. What a policy leaves off is left out of the compiled program. The
single steps are in `geometry`, `color`, `randaugment` and `mixing`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Num, UInt8

from zoo.video import color, geometry, mixing, randaugment
from zoo.video.policy import Augmentation, is_off

Size = int | tuple[int, int]


def normalize(
    clip: Num[Array, "*b h w c"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Array, "*b h w c"]:
    """(clip / 255 - mean) / std in float32, per channel; clip is in 0..255.

    Raises ValueError where there is neither one mean and std nor one per channel.
    """
    channels = clip.shape[-1]
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            raise ValueError(
                f"{name} has {len(values)} values for {channels} channels; give one or {channels}"
            )
    pixels = clip.astype(jnp.float32) / 255
    return (pixels - jnp.array(mean, jnp.float32)) / jnp.array(std, jnp.float32)


def prepare(
    clip: UInt8[Array, "t h w c"], policy: Augmentation, size: Size, spatial_views: int = 1
) -> Float[Array, "v t h w c"]:
    """The deterministic crops that a clip is evaluated on, normalised.

    Scaled to `policy.resize` where that is set, then cropped at the centre, or at `spatial_views`
    places along the longer side; the random parts of the policy are ignored. The axis of views is
    always there, of length 1 for a single view. Frames too small for the crop are enlarged.
    """
    crop_size = _pair(size)
    clip = _scaled(clip, policy, crop_size)
    crops = geometry.spatial_crops(clip, crop_size, spatial_views)
    return normalize(crops, policy.mean, policy.std)


def augment(
    key: Key[Array, ""], clip: UInt8[Array, "t h w c"], policy: Augmentation, size: Size
) -> Float[Array, "t h w c"]:
    """One training clip: the policy's random changes, the same for all frames, normalised.

    In the order of torchvision's training references: crop, flip, rotation, RandAugment, color,
    normalisation, erasing. Crop, flips, rotation and RandAugment's geometry are one sampling; a
    crop without scaling is a copy. Mixup and CutMix need a batch: see `augment_batch`.

    The same key gives the same result.
    """
    crop_size = _pair(size)
    draws = _draws(key, policy, clip.shape[0])
    clip = _scaled(clip, policy, crop_size)
    operations = randaugment.draw(draws["randaugment"].reshape(-1, 2), policy)
    if policy.rotation or randaugment.moves(policy):
        pixels = _warp(draws, clip, policy, crop_size, operations)
    else:
        pixels = geometry.flip(_crop(draws, clip, policy, crop_size), *_flips(draws, policy))
    if policy.randaugment:
        pixels = randaugment.recolor(operations, pixels, policy)
    if policy.brightness or policy.contrast or policy.saturation or policy.hue:
        pixels = color.jitter(draws["color"], pixels.astype(jnp.float32), policy)
    result = normalize(pixels, policy.mean, policy.std)
    if policy.erasing:
        result = mixing.erase(draws["erasing"], result, policy)
    return result


def augment_batch(
    key: Key[Array, ""],
    clips: UInt8[Array, "b t h w c"],
    labels: Float[Array, "b n"],
    policy: Augmentation,
    size: Size,
    rows: mixing.Rows | None = None,
) -> tuple[Float[Array, "b t h w c"], Float[Array, "b n"]]:
    """`augment` for every clip with a key of its own, then mixup and CutMix between clips.

    `labels` are probabilities, one-hot for instance; the mixed ones still sum to 1. Where the
    clips are some `rows` of a larger batch, they get the random changes that they get there.
    """
    rows = rows or mixing.Rows(clips.shape[0])
    keys = jax.random.split(key, rows.count + 1)
    result = jax.vmap(lambda k, clip: augment(k, clip, policy, size))(rows.take(keys[1:]), clips)
    if mixes(policy):
        return mixing.mix(keys[0], result, labels, policy, rows)
    return result, labels


def mixes(policy: Augmentation) -> bool:
    """Whether clips are mixed with others."""
    return bool(policy.cutmix) or not is_off(policy.mixup)


def _scaled(clip: Array, policy: Augmentation, size: tuple[int, int]) -> Array:
    if policy.resize is not None:
        clip = geometry.resize_short_side(clip, policy.resize)
    return geometry.cover(clip, size)


def _draws(key: Key[Array, ""], policy: Augmentation, frames: int) -> dict[str, Array]:
    """All random numbers of a clip, uniform in [0, 1), by what they are for.

    One call of the generator, because each costs a quarter of a second of compilation on a CPU.
    What is switched off has its numbers too, so that the rest of the clip does not depend on it.
    """
    counts = {
        "place": geometry.BOX_DRAWS,
        "flip": 2,
        "rotation": 1,
        "color": 4,
        "randaugment": 2 * policy.randaugment,
        "erasing": mixing.erase_draws(policy, frames),
    }
    numbers = jax.random.uniform(key, (sum(counts.values()),))
    result, start = {}, 0
    for purpose, count in counts.items():
        result[purpose] = numbers[start : start + count]
        start += count
    return result


def _flips(draws: dict[str, Array], policy: Augmentation) -> tuple[Array | bool, Array | bool]:
    horizontal = draws["flip"][0] < policy.horizontal_flip if policy.horizontal_flip else False
    vertical = draws["flip"][1] < policy.vertical_flip if policy.vertical_flip else False
    return horizontal, vertical


def _crop(
    draws: dict[str, Array], clip: Array, policy: Augmentation, size: tuple[int, int]
) -> Array:
    top, left, height, width = _box(draws, clip, policy, size)
    if policy.crop == "resized":
        return geometry.resized_crop(clip, top, left, height, width, size)
    return geometry.crop(clip, top, left, size)


def _box(
    draws: dict[str, Array], clip: Array, policy: Augmentation, size: tuple[int, int]
) -> Num[Array, "4"]:
    _, h, w, _ = clip.shape
    place = draws["place"]
    if policy.crop == "resized":
        return geometry.random_crop_box(place, (h, w), policy.crop_scale, policy.crop_ratio)
    slack = (h - size[0], w - size[1])
    if policy.crop == "random":
        corner = geometry.random_corner(place[:2], slack)
    else:
        corner = jnp.array(slack) // 2
    return jnp.concatenate([corner, jnp.array(size)])


def _warp(
    draws: dict[str, Array],
    clip: Array,
    policy: Augmentation,
    size: tuple[int, int],
    operations: randaugment.Draw,
) -> Float[Array, "t h w c"]:
    """Crop, flips, rotation and RandAugment's geometry in one sampling of the clip."""
    _, h, w, _ = clip.shape
    top, left, height, width = _box(draws, clip, policy, size)
    horizontal, vertical = _flips(draws, policy)
    degrees = (2 * draws["rotation"][0] - 1) * (policy.strength * policy.rotation)
    to_input = geometry.compose(
        geometry.translation(top + height / 2, left + width / 2),
        geometry.scaling(height / size[0], width / size[1]),
        geometry.scaling(jnp.where(vertical, -1.0, 1.0), jnp.where(horizontal, -1.0, 1.0)),
        geometry.rotation(degrees),
        randaugment.movement(operations, policy, size),
        geometry.translation(-size[0] / 2, -size[1] / 2),
    )
    shrink = max(h / size[0], w / size[1]) if policy.crop == "resized" else 1.0
    fill = 255 * jnp.array(policy.mean, jnp.float32)
    return geometry.sample(clip, to_input, size, fill=fill, supersample=max(1, round(shrink)))


def _pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size
