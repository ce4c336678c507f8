"""What is expected of a latent, from latents that are coded before it: integers only.

The latents of one band are coded in three passes over all frames of a piece: places where row and
column are even, where both are odd, and the rest. The second pass sees its four diagonal
neighbours, the third the four direct ones. All see the coarser level, at this place and around it,
bands of the same level that come before, luma of the same resolution for chroma, and the two
reference frames' same band. The expected magnitude is a sum of these magnitudes with small integer
weights; its class, one of `CLASSES` by size, chooses the table.
"""

import numpy as np

FEATURES = ("neighbours", "coarser", "parents", "before", "luma", "references")
CLASSES = 22
WEIGHT_BITS = 8  # Weights are in 1/256.
PASSES = 3
_LARGEST = 40  # Magnitudes count at most as this much.
# Class limits in 1/256 of a magnitude: powers of 1.4, rounded to integers once and for all.
_LIMITS = np.array(
    [
        1,
        6,
        12,
        20,
        29,
        41,
        57,
        80,
        112,
        157,
        220,
        300,
        410,
        570,
        800,
        1120,
        1560,
        2200,
        3000,
        4300,
        6000,
    ],
    np.int64,
)


def magnitudes(band: np.ndarray) -> np.ndarray:
    """int64, limited, so that no sum can overflow."""
    return np.minimum(np.abs(band), _LARGEST).astype(np.int64)


def around(sizes: np.ndarray) -> np.ndarray:
    """The sum over 3x3 places, the middle twice, of [n h w]."""
    padded = np.pad(sizes, ((0, 0), (1, 1), (1, 1)))
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + sizes


def doubled(sizes: np.ndarray) -> np.ndarray:
    """[n h w] at twice the size."""
    return np.repeat(np.repeat(sizes, 2, 1), 2, 2)


def passes(h: int, w: int) -> list[np.ndarray]:
    """Masks [h w] of the three passes."""
    odd_row, odd_column = np.arange(h)[:, None] % 2 == 1, np.arange(w) % 2 == 1
    return [~odd_row & ~odd_column, odd_row & odd_column, odd_row ^ odd_column]


def neighbours(sizes: np.ndarray, number: int) -> np.ndarray:
    """Of pass `number`: the sum of magnitudes of four neighbours, all coded before."""
    if number == 0:
        return np.zeros_like(sizes)
    padded = np.pad(sizes, ((0, 0), (1, 1), (1, 1)))
    if number == 1:
        return padded[:, :-2, :-2] + padded[:, :-2, 2:] + padded[:, 2:, :-2] + padded[:, 2:, 2:]
    return padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]


def classes(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Class of each place. features: int64 [f m]; weights: int64 [f], in 1/256."""
    return np.searchsorted(_LIMITS, weights @ features, side="right")


def fitted(features: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Weights by which features [f m] tell sizes [m] best, by non-negative least squares."""
    from scipy.optimize import nnls

    x, y = features.astype(np.float64), sizes.astype(np.float64)
    weight = np.ones(len(FEATURES)) / 16
    for _ in range(3):
        # Deviations grow with what is expected: each counts by what is usual for its place.
        usual = 1 / np.sqrt(weight @ x + 0.02)
        scaled = x * usual
        square = scaled @ scaled.T + 1e-3 * np.eye(len(x))
        root = np.linalg.cholesky(square)
        weight = nnls(root.T, np.linalg.solve(root, scaled @ (y * usual)))[0]
    top = (1 << WEIGHT_BITS) - 1
    return np.clip(np.rint(weight * (1 << WEIGHT_BITS)), 0, top).astype(np.int64)
