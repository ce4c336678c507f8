"""Procedurally rendered clips of one moving shape: the data that every installation has.

Two tasks of ten classes each, on the same kind of scene:

* ``shapes``: *what* moves. How it moves is drawn independently of the label.
* ``motions``: *how* it moves. The shape is drawn independently of the label, and the classes come
  in pairs that are each other's time reversal: clip ``2k + 1`` is clip ``2k`` played backwards. A
  model that sees the frames as a set gives both the same answer and is therefore right at most
  half of the time.

What varies from clip to clip: shape, motion, position, size, orientation, speed and its course
over time, weak secondary motions (drift, turn, zoom), a two-tone fill, colours, background
(smooth noise of two scales, stripes), camera shake, a light that changes over time and across the
frame, up to two small moving discs that mean nothing, in half of the clips a bar in front, and
sensor noise. All shapes cover the same area at the same size, and colours are drawn independently
of the label. In `shapes` the shapes are larger, lean up to 23 degrees from upright, and move and
turn less than in `motions`.

A scene is drawn in units of the frame, so one index shows the same scene at every size and frame
count (the sensor noise excepted). Frames are rendered from signed distance functions with
antialiased edges, in single precision.
"""

import dataclasses
import math

import numpy as np

SPLITS = ("train", "val", "test")
CLASSES: dict[str, tuple[str, ...]] = {
    "shapes": (
        "disc",
        "ring",
        "bar",
        "triangle",
        "star",
        "cross",
        "heart",
        "crescent",
        "arrow",
        "hourglass",
    ),
    # Each class of even number is followed by its time reversal.
    "motions": (
        "right",
        "left",
        "down",
        "up",
        "grow",
        "shrink",
        "spin_clockwise",
        "spin_counterclockwise",
        "orbit_clockwise",
        "orbit_counterclockwise",
    ),
}

# How much each outline of `_distance` is enlarged, so that all cover the area of a unit disc.
_SCALE = {
    "disc": 1.0,
    "ring": 1.1547,
    "bar": 1.0233,
    "triangle": 1.5551,
    "star": 1.5953,
    "cross": 1.2410,
    "heart": 1.2319,
    "crescent": 1.4332,
    "arrow": 1.5311,
    "hourglass": 1.4083,
}


