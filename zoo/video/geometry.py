"""Where the pixels of a clip go: crop, flip, resize, rotate and general affine sampling.

Every function takes one clip [t h w c] of uint8 or floats, treats all its frames alike, and may
be jitted and vmapped. Cropping and flipping keep the dtype; resampling gives float32 in the units
of the input. Points are (y, x) in pixels from the top left corner, and pixel i covers [i, i + 1).
"""

import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Num

Clip = Num[Array, "t h w c"]
Scalar = float | Num[Array, ""]

# An affine map of points as a homogeneous matrix: input (y, x, 1) = map @ output (y, x, 1).
Map = Float[Array, "3 3"]

_ATTEMPTS = 10
BOX_DRAWS = 2 * _ATTEMPTS + 2  # area and aspect of each try, then the place


def crop(clip: Clip, top: Scalar, left: Scalar, size: tuple[int, int]) -> Clip:
    """The box of `size` whose corner is at (top, left), whole numbers that may be traced.

    Raises ValueError where the frames are smaller than the box.
    """
    t, h, w, c = clip.shape
    if size[0] > h or size[1] > w:
        raise ValueError(
            f"a crop of {size[0]}x{size[1]} does not fit frames of {h}x{w}; resize them first"
        )
    return lax.dynamic_slice(clip, (0, top, left, 0), (t, *size, c))


