"""Single shots at 27x48 for composing sequences: pieces of real clips and drawn scenes.

Both are seen by a camera that pans, zooms and shakes, and both may hold what detectors of shot
boundaries fall for: flashes, whip pans, overlays, strobes, passing objects, changes of exposure.
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from zoo import video
from zoo.tasks.shots.signals import HEIGHT, WIDTH

# Real clips are kept at this size, so that a camera can move inside them.
SOURCE = (54, 96)
_PANORAMA = (81, 288)


def load(paths: Sequence[pathlib.Path], most: int = 300) -> list[np.ndarray]:
    """The clips, uint8 [t 54 96 3], at most so many frames of each; broken ones are left out."""
    requests = [video.ClipRequest(path, frames=most) for path in paths]
    clips = video.decode_many(requests, size=SOURCE)
    return [clip.frames for clip in clips if isinstance(clip, video.Clip)]


def real_shot(rng: np.random.Generator, clip: np.ndarray, frames: int) -> np.ndarray:
    """A part of a clip, forwards or backwards, there and back again where it is too short."""
    speed = int(rng.integers(1, 3)) if len(clip) > 2 * frames else 1
    steps = (int(rng.integers(len(clip))) + speed * np.arange(frames)) % (2 * len(clip) - 1)
    picked = clip[np.minimum(steps, 2 * len(clip) - 2 - steps)]
    if rng.random() < 0.5:
        picked = picked[:, :, ::-1]
    return _filmed(rng, lambda k: picked[k], frames, SOURCE)


def drawn_shot(rng: np.random.Generator, frames: int) -> np.ndarray:
    """A random landscape with moving things in it."""
    ground = _texture(rng, _PANORAMA)
    things = [_thing(rng, frames) for _ in range(int(rng.integers(0, 5)))]
    if not things:
        return _filmed(rng, lambda k: ground, frames, _PANORAMA)
    ys, xs = np.mgrid[: _PANORAMA[0], : _PANORAMA[1]]

    def scene(k: int) -> np.ndarray:
        image = ground.copy()
        for colour, texture, path, radii, square in things:
            dy, dx = (ys - path[k, 0]) / radii[0], (xs - path[k, 1]) / radii[1]
            inside = np.maximum(abs(dy), abs(dx)) < 1 if square else dy**2 + dx**2 < 1
            image[inside] = np.clip(colour + texture[inside], 0, 255)
        return image

    return _filmed(rng, scene, frames, _PANORAMA)


def _texture(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Smooth noise of several scales in a few colours, uint8 [h w 3]."""
    h, w = size
    image = np.zeros((h, w, 3))
    for cells, weight in ((2, 1.0), (5, 0.7), (12, 0.5), (30, 0.35)):
        coarse = rng.standard_normal((cells + 2, cells * 2 + 2, 1 if rng.random() < 0.4 else 3))
        rows = np.linspace(0, cells, h)
        columns = np.linspace(0, 2 * cells, w)
        sharp = rng.random() < 0.3
        image = image + weight * rng.uniform(0, 1) * _bilinear(coarse, rows, columns, sharp)
    image = image - image.mean()
    image *= rng.uniform(15, 70) / (image.std() + 1e-6)
    return np.clip(image + rng.uniform(30, 220, 3), 0, 255).astype(np.uint8)


def _thing(rng: np.random.Generator, frames: int) -> tuple:
    """Colour, texture, path, radii and shape of something that moves."""
    start = rng.uniform((0, 60), (_PANORAMA[0], 220))
    speed = rng.normal(0, 0.5, 2) * rng.choice([0.2, 1, 3])
    wobble = np.cumsum(rng.normal(0, 0.3, (frames, 2)), axis=0)
    path = start + speed * np.arange(frames)[:, None] + wobble
    texture = _texture(rng, _PANORAMA).astype(np.int16) - 128
    return rng.uniform(0, 255, 3), texture, path, rng.uniform(4, 26, 2), rng.random() < 0.5