def render(
    task: str, split: str, index: int, *, seed: int, size: int = 72, frames: int = 16
) -> tuple[np.ndarray, int]:
    """Renders clip ``index`` of a split.

    Labels go round in the order of ``CLASSES[task]``: any ten consecutive clips hold each class
    once. The same arguments give the same clip; different splits, tasks and seeds share none.

    Args:
        task: "shapes" or "motions".
        split: "train", "val" or "test".
        index: Number of the clip in its split, from 0; there is no upper end.
        seed: Non-negative seed of the whole dataset.
        size: Height and width in pixels.
        frames: Number of frames, spread evenly over the whole motion.

    Returns:
        The clip, uint8 [t h w 3], and its label, a position in ``CLASSES[task]``.

    Raises:
        ValueError: an argument is outside what is listed above.
    """
    if task not in CLASSES:
        raise ValueError(f"moving_shapes has no task {task!r}: choose one of {sorted(CLASSES)}")
    if split not in SPLITS:
        raise ValueError(f"moving_shapes has no split {split!r}: choose one of {SPLITS}")
    if index < 0 or seed < 0:
        raise ValueError(f"index {index} and seed {seed} must both be 0 or more")
    if size < 8 or frames < 1:
        raise ValueError(
            f"a clip of {frames} frames of {size} pixels cannot be rendered: "
            "ask for at least 1 frame of at least 8 pixels"
        )
    label = index % len(CLASSES[task])
    # Clips 2k and 2k + 1 of `motions` are one scene, so they are drawn from one generator.
    scene_index = index // 2 if task == "motions" else index
    rng = np.random.default_rng([seed, list(CLASSES).index(task), SPLITS.index(split), scene_index])
    if task == "motions":
        shape = int(rng.integers(len(CLASSES["shapes"])))
        motion, backwards = label // 2, label % 2 == 1
    else:
        shape = label
        motion, backwards = int(rng.integers(len(CLASSES["motions"]) // 2)), rng.random() < 0.5
    path = _path(rng, CLASSES["motions"][2 * motion], _RANGES[task], _frame_times(frames))
    clip = _render_scene(rng, CLASSES["shapes"][shape], path, size)
    return np.ascontiguousarray(clip[::-1] if backwards else clip), label


@dataclasses.dataclass(frozen=True)
class _Ranges:
    """How large the shape is and how far it moves in a task: ranges of uniform laws.

    Lengths are in units of the frame, angles in radians.
    """

    radius: tuple[float, float]
    """Of the disc of the same area."""
    tilt: float
    """Largest angle from upright in the middle of the clip, either way."""
    travel: tuple[float, float]
    """Way of the straight motions."""
    orbit: tuple[float, float]
    """Radius of the orbits."""
    spin: tuple[float, float]
    """Angle through which the spinning shapes turn."""
    drift: float
    """Largest way along each axis in motions that are about something else."""
    turn: float
    """Largest angle of turning in motions that are about something else."""


_RANGES = {
    "shapes": _Ranges((0.17, 0.23), 0.4, (0.21, 0.36), (0.09, 0.13), (0.6, 1.4), 0.06, 0.3),
    "motions": _Ranges((0.14, 0.19), np.pi, (0.35, 0.60), (0.15, 0.22), (3.0, 5.6), 0.10, 0.6),
}


@dataclasses.dataclass(frozen=True)
class _Path:
    """Where the shape is at each frame, in units of the frame; all float32 [t]."""

    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    angle: np.ndarray


def _frame_times(frames: int) -> np.ndarray:
    """Times of the frames in [0, 1], float32 [t]; playing backwards is time -> 1 - time."""
    return ((np.arange(frames) + 0.5) / frames).astype(np.float32)


def _path(rng: np.random.Generator, motion: str, ranges: _Ranges, time: np.ndarray) -> _Path:
    """One of the forward motions with weak secondary motions.

    Every quantity is a function of `progress`, whose law is its own time reversal, or a symmetric
    random drift; so the reversal of a path is distributed as a path of the opposite class.
    """
    # Progress from 0 to 1, monotone: eased at both ends or in the middle, and faster early or late.
    ease, skew = rng.uniform(-0.6, 0.6), rng.uniform(-0.35, 0.35)
    progress = time + ease / (2 * np.pi) * np.sin(2 * np.pi * time) + skew * time * (1 - time)
    progress = progress - 0.5
    x, y = rng.uniform(0.36, 0.64, 2)
    drift_x, drift_y, turn, zoom = rng.uniform(-1, 1, 4)
    x_path = x + ranges.drift * drift_x * (time - 0.5)
    y_path = y + ranges.drift * drift_y * (time - 0.5)
    angle = rng.uniform(-ranges.tilt, ranges.tilt)
    angle_path = angle + ranges.turn * turn * (time - 0.5)
    log_radius = math.log(rng.uniform(*ranges.radius))
    log_radius_path = log_radius + 0.12 * zoom * (time - 0.5)
    if motion == "right":
        x_path = rng.uniform(0.44, 0.56) + rng.uniform(*ranges.travel) * progress
    elif motion == "down":
        y_path = rng.uniform(0.44, 0.56) + rng.uniform(*ranges.travel) * progress
    elif motion == "grow":
        log_radius_path = log_radius + rng.uniform(0.6, 0.9) * progress
    elif motion == "spin_clockwise":
        # The y axis points down, so that a growing angle turns clockwise on the screen.
        angle_path = angle + rng.uniform(*ranges.spin) * progress
    elif motion == "orbit_clockwise":
        phase = 2 * np.pi * (rng.random() + rng.uniform(0.6, 1.0) * progress)
        radius = rng.uniform(*ranges.orbit)
        x_path = rng.uniform(0.44, 0.56) + radius * np.cos(phase)
        y_path = rng.uniform(0.44, 0.56) + radius * np.sin(phase)
    paths = (x_path, y_path, np.exp(log_radius_path), angle_path)
    return _Path(*(path.astype(np.float32) for path in paths))


def _render_scene(rng: np.random.Generator, shape: str, path: _Path, size: int) -> np.ndarray:
    """Paints background, discs, shape, bar, light and noise, in this order: uint8 [t h w 3]."""
    time = _frame_times(len(path.x))
    shake_x, shake_y = _shake(rng, time), _shake(rng, time)
    pixels = ((np.arange(size) + 0.5) / size).astype(np.float32)
    x = pixels - shake_x[:, None]  # [t w], the scene's coordinate of each pixel column
    y = pixels - shake_y[:, None]  # [t h]

    background_light = rng.uniform(0.22, 0.78)
    clip = _background(rng, x, y, background_light)
    for _ in range(int(rng.integers(3))):
        _paint_disc(clip, rng, time, x, y)
    _paint_shape(clip, rng, shape, path, x, y, background_light)
    if rng.random() < 0.5:
        _paint_bar(clip, rng, x, y, background_light)
    _light(clip, rng, time, pixels)
    return _quantise(clip, rng)


def _shake(rng: np.random.Generator, time: np.ndarray) -> np.ndarray:
    """Displacement of the camera along one axis, in units of the frame: float32 [t]."""
    amplitude = rng.uniform(0.0, 0.012, 2)
    frequency, phase = rng.uniform((1, 3), (3, 7)), rng.random(2)
    waves = np.sin(2 * np.pi * (frequency * time[:, None] + phase))
    return (waves @ amplitude).astype(np.float32)


def _background(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, light: float) -> np.ndarray:
    """Noise of two scales and stripes around one colour: float32 [3 t h w], 0 to 1.

    All of it is a sum of products f(y) g(x), so a frame is two small matrix products and camera
    shake only moves the points at which f and g are evaluated.
    """
    coarse, fine = 3, int(rng.integers(8, 17))
    frequency = rng.uniform(4, 10) * 2 * np.pi
    direction, phase = rng.uniform(0, 2 * np.pi, 2)
    stripes_x = _waves(x * np.float32(frequency * math.cos(direction)))
    stripes_y = _waves(y * np.float32(frequency * math.sin(direction)) + np.float32(phase))
    basis_x = np.concatenate([_hats(x, coarse), _hats(x, fine), stripes_x], axis=2)  # [t w n]
    basis_y = np.concatenate([_hats(y, coarse), _hats(y, fine), stripes_y], axis=2)  # [t h n]

    strength = rng.uniform((0.03, 0.02, 0.0), (0.10, 0.07, 0.06))
    tint = 1 + 0.35 * rng.uniform(-1, 1, (3, 3))  # per layer and colour channel
    knots = basis_x.shape[2]
    weights = np.zeros((knots, 3, knots), np.float32)  # [y knot, colour, x knot]
    first, second = slice(0, coarse + 3), slice(coarse + 3, knots - 2)
    for layer, part in enumerate((first, second)):
        noise = rng.uniform(-1, 1, (part.stop - part.start,) * 2)
        weights[part, :, part] = noise[:, None, :] * (strength[layer] * tint[layer])[:, None]
    # sin(a + b) = sin a cos b + cos a sin b, with the pair (sin, cos) as the last two knots.
    stripe = strength[2] * tint[2]
    weights[-2, :, -1] = weights[-1, :, -2] = stripe
    base = light + 0.15 * rng.uniform(-1, 1, 3)
    weights[first, :, first] += base.astype(np.float32)[:, None]  # the hats sum to one

    along_x = basis_x @ weights.reshape(knots * 3, knots).T  # [t w (y knot, colour)]
    frames, width = x.shape
    along_x = along_x.reshape(frames, width, knots, 3).transpose(3, 0, 2, 1)  # [3 t knot w]
    return basis_y @ np.ascontiguousarray(along_x)


def _hats(position: np.ndarray, cells: int) -> np.ndarray:
    """Smoothed linear interpolation between `cells + 3` knots, one cell beyond both edges."""
    knots = np.arange(-1, cells + 2, dtype=np.float32)
    hat = np.clip(1 - np.abs(position[:, :, None] * np.float32(cells) - knots), 0, 1)
    return hat * hat * (3 - 2 * hat)


def _waves(angle: np.ndarray) -> np.ndarray:
    """Sine and cosine in a last axis of two."""
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1)


def _paint_shape(
    clip: np.ndarray,
    rng: np.random.Generator,
    shape: str,
    path: _Path,
    x: np.ndarray,
    y: np.ndarray,
    background_light: float,
) -> None:
    """Paints the shape that the label is about, in two tones split along a line through it."""
    # Lighter or darker than the background, wherever there is room for the difference.
    nearer = rng.uniform(0.22, 0.36)
    contrasts = (nearer, nearer + rng.uniform(0.12, 0.20))
    sign = 1 if rng.uniform(0.4, 0.6) > background_light else -1
    colour = background_light + 0.2 * rng.uniform(-1, 1, 3)
    first, second = (
        colour + sign * contrast + 0.06 * rng.uniform(-1, 1, 3)
        for contrast in (contrasts if rng.random() < 0.5 else contrasts[::-1])
    )

    radius, cosine, sine = path.radius, np.cos(path.angle), np.sin(path.angle)
    # Pixel coordinates relative to the centre, in radii, turned into the shape's own axes.
    dx = ((x - path.x[:, None]) / radius[:, None])[:, None, :]
    dy = ((y - path.y[:, None]) / radius[:, None])[:, :, None]
    u = cosine[:, None, None] * dx + sine[:, None, None] * dy
    v = cosine[:, None, None] * dy - sine[:, None, None] * dx
    pixels_per_radius = (radius * clip.shape[2])[:, None, None]
    tone = _coverage(v - np.float32(rng.uniform(-0.25, 0.25)), pixels_per_radius)
    scale = np.float32(_SCALE[shape])
    cover = _coverage(_distance(shape, u / scale, v / scale) * scale, pixels_per_radius)
    for channel, (start, end) in enumerate(zip(first, second, strict=True)):
        _blend(clip[channel], cover, tone * np.float32(end - start) + np.float32(start))


def _paint_disc(
    clip: np.ndarray, rng: np.random.Generator, time: np.ndarray, x: np.ndarray, y: np.ndarray
) -> None:
    """Paints a small disc that moves on a line, whatever the label is."""
    centre, velocity = rng.uniform(0.1, 0.9, 2), rng.uniform(-0.3, 0.3, 2)
    radius, colour = rng.uniform(0.02, 0.04), rng.uniform(0, 1, 3)
    place = (centre + velocity * (time[:, None] - 0.5)).astype(np.float32)
    distance = np.hypot((x - place[:, :1])[:, None, :], (y - place[:, 1:])[:, :, None])
    cover = _coverage(distance - np.float32(radius), np.float32(clip.shape[2]))
    for channel in range(3):
        _blend(clip[channel], cover, np.float32(colour[channel]))


def _paint_bar(
    clip: np.ndarray, rng: np.random.Generator, x: np.ndarray, y: np.ndarray, light: float
) -> None:
    """Paints a straight bar that stands still in the scene and hides what is behind it."""
    direction, offset = rng.uniform(0, 2 * np.pi), rng.uniform(-0.4, 0.4)
    half_width, colour = rng.uniform(0.015, 0.03), light + 0.25 * rng.uniform(-1, 1, 3)
    along_x = (x - np.float32(0.5)) * np.float32(math.cos(direction))
    along_y = (y - np.float32(0.5)) * np.float32(math.sin(direction)) - np.float32(offset)
    distance = np.abs(along_x[:, None, :] + along_y[:, :, None]) - np.float32(half_width)
    cover = _coverage(distance, np.float32(clip.shape[2]))
    for channel in range(3):
        _blend(clip[channel], cover, np.float32(colour[channel]))


def _light(
    clip: np.ndarray, rng: np.random.Generator, time: np.ndarray, pixels: np.ndarray
) -> None:
    """Multiplies by a light that changes over time and falls off in a direction."""
    strength, frequency, phase = rng.uniform((0, 0.3, 0), (0.2, 1.5, 1))
    direction, slope = rng.uniform((0, 0), (2 * np.pi, 0.4))
    over_time = 0.92 + strength * np.sin(2 * np.pi * (frequency * (time - 0.5) + phase))
    gain_x = (slope * math.cos(direction) * (pixels - 0.5)).astype(np.float32)
    gain_y = (slope * math.sin(direction) * (pixels - 0.5)).astype(np.float32)
    gain = (over_time.astype(np.float32)[:, None] + gain_y)[:, :, None] + gain_x
    clip *= gain


def _quantise(clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Adds sensor noise and rounds: float [3 t h w], 0 to 1 -> uint8 [t h w 3]."""
    amplitude = rng.uniform(0, 6)
    noise = rng.integers(0, 256, clip.shape[1:], dtype=np.uint8) * np.float32(amplitude / 255)
    clip *= 255
    clip += noise + np.float32(0.5 - amplitude / 2)
    np.clip(clip, 0, 255, out=clip)
    return np.ascontiguousarray(clip.astype(np.uint8).transpose(1, 2, 3, 0))


def _blend(target: np.ndarray, cover: np.ndarray, colour: np.ndarray | np.float32) -> None:
    target += cover * (colour - target)


def _coverage(distance: np.ndarray, pixels_per_unit: np.ndarray | np.float32) -> np.ndarray:
    """Share of each pixel inside, from the signed distance of its centre (negative inside)."""
    return np.clip(np.float32(0.5) - distance * pixels_per_unit, 0, 1)


def _distance(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Signed distance to the outline near it, negative inside; u points right, v down.

    Half planes joined by minimum and maximum: exact at the edges, rounded nowhere. Each shape is
    its own mirror image in u, hence `side`.
    """
    side = np.abs(u)
    if shape == "disc":
        return np.hypot(u, v) - 1
    if shape == "ring":
        return np.abs(np.hypot(u, v) - 0.75) - 0.25
    if shape == "bar":
        return np.maximum(side - 0.5, np.abs(v) - 1.5)
    if shape == "triangle":
        return np.maximum(v, 0.8660254 * side - 0.5 * v) - 0.5
    if shape == "star":
        return _star_distance(side, v)
    if shape == "cross":
        height = np.abs(v)
        return np.maximum(np.minimum(side, height) - 0.3, np.maximum(side, height) - 1)
    if shape == "heart":
        v = v - 0.205  # centre of gravity to the origin
        diamond = 0.70710678 * (side + np.abs(v) - 0.8)
        lobed = np.minimum(diamond, np.hypot(side - 0.4, v + 0.4) - 0.56568542)
        return np.maximum(lobed, 0.89442719 * (0.5 * (-0.25 - v) - side))  # a deep notch
    if shape == "crescent":
        v = v - 0.386  # centre of gravity to the origin
        return np.maximum(np.hypot(u, v) - 1, 0.8 - np.hypot(u, v - 0.5))
    if shape == "arrow":
        head = np.maximum(0.76822128 * side - 0.6401844 * (v + 1), v + 0.05)
        shaft = np.maximum(side - 0.28, np.abs(v - 0.4) - 0.6)
        return np.minimum(head, shaft)
    if shape == "hourglass":
        height = np.abs(v)
        return np.maximum(height - 0.9, 0.78086881 * (side - 0.08) - 0.62469505 * height)
    raise ValueError(f"moving_shapes has no shape {shape!r}")


def _star_distance(side: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A five-pointed star, one tip at v = 1: folded into half a tip, it is one half plane."""
    cosine, sine = 0.80901699, 0.58778525  # of 36 degrees
    fold = 2 * np.maximum(cosine * side - sine * v, 0)
    side, v = side - fold * cosine, v + fold * sine
    fold = 2 * np.maximum(-cosine * side - sine * v, 0)
    side, v = np.abs(side + fold * cosine), v + fold * sine
    inner_side, inner_v = 0.42 * sine, 0.42 * cosine
    length = math.hypot(inner_side, 1 - inner_v)
    return (side * (1 - inner_v) + (v - 1) * inner_side) / length
