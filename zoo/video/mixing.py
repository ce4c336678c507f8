"""Parts of clips replaced: by nothing (random erasing), by another clip (mixup, CutMix)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from zoo.video import geometry
from zoo.video.policy import Augmentation, is_off, is_plain


class Rows(NamedTuple):
    """Which rows of a larger batch some clips are, so that they get the random numbers that they
    would get there: what a device or a part of a batch computes does not depend on the parts.

    count: clips in the whole batch, or more. numbers: position of each clip in it; None: all.
    """

    count: int
    numbers: Int[Array, "b"] | None = None

    def take(self, values: Array) -> Array:
        """The clips' own rows of `values` [count ...]."""
        return values if self.numbers is None else values[self.numbers]


def erase_draws(policy: Augmentation, frames: int) -> int:
    """How many random numbers `erase` takes for a clip."""
    rectangles = frames if policy.erasing_mode == "frame" else 1
    return rectangles * (1 + geometry.BOX_DRAWS)


def erase(
    draws: Float[Array, "n"], clip: Float[Array, "t h w c"], policy: Augmentation
) -> Float[Array, "t h w c"]:
    """Sets a random rectangle of a normalised clip to 0, the mean color, with some probability.

    Zhong et al. 2020, "Random Erasing Data Augmentation", as in torchvision RandomErasing. The
    rectangle is the same in all frames, or each frame has its own (`policy.erasing_mode`).
    `draws` are `erase_draws` numbers uniform in [0, 1).
    """
    _, h, w, _ = clip.shape
    probability = policy.strength * policy.erasing

    def rectangle(draws: Float[Array, "n"]) -> Bool[Array, "h w"]:
        box, found = geometry.random_box(
            draws[1:], (h, w), policy.erasing_scale, policy.erasing_ratio
        )
        rows = geometry.inside(h, box[0], box[0] + box[2])
        columns = geometry.inside(w, box[1], box[1] + box[3])
        return rows[:, None] & columns & found & (draws[0] < probability)

    erased = jax.vmap(rectangle)(draws.reshape(-1, 1 + geometry.BOX_DRAWS))
    return jnp.where(erased[..., None], 0.0, clip)


def mix(
    key: Key[Array, ""],
    clips: Float[Array, "b t h w c"],
    labels: Float[Array, "b n"],
    policy: Augmentation,
    rows: Rows | None = None,
) -> tuple[Float[Array, "b t h w c"], Float[Array, "b n"]]:
    """Mixes every clip with the one before it in the batch, and their labels in proportion.

    mixup (Zhang et al. 2018) adds the whole clips with weights l and 1 - l; CutMix (Yun et al.
    2019) pastes a rectangle of the other clip with an area share of about 1 - l into all frames.
    l is drawn from Beta(alpha, alpha) for each clip; with both on, each clip gets one of them.
    Where the clips are some `rows` of a larger batch, they get the numbers of those rows; the
    first clip is mixed with the last of these.
    """
    _, _, h, w, _ = clips.shape
    rows = rows or Rows(clips.shape[0])
    count = rows.count
    keys = jax.random.split(key, 4)
    kept = jnp.ones((clips.shape[0], 1, 1))  # share of the clip itself, in each pixel
    if not is_off(policy.mixup):
        kept = rows.take(_beta(keys[0], policy.mixup, count))[:, None, None]
    if policy.cutmix:
        share = rows.take(_beta(keys[1], policy.cutmix, count))
        pasted = jax.vmap(lambda k, s: _rectangle(k, (h, w), s))(
            rows.take(jax.random.split(keys[2], count)), 1 - share
        )
        if not is_off(policy.mixup):
            paste = rows.take(jax.random.bernoulli(keys[3], 0.5, (count, 1, 1)))
            if not is_plain(policy.mixup):
                paste |= policy.mixup == 0
            kept = jnp.where(paste, 1.0 - pasted, kept)
        else:
            kept = 1.0 - pasted
    label_share = kept.mean(axis=(1, 2))[:, None]
    kept = kept[:, None, :, :, None]
    clips = kept * clips + (1 - kept) * jnp.roll(clips, 1, axis=0)
    labels = label_share * labels + (1 - label_share) * jnp.roll(labels, 1, axis=0)
    return clips, labels


def _beta(key: Key[Array, ""], alpha: float | Array, count: int) -> Float[Array, "count"]:
    """Shares from Beta(alpha, alpha); an array alpha of 0 gives ones: nothing is mixed."""
    if is_plain(alpha) and alpha == 1:  # uniform, and a second less to compile
        return jax.random.uniform(key, (count,))
    if is_plain(alpha):
        return jax.random.beta(key, alpha, alpha, (count,))
    safe = jnp.where(alpha > 0, alpha, 1.0)
    drawn = jax.random.beta(key, safe, safe, (count,))
    drawn = jnp.where(alpha == 1, jax.random.uniform(key, (count,)), drawn)
    return jnp.where(alpha > 0, drawn, 1.0)


def _rectangle(
    key: Key[Array, ""], frame: tuple[int, int], share: Float[Array, ""]
) -> Float[Array, "h w"]:
    """1 inside a rectangle of that share of the frame around a random point, cut at the borders."""
    h, w = frame
    half = jnp.sqrt(share) / 2
    center = jax.random.uniform(key, (2,)) * jnp.array([h, w])
    top, left = center[0] - half * h, center[1] - half * w
    within = geometry.inside(h, top, top + 2 * half * h)[:, None] & geometry.inside(
        w, left, left + 2 * half * w
    )
    return within.astype(jnp.float32)