def _filmed(rng: np.random.Generator, scene, frames: int, size: tuple[int, int]) -> np.ndarray:  # noqa: ANN001
    """What a camera sees, uint8 [frames 27 48 3]: scene(k) is the whole picture at frame k."""
    h, w = size
    drift = rng.choice([0.0, 0.3, 1.0, 2.5], p=[0.35, 0.35, 0.2, 0.1])
    velocity = rng.normal(0, drift, 2) * (0.4, 1.0)
    shake = rng.choice([0.0, 0.3, 1.2], p=[0.5, 0.35, 0.15])
    zoom = np.exp(rng.normal(0, 0.003) * np.arange(frames)) * rng.uniform(0.6, 1.0)
    whip = np.zeros(frames)
    if rng.random() < 0.12:
        begin, length = int(rng.integers(frames)), int(rng.integers(3, 10))
        whip[begin : begin + length] = rng.choice([-1, 1]) * rng.uniform(4, 14)
    centre = np.array([h, w]) / 2 + np.cumsum(
        velocity + rng.normal(0, shake, (frames, 2)) + np.stack([0 * whip, whip], 1), axis=0
    )
    result = np.empty((frames, HEIGHT, WIDTH, 3))
    for k in range(frames):
        tall = min(h, w * HEIGHT / WIDTH) * np.clip(zoom[k], 0.35, 1.0)
        wide = tall * WIDTH / HEIGHT
        # The camera turns back at the edges of the picture.
        y = _reflected(centre[k, 0] - tall / 2, h - tall)
        x = _reflected(centre[k, 1] - wide / 2, w - wide)
        rows = y + (np.arange(HEIGHT) + 0.5) * tall / HEIGHT - 0.5
        columns = x + (np.arange(WIDTH) + 0.5) * wide / WIDTH - 0.5
        result[k] = _bilinear(scene(k), np.clip(rows, 0, h - 1), np.clip(columns, 0, w - 1))
    for k in np.flatnonzero(whip):
        result[k] = (result[k] + np.roll(result[k], 2, 1) + np.roll(result[k], -2, 1)) / 3
    return _graded(rng, result)


def _reflected(value: float, room: float) -> float:
    if room <= 0:
        return 0.0
    value = value % (2 * room)
    return min(value, 2 * room - value)


def _bilinear(
    image: np.ndarray, rows: np.ndarray, columns: np.ndarray, nearest: bool = False
) -> np.ndarray:
    """The image at all pairs of rows and columns."""
    if nearest:
        return image[np.rint(rows).astype(int)][:, np.rint(columns).astype(int)]
    y, x = np.floor(rows).astype(int), np.floor(columns).astype(int)
    y1, x1 = np.minimum(y + 1, image.shape[0] - 1), np.minimum(x + 1, image.shape[1] - 1)
    v, u = (rows - y)[:, None, None], (columns - x)[None, :, None]
    top, low = image[y].astype(np.float32), image[y1].astype(np.float32)
    tall = top * (1 - v) + low * v
    return tall[:, x] * (1 - u) + tall[:, x1] * u


def _graded(rng: np.random.Generator, shot: np.ndarray) -> np.ndarray:
    """Colours, contrast and noise of another camera."""
    shot = shot / 255
    if rng.random() < 0.15:
        shot = np.repeat(shot.mean(-1, keepdims=True), 3, -1)
    shot = np.clip(shot, 0, 1) ** np.exp(rng.normal(0, 0.35))
    shot = (shot - 0.5) * rng.uniform(0.5, 1.3) + 0.5 + rng.normal(0, 0.08)
    shot = shot * np.exp(rng.normal(0, 0.08, 3)) + rng.normal(0, 0.004 * rng.random(), shot.shape)
    return (255 * np.clip(shot, 0, 1)).astype(np.uint8)


