"""Coding of a piece's latents, band by band from coarse to fine, luma before chroma.

Bands of a frame without prediction have a low band of another nature: it is coded as differences
from the place to the left, in the first column from the place above.
"""

from collections.abc import Callable

import numpy as np

from zoo.codec import context_table, contexts, entropy
from zoo.codec.structure import Piece

# Bands of one plane kind: the low one, then details [n 3 h w] from coarse to fine.
Pyramid = tuple[np.ndarray, tuple[np.ndarray, ...]]
Sizes = tuple[Pyramid, Pyramid]  # Of luma and of chroma.
_KINDS = 2 * 2 * 3  # With and without prediction, luma and chroma, three orientations.
WEIGHTS = (_KINDS + 4, contexts.PASSES, len(contexts.FEATURES))


def default_weights() -> np.ndarray:
    """int64 of shape WEIGHTS."""
    return np.array(context_table.USUAL, np.int64)


class Models:
    """The tables of one group, which learn as it is coded."""

    def __init__(self, weights: np.ndarray) -> None:
        self.weights = weights
        self._tables: dict[tuple, entropy.Signed] = {}

    def of(self, *key: object) -> entropy.Signed:
        """The tables of one kind of band."""
        if key not in self._tables:
            self._tables[key] = entropy.Signed(contexts.CLASSES)
            counts = self._tables[key].magnitudes.counts
            for number in range(contexts.CLASSES):
                counts[number] = _start(number)
        return self._tables[key]


def _start(number: int) -> np.ndarray:
    """Counts of a geometric distribution whose mean grows with the class, in integers."""
    mean = 12 * 7**number // 5**number  # in 1/1024
    keep = (mean << 10) // (1024 + mean)
    row, rest = [], 4096
    for _ in range(entropy.ESCAPE):
        row.append(max(rest * (1024 - keep) >> 12, 1))
        rest = rest * keep >> 10
    return np.array([*row, max(rest >> 2, 1)], np.int64)


Observe = Callable[[int, int, np.ndarray, np.ndarray], None]


class _Band:
    """Codes one band of one piece."""

    def __init__(self, coder: entropy.Coder, models: Models, observe: Observe | None) -> None:
        self._coder, self._models, self._observe = coder, models, observe

    def code(
        self, kind: int, key: tuple, features: list[np.ndarray], values: np.ndarray | None
    ) -> np.ndarray:
        """Values int64 [n h w]; features are five of [n h w], all but the neighbours."""
        n, h, w = features[0].shape
        result = np.zeros((n, h, w), np.int64)
        sizes = np.zeros((n, h, w), np.int64)
        for number, mask in enumerate(contexts.passes(h, w)):
            near = contexts.neighbours(sizes, number)
            table = np.stack([x[:, mask].reshape(-1) for x in (near, *features)])
            chosen = contexts.classes(table, self._models.weights[kind, number])
            given = None if values is None else values[:, mask].reshape(-1)
            tables = self._models.of(*key, number > 0)
            found = tables.code(self._coder, chosen, given)
            if self._observe is not None:
                self._observe(kind, number, table, contexts.magnitudes(found))
            result[:, mask] = found.reshape(n, -1)
            sizes[:, mask] = contexts.magnitudes(result[:, mask])
        return result


def code(
    coder: entropy.Coder,
    models: Models,
    piece: Piece,
    shapes: Sizes,
    coded: dict[int, Sizes],
    values: Sizes | None,
    observe: Observe | None = None,
) -> Sizes:
    """Codes the latents of one piece.

    Args:
      shapes: arrays of the right shapes for one frame: luma [1 ...], chroma [2 ...].
      coded: of every frame that is done the magnitudes of its latents; those of this piece are
        added.
      values: the latents; None to decode them.
      observe: told the features and magnitudes of every pass, to fit weights.

    Returns:
      Latents, int64, of luma [n ...] and chroma [2n ...].
    """
    band = _Band(coder, models, observe)
    n = len(piece.frames)
    inter = int(piece.depth > 0)
    result: list[Pyramid] = []
    for plane in range(2):
        low_shape, detail_shapes = shapes[plane]
        copies = n * (1 + plane)
        given = None if values is None else values[plane]
        low = _low(
            band, inter, plane, (copies, *low_shape.shape[1:]), None if given is None else given[0]
        )
        details: list[np.ndarray] = []
        for level, empty in enumerate(detail_shapes):
            h, w = empty.shape[2:]
            sizes: list[np.ndarray] = []
            bands: list[np.ndarray] = []
            fine = min(len(detail_shapes) - 1 - level, 2)
            for orientation in range(3):
                zero = np.zeros((copies, h, w), np.int64)
                coarser = parents = before = luma = zero
                if level:
                    parent = contexts.magnitudes(details[-1][:, orientation])
                    coarser = 4 * contexts.doubled(parent)
                    parents = contexts.doubled(contexts.around(parent))
                if orientation:
                    before = contexts.around(sizes[0])
                    if orientation == 2:
                        before = before + contexts.around(sizes[1])
                if plane:
                    same = contexts.magnitudes(result[0][1][level][:, orientation])
                    luma = np.repeat(contexts.around(same), 2, 0)
                references = zero
                if inter:
                    references = _references(piece, coded, plane, level, orientation)
                kind = (inter * 2 + plane) * 3 + orientation
                found = band.code(
                    kind,
                    (inter, plane, orientation, fine),
                    [coarser, parents, before, luma, references],
                    None if given is None else given[1][level][:, orientation],
                )
                bands.append(found)
                sizes.append(contexts.magnitudes(found))
            details.append(np.stack(bands, 1))
        result.append((low, tuple(details)))
    done = result[0], result[1]
    for number, frame in enumerate(piece.frames):
        coded[frame] = _one_frame(done, number)
    return done


def _low(
    band: _Band, inter: int, plane: int, shape: tuple[int, int, int], given: np.ndarray | None
) -> np.ndarray:
    zero = np.zeros(shape, np.int64)
    kind = _KINDS + inter * 2 + plane
    if inter:
        return band.code(kind, ("low", 1, plane), [zero] * 5, given)
    steps = None
    if given is not None:
        steps = given.copy()
        steps[:, :, 1:] -= given[:, :, :-1]
        steps[:, 1:, 0] -= given[:, :-1, 0]
    steps = band.code(kind, ("low", 0, plane), [zero + 64] + [zero] * 4, steps)
    steps[:, :, 0] = np.cumsum(steps[:, :, 0], 1)
    return np.cumsum(steps, 2)


def _references(
    piece: Piece, coded: dict[int, Sizes], plane: int, level: int, orientation: int
) -> np.ndarray:
    rows = []
    for first, second in piece.references:
        one = coded[first][plane][1][level][:, orientation]
        rows.append(one + coded[second][plane][1][level][:, orientation])
    return contexts.around(np.concatenate(rows))


def _one_frame(sizes: Sizes, number: int) -> Sizes:
    """Magnitudes of one frame's latents."""
    parts = []
    for plane in range(2):
        where = slice(number * (1 + plane), (number + 1) * (1 + plane))
        low, details = sizes[plane]
        parts.append(
            (contexts.magnitudes(low[where]), tuple(contexts.magnitudes(d[where]) for d in details))
        )
    return parts[0], parts[1]
