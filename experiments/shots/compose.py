"""Sequences of shots with cuts, dissolves, fades and wipes between them, and where those are."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from experiments.shots import scenes

KINDS = ("cut", "dissolve", "fade", "wipe")
_SHARES = (0.5, 0.22, 0.12, 0.16)


class Composed(NamedTuple):
    """Frames and their boundaries.

    Attributes:
      frames: uint8 [t 27 48 3].
      cuts: float32 [t], 1 on the first frame after a cut.
      gradual: float32 [t], 1 on frames that show something of both shots, or of a fade.
    """

    frames: np.ndarray
    cuts: np.ndarray
    gradual: np.ndarray


def compose(rng: np.random.Generator, clips: Sequence[np.ndarray], length: int) -> Composed:
    """A sequence of `length` frames; half of its shots are parts of `clips`, half are drawn."""

    def shots() -> Iterator[np.ndarray]:
        while True:
            yield _shot(rng, clips)

    whole = splice(rng, shots(), length + 60)
    # Begin anywhere, so that boundaries are not always far from the start.
    start = int(rng.integers(0, 60))
    frames, cuts, gradual = (part[start : start + length] for part in whole)
    cuts[0] = 0  # What comes before is not seen.
    return Composed(frames, cuts, gradual)


def splice(rng: np.random.Generator, shots: Iterator[np.ndarray], length: int) -> Composed:
    """Shots, uint8 [t h w 3] of any one size, joined until there are `length` frames or more."""
    frames = next(shots)
    cuts, gradual = np.zeros(len(frames), np.float32), np.zeros(len(frames), np.float32)
    for following in shots:
        kind = KINDS[int(rng.choice(len(KINDS), p=_SHARES))]
        steps = 0 if kind == "cut" else int(np.exp(rng.uniform(np.log(4), np.log(48))))
        steps = min(steps, len(frames) // 2, len(following) // 2)
        # Two transitions never meet: what a transition covers is of the last shot alone.
        steps = min(steps, len(frames) - int(np.flatnonzero(np.append(1, gradual + cuts))[-1]) - 1)
        if steps < 3:
            steps, middle = 0, following[:0]
        elif kind == "fade":
            middle = _fade(rng, frames[-steps:], following[:steps], int(rng.integers(0, 9)))
        else:
            mix = _dissolve if kind == "dissolve" else _wipe
            middle = mix(rng, frames[-steps:], following[:steps])
        left, added = len(frames) - steps, len(middle) + len(following) - steps
        frames = np.concatenate([frames[:left], middle, following[steps:]])
        cuts = np.concatenate([cuts[:left], np.zeros(added, np.float32)])
        gradual = np.concatenate([gradual[:left], np.zeros(added, np.float32)])
        gradual[left : left + len(middle)] = 1
        if steps == 0:
            cuts[left] = 1
        if len(frames) >= length:
            break
    return Composed(frames, cuts, gradual)


def _shot(rng: np.random.Generator, clips: Sequence[np.ndarray]) -> np.ndarray:
    length = int(np.exp(rng.uniform(np.log(10), np.log(150))))
    if clips and rng.random() < 0.5:
        shot = scenes.real_shot(rng, clips[int(rng.integers(len(clips)))], length)
    else:
        shot = scenes.drawn_shot(rng, length)
    return scenes.disturbed(rng, shot)


def _ramp(rng: np.random.Generator, steps: int) -> np.ndarray:
    """Shares of the second shot, strictly between 0 and 1, even or eased."""
    share = np.arange(1, steps + 1) / (steps + 1)
    return share * share * (3 - 2 * share) if rng.random() < 0.2 else share


def _dissolve(rng: np.random.Generator, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    share = _ramp(rng, len(before))[:, None, None, None]
    return (before * (1 - share) + after * share).astype(np.uint8)


def _fade(rng: np.random.Generator, before: np.ndarray, after: np.ndarray, hold: int) -> np.ndarray:
    """To black or white and back."""
    colour = 0.0 if rng.random() < 0.8 else 255.0
    share = _ramp(rng, len(before))[:, None, None, None]
    out, back = before * (1 - share) + colour * share, after * share + colour * (1 - share)
    rest = np.full((hold, *before.shape[1:]), colour)
    return np.concatenate([out, rest, back]).astype(np.uint8)


def _wipe(rng: np.random.Generator, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """A moving edge, hard or soft; or the new picture pushes the old one away."""
    share = _ramp(rng, len(before))
    if rng.random() < 0.3:
        return _push(rng, before, after, share)
    _, h, w, _ = before.shape
    y, x = np.mgrid[:h, :w] / np.array([h - 1, w - 1])[:, None, None]
    places: list[Callable[[], np.ndarray]] = [
        lambda: x,
        lambda: y,
        lambda: (x + y) / 2,
        lambda: np.hypot(x - 0.5, y - 0.5) / np.hypot(0.5, 0.5),
        lambda: abs(x - 0.5) * 2,
        lambda: abs(y - 0.5) * 2,
        lambda: (np.arctan2(y - 0.5, x - 0.5) / np.pi + 1) / 2,
    ]
    place = places[int(rng.integers(len(places)))]()
    if rng.random() < 0.5:
        place = 1 - place
    soft = rng.choice([0.01, 0.05, 0.2])
    edge = share[:, None, None] * (1 + soft)
    weight = np.clip((edge - place) / soft, 0, 1)[..., None]
    return (before * (1 - weight) + after * weight).astype(np.uint8)


def _push(
    rng: np.random.Generator, before: np.ndarray, after: np.ndarray, share: np.ndarray
) -> np.ndarray:
    axis = int(rng.integers(1, 3))
    size, turned = before.shape[axis], rng.random() < 0.5
    result = []
    for old, new, part in zip(before, after, share, strict=True):
        moved = round(part * size)
        pair = (new, old) if turned else (old, new)
        both = np.concatenate(pair, axis=axis - 1)
        start = size - moved if turned else moved
        result.append(np.take(both, np.arange(start, start + size), axis=axis - 1))
    return np.stack(result)