def disturbed(rng: np.random.Generator, shot: np.ndarray) -> np.ndarray:
    """The shot with things in it that are no boundary."""
    shot = shot.astype(np.float32)
    frames = len(shot)
    for spoil in (_flash, _strobe, _overlay, _exposure, _passing, _doubled):
        if rng.random() < 0.1:
            shot = spoil(rng, shot, frames)
    return np.clip(shot, 0, 255).astype(np.uint8)


def _flash(rng: np.random.Generator, shot: np.ndarray, frames: int) -> np.ndarray:
    begin, length = int(rng.integers(frames)), int(rng.integers(1, 5))
    weight = np.linspace(rng.uniform(0.4, 1), rng.uniform(0.2, 1), length)[:, None, None, None]
    mask = np.ones((1, HEIGHT, WIDTH, 1))
    if rng.random() < 0.4:
        mask = mask * np.linspace(1, rng.random(), WIDTH)[None, None, :, None]
    colour = 255.0 if rng.random() < 0.8 else 0.0
    part = shot[begin : begin + length]
    blend = (weight * mask)[: len(part)]
    shot[begin : begin + length] = part * (1 - blend) + colour * blend
    return shot


def _strobe(rng: np.random.Generator, shot: np.ndarray, frames: int) -> np.ndarray:
    begin, length = int(rng.integers(frames)), int(rng.integers(6, 30))
    period = int(rng.integers(2, 6))
    gain = np.where(np.arange(frames) // period % 2, rng.uniform(1.3, 2.0), 1.0)
    gain[:begin] = gain[begin + length :] = 1
    return shot * gain[:, None, None, None]


def _overlay(rng: np.random.Generator, shot: np.ndarray, frames: int) -> np.ndarray:
    begin, length = int(rng.integers(frames)), int(rng.integers(4, 80))
    h, w = int(rng.integers(3, 15)), int(rng.integers(8, 30))
    y, x = int(rng.integers(HEIGHT - h)), int(rng.integers(WIDTH - w))
    colour = rng.uniform(0, 255, 3) + (rng.random((h, w, 1)) < 0.4) * rng.uniform(-255, 255)
    fade = np.minimum(np.arange(1, length + 1) / int(rng.choice([1, 1, 4, 10])), 1)
    part = shot[begin : begin + length, y : y + h, x : x + w]
    weight = fade[: len(part), None, None, None] * rng.uniform(0.6, 1)
    shot[begin : begin + length, y : y + h, x : x + w] = part * (1 - weight) + colour * weight
    return shot


def _exposure(rng: np.random.Generator, shot: np.ndarray, frames: int) -> np.ndarray:
    begin, length = int(rng.integers(frames)), int(rng.integers(4, 40))
    ramp = np.clip((np.arange(frames) - begin) / length, 0, 1)
    return shot * np.exp(ramp * rng.normal(0, 0.35))[:, None, None, None]


def _passing(rng: np.random.Generator, shot: np.ndarray, frames: int) -> np.ndarray:
    """Something dark or light close to the camera crosses the picture."""
    begin, length = int(rng.integers(frames)), int(rng.integers(5, 25))
    wide = int(rng.integers(8, 40))
    colour = rng.uniform(0, 255, 3)
    for k in range(begin, min(begin + length, frames)):
        left = int((k - begin) / length * (WIDTH + wide)) - wide
        shot[k, :, max(left, 0) : max(left + wide, 0)] = colour
    return shot


def _doubled(rng: np.random.Generator, shot: np.ndarray, frames: int) -> np.ndarray:
    """Every n-th frame shown twice, or a still."""
    if rng.random() < 0.5:
        n = int(rng.integers(2, 6))
        return shot[np.arange(frames) - (np.arange(frames) % n == n - 1)]
    begin, length = int(rng.integers(frames)), int(rng.integers(4, 40))
    steps = np.arange(frames)
    steps[begin : begin + length] = begin
    return shot[steps]
