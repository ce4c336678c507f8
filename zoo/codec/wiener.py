"""A filter of decoded pictures that is fitted by least squares: Wiener filters by class of place.

Every sample belongs to one of CLASSES by the activity and the direction of what is around it, as in
the adaptive loop filter of VVC (Tsai et al. 2013; Karczewicz et al. 2021). A class has one weight
for each of FEATURES: sums of opposite differences to the samples around (a point-symmetric filter
of 7x7), the same with large differences faded out, and faded differences to the frames before and
after, which hold other errors of the same picture. What is added to a sample is their weighted sum,
so weights of zero change nothing. Planes are float levels of 8 bits, [h w].
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

_PAIRS = (
    *((0, 1), (0, 2), (0, 3), (1, -2), (1, -1), (1, 0), (1, 1), (1, 2)),
    *((2, -1), (2, 0), (2, 1), (3, 0)),
)
_RING = ((0, 1), (1, 0), (1, 1), (1, -1))
_FADES = (6.0, 20.0)  # Differences from here on, in levels, count nothing.
_ACTIVITY = (40, 100, 220, 500)  # Limits of the classes, in sums of second differences.
_REACH = 3

LINEAR = len(_PAIRS)
SPATIAL = LINEAR + len(_RING)
FEATURES = SPATIAL + 2 * (len(_FADES) + 1)
CLASSES = 3 * (len(_ACTIVITY) + 1)


def _faded(difference: jax.Array, end: float) -> jax.Array:
    return difference * jnp.square(jnp.maximum(0.0, 1.0 - jnp.abs(difference) / end))


def _features(frames: jax.Array) -> jax.Array:
    """Of the middle one of three frames [3 h w]: [FEATURES h w]."""
    h, w = frames.shape[1:]
    padded = jnp.pad(frames, ((0, 0), (_REACH, _REACH), (_REACH, _REACH)), mode="edge")

    def away(frame: int, down: int, right: int) -> jax.Array:
        top, left = _REACH + down, _REACH + right
        return padded[frame, top : top + h, left : left + w] - frames[1]

    found = [away(1, y, x) + away(1, -y, -x) for y, x in _PAIRS]
    near = _FADES[0]
    found += [_faded(away(1, y, x), near) + _faded(away(1, -y, -x), near) for y, x in _RING]
    for frame in (0, 2):
        found += [_faded(away(frame, 0, 0), end) for end in _FADES]
        sides = ((0, 1), (0, -1), (1, 0), (-1, 0))
        found.append(sum((_faded(away(frame, *side), near) for side in sides), jnp.zeros((h, w))))
    return jnp.stack(found)


def classes(frame: jax.Array) -> jax.Array:
    """int32 [h w], by integer arithmetic, so that every machine finds the same."""
    h, w = frame.shape
    levels = jnp.pad(jnp.round(frame).astype(jnp.int32), _REACH, mode="edge")
    middle = 2 * levels[1:-1, 1:-1]
    across = jnp.abs(middle - levels[1:-1, :-2] - levels[1:-1, 2:])
    down = jnp.abs(middle - levels[:-2, 1:-1] - levels[2:, 1:-1])

    def around(x: jax.Array) -> jax.Array:
        rows = sum((x[k : k + h] for k in range(5)), jnp.zeros((h, w + 4), jnp.int32))
        return sum((rows[:, k : k + w] for k in range(5)), jnp.zeros((h, w), jnp.int32))

    across, down = around(across), around(down)
    activity = jnp.searchsorted(jnp.asarray(_ACTIVITY), across + down, side="right")
    direction = jnp.where(across > 2 * down, 1, jnp.where(down > 2 * across, 2, 0))
    return (3 * activity + direction).astype(jnp.int32)


@jax.jit
def _sums(frames: jax.Array, error: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Products of features with each other and with the error, by class."""
    features = _features(frames).reshape(FEATURES, -1)
    chosen = classes(frames[1]).reshape(-1)

    def of_class(number: jax.Array) -> tuple[jax.Array, jax.Array]:
        kept = jnp.where(chosen == number, features, 0.0)
        return kept @ features.T, kept @ error.reshape(-1)

    return jax.lax.map(of_class, jnp.arange(CLASSES))


class Equations:
    """Normal equations of the weights of one plane.

    Attributes:
      products: float64 [CLASSES FEATURES FEATURES].
      wanted: float64 [CLASSES FEATURES].
    """

    def __init__(self) -> None:
        self.products = np.zeros((CLASSES, FEATURES, FEATURES))
        self.wanted = np.zeros((CLASSES, FEATURES))

    def add(self, frames: np.ndarray, original: np.ndarray) -> None:
        """What the middle one of decoded frames [3 h w] should be: original [h w]."""
        decoded = jnp.asarray(frames, jnp.float32)
        products, wanted = _sums(decoded, jnp.asarray(original, jnp.float32) - decoded[1])
        self.products += np.asarray(products, np.float64)
        self.wanted += np.asarray(wanted, np.float64)

    def solved(self, features: int, *, together: bool, step: float) -> np.ndarray:
        """Weights float64 [CLASSES FEATURES], multiples of `step`, of which the first are used.

        together: one filter for all classes.
        """
        weights = np.zeros((CLASSES, FEATURES))
        products, wanted = (x.sum(0) if together else x for x in (self.products, self.wanted))
        for number in range(CLASSES):
            a = products if together else products[number]
            b = wanted if together else wanted[number]
            a, b = a[:features, :features], b[:features]
            # A little more on the diagonal, for classes that hardly occur.
            ridge = np.diag(1e-6 * np.diag(a) + 1e-3)
            weights[number, :features] = np.linalg.solve(a + ridge, b)
        return np.round(np.clip(weights, -127 * step, 127 * step) / step) * step

    def gains(self, weights: np.ndarray) -> np.ndarray:
        """What weights take from the squared error of each class: float64 [CLASSES]."""
        squares = np.einsum("kf,kfg,kg->k", weights, self.products, weights)
        return 2 * (weights * self.wanted).sum(1) - squares


@jax.jit
def _corrected(frames: jax.Array, weights: jax.Array) -> jax.Array:
    features, chosen = _features(frames), classes(frames[1])
    total = frames[1]
    for number in range(FEATURES):
        total += weights[chosen, number] * features[number]
    return total


def three(planes: np.ndarray, place: int) -> np.ndarray:
    """A frame of [t h w] between its neighbours; at the ends it is its own."""
    last = len(planes) - 1
    return planes[[max(place - 1, 0), place, min(place + 1, last)]]


def apply(planes: np.ndarray, weights: np.ndarray, depth: int) -> np.ndarray:
    """Corrected samples, of the type of `planes` [t h w], which have `depth` bits."""
    scale, top = np.float32(1 << (depth - 8)), (1 << depth) - 1
    numbers = jnp.asarray(weights, jnp.float32)
    result = np.empty_like(planes)
    for place in range(len(planes)):
        frames = jnp.asarray(three(planes, place).astype(np.float32) / scale)
        corrected = np.asarray(_corrected(frames, numbers)) * scale
        result[place] = np.clip(np.rint(corrected), 0, top)
    return result


@functools.cache
def choices() -> tuple[tuple[int, bool], ...]:
    """(features, together) of filters from small to large."""
    return tuple((n, one) for one in (True, False) for n in (LINEAR, SPATIAL, FEATURES))