def center_crop(clip: Clip, size: tuple[int, int]) -> Clip:
    """The box of `size` in the middle of the frames."""
    _, h, w, _ = clip.shape
    return crop(clip, (h - size[0]) // 2, (w - size[1]) // 2, size)


def random_corner(draws: Float[Array, "2"], slack: tuple[int, int]) -> Int[Array, "2"]:
    """A corner (top, left) from (0, 0) to `slack` for two numbers uniform in [0, 1)."""
    return _whole(draws, jnp.array(slack) + 1)


def _whole(draws: Float[Array, "n"], count: Num[Array, "n"]) -> Int[Array, "n"]:
    """Whole numbers below `count`, all equally likely, from draws uniform in [0, 1)."""
    return jnp.minimum((draws * count).astype(jnp.int32), count - 1)


def spatial_crops(clip: Clip, size: tuple[int, int], views: int) -> Num[Array, "v t h w c"]:
    """`views` boxes of `size`, evenly spread along the longer side and centred on the other.

    Three views are the left, centre and right crops (top, centre, bottom of tall frames) that
    video networks are tested with (Feichtenhofer et al. 2019, SlowFast).
    """
    if views < 1:
        raise ValueError(f"the number of spatial views is {views}; it must be at least 1")
    if views == 1:
        return center_crop(clip, size)[None]
    _, h, w, _ = clip.shape
    slack_y, slack_x = h - size[0], w - size[1]
    crops = []
    for view in range(views):
        if slack_x >= slack_y:
            top, left = slack_y // 2, round(view * slack_x / (views - 1))
        else:
            top, left = round(view * slack_y / (views - 1)), slack_x // 2
        crops.append(crop(clip, top, left, size))
    return jnp.stack(crops)


def flip(clip: Clip, horizontal: Bool[Array, ""] | bool, vertical: Bool[Array, ""] | bool) -> Clip:
    """Mirrors left and right, top and bottom, or both; the conditions may be traced."""
    if horizontal is not False:
        clip = jnp.where(horizontal, clip[:, :, ::-1], clip)
    if vertical is not False:
        clip = jnp.where(vertical, clip[:, ::-1], clip)
    return clip


def resized_crop(
    clip: Clip, top: Scalar, left: Scalar, height: Scalar, width: Scalar, size: tuple[int, int]
) -> Float[Array, "t h w c"]:
    """Scales a box of the frames to `size`, bilinearly, with a wider filter where it shrinks.

    Equals torchvision's and Pillow's crop followed by their antialiased bilinear resize, up to
    rounding. The box may be traced; it must lie inside the frames.
    """
    _, h, w, _ = clip.shape
    rows, row_weights = _taps(h, top, height, size[0])
    columns, column_weights = _taps(w, left, width, size[1])

    def scale(frame: Num[Array, "h w c"]) -> Float[Array, "y x c"]:
        frame = frame.astype(jnp.float32)
        tall = frame[rows[0]] * row_weights[0, :, None, None]
        for row, weight in zip(rows[1:], row_weights[1:], strict=True):
            tall = tall + frame[row] * weight[:, None, None]
        result = tall[:, columns[0]] * column_weights[0, :, None]
        for column, weight in zip(columns[1:], column_weights[1:], strict=True):
            result = result + tall[:, column] * weight[:, None]
        return result

    # Frame by frame, because XLA would otherwise compute the weights anew for every pixel.
    return lax.map(scale, clip)


def _taps(
    length: int, start: Scalar, extent: Scalar, out: int
) -> tuple[Int[Array, "taps out"], Float[Array, "taps out"]]:
    """The pixels that each output pixel is a weighted mean of, and the weights."""
    scale = extent / out
    radius = jnp.maximum(scale, 1.0)
    count = math.ceil(2 * max(length / out, 1.0))  # of the whole length, the widest box
    centers = start + (jnp.arange(out) + 0.5) * scale
    pixels = jnp.floor(centers - radius + 0.5).astype(jnp.int32) + jnp.arange(count)[:, None]
    middles = pixels + 0.5
    weights = jnp.maximum(0.0, 1.0 - jnp.abs(middles - centers) / radius)
    weights = jnp.where((middles > start) & (middles < start + extent), weights, 0.0)
    return jnp.clip(pixels, 0, length - 1), weights / weights.sum(axis=0)


def resize(clip: Clip, size: tuple[int, int]) -> Float[Array, "t h w c"]:
    """Scales the frames to (height, width); see `resized_crop`."""
    _, h, w, _ = clip.shape
    return resized_crop(clip, 0, 0, h, w, size)


def resize_short_side(clip: Clip, pixels: int) -> Clip:
    """Scales the frames, aspect kept, until the shorter side has this many pixels."""
    _, h, w, _ = clip.shape
    if min(h, w) == pixels:
        return clip
    scale = pixels / min(h, w)
    return resize(clip, (round(h * scale), round(w * scale)))


def cover(clip: Clip, size: tuple[int, int]) -> Clip:
    """Enlarges the frames just enough for a crop of `size`; large enough ones stay as they are."""
    _, h, w, _ = clip.shape
    scale = max(size[0] / h, size[1] / w)
    if scale <= 1:
        return clip
    return resize(clip, (max(size[0], round(h * scale)), max(size[1], round(w * scale))))


def random_box(
    draws: Float[Array, "22"],
    frame: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[Int[Array, "4"], Bool[Array, ""]]:
    """A random box (top, left, height, width) of a frame, and whether one was found.

    `draws` are BOX_DRAWS numbers uniform in [0, 1). The area is uniform in `scale` as a share of
    the frame, the aspect width / height uniform in `ratio` on a logarithmic scale, the place
    uniform. Of ten tries the first that fits is taken (torchvision RandomResizedCrop and
    RandomErasing); where none fits the box is meaningless.
    """
    h, w = frame
    areas = (scale[0] + draws[:_ATTEMPTS] * (scale[1] - scale[0])) * h * w
    low, high = math.log(ratio[0]), math.log(ratio[1])
    ratios = jnp.exp(low + draws[_ATTEMPTS : 2 * _ATTEMPTS] * (high - low))
    heights = jnp.round(jnp.sqrt(areas / ratios)).astype(jnp.int32)
    widths = jnp.round(jnp.sqrt(areas * ratios)).astype(jnp.int32)
    fits = (heights > 0) & (widths > 0) & (heights <= h) & (widths <= w)
    first = jnp.argmax(fits)
    extent = jnp.stack([heights[first], widths[first]])
    slack = jnp.maximum(jnp.array(frame) - extent, 0)
    corner = _whole(draws[2 * _ATTEMPTS :], slack + 1)
    return jnp.concatenate([corner, extent]), fits[first]


def random_crop_box(
    draws: Float[Array, "22"],
    frame: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Int[Array, "4"]:
    """`random_box`, or the largest centred box of an allowed aspect where none was found."""
    h, w = frame
    box, found = random_box(draws, frame, scale, ratio)
    height = min(h, round(w / ratio[0]))
    width = min(w, round(h * ratio[1]))
    central = jnp.array([(h - height) // 2, (w - width) // 2, height, width])
    return jnp.where(found, box, central)


def inside(length: int, start: Scalar, end: Scalar) -> Bool[Array, "length"]:
    """Which of so many pixels in a row have their middle between start and end."""
    middles = jnp.arange(length) + 0.5
    return (middles > start) & (middles < end)


def translation(y: Scalar, x: Scalar) -> Map:
    """Output point p shows what was at p + (y, x)."""
    return jnp.eye(3).at[0, 2].set(y).at[1, 2].set(x)


def scaling(y: Scalar, x: Scalar) -> Map:
    """Output point p shows what was at (y * p_y, x * p_x); -1 mirrors."""
    return jnp.eye(3).at[0, 0].set(y).at[1, 1].set(x)


def shearing(y: Scalar, x: Scalar) -> Map:
    """Output point p shows what was at (p_y + y * p_x, p_x + x * p_y)."""
    return jnp.eye(3).at[0, 1].set(y).at[1, 0].set(x)


def rotation(degrees: Scalar) -> Map:
    """Turns what is seen counter-clockwise around the origin."""
    cos, sin = jnp.cos(jnp.deg2rad(degrees)), jnp.sin(jnp.deg2rad(degrees))
    return jnp.eye(3).at[:2, :2].set(jnp.array([[cos, sin], [-sin, cos]]))


def compose(*maps: Map) -> Map:
    """The map that applies the last one to the output's point first, the first one last."""
    result = maps[0]
    for following in maps[1:]:
        result = jnp.matmul(result, following, precision=lax.Precision.HIGHEST)
    return result


def sample(
    clip: Clip,
    to_input: Map,
    size: tuple[int, int],
    *,
    fill: float | Float[Array, "c"] = 0.0,
    supersample: int = 1,
) -> Float[Array, "t h w c"]:
    """Frames of `size` whose points show what `to_input` maps them to, bilinearly interpolated.

    Outside the frames everything is `fill`. `supersample` n averages n x n samples in a pixel,
    against aliasing where the map shrinks by about n.
    """
    height, width = size[0] * supersample, size[1] * supersample
    ys = (jnp.arange(height) + 0.5) / supersample
    xs = (jnp.arange(width) + 0.5) / supersample
    rows = to_input[0, 0] * ys[:, None] + to_input[0, 1] * xs + to_input[0, 2] - 0.5
    columns = to_input[1, 0] * ys[:, None] + to_input[1, 1] * xs + to_input[1, 2] - 0.5
    _, h, w, c = clip.shape
    fill = jnp.asarray(fill, jnp.float32)
    taps = []
    for y in (jnp.floor(rows), jnp.floor(rows) + 1):
        for x in (jnp.floor(columns), jnp.floor(columns) + 1):
            within = (y >= 0) & (y < h) & (x >= 0) & (x < w)
            weight = (1 - jnp.abs(rows - y)) * (1 - jnp.abs(columns - x)) * within
            taps.append((_pixel(y, h), _pixel(x, w), weight[..., None]))
    outside = 1 - sum(weight for _, _, weight in taps)

    def look(frame: Num[Array, "h w c"]) -> Float[Array, "y x c"]:
        result = outside * fill
        for row, column, weight in taps:
            result = result + frame[row, column].astype(jnp.float32) * weight
        if supersample > 1:
            shape = (size[0], supersample, size[1], supersample, c)
            result = result.reshape(shape).mean((1, 3))
        return result

    # Frame by frame, because XLA would otherwise compute the places anew for every pixel.
    return lax.map(look, clip)


def _pixel(position: Float[Array, "y x"], length: int) -> Int[Array, "y x"]:
    return jnp.clip(position, 0, length - 1).astype(jnp.int32)


def rotate(
    clip: Clip, degrees: Scalar, *, fill: float | Float[Array, "c"] = 0.0
) -> Float[Array, "t h w c"]:
    """Turns the frames counter-clockwise around their centre, corners filled with `fill`.

    The same as torchvision's rotate with bilinear interpolation and no expansion.
    """
    _, h, w, _ = clip.shape
    to_input = compose(translation(h / 2, w / 2), rotation(degrees), translation(-h / 2, -w / 2))
    return sample(clip, to_input, (h, w), fill=fill)
