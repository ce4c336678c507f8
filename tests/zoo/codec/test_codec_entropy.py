"""Range coding: integer tables, contexts and motion come back as they were."""

import numpy as np
import pytest

from zoo.codec import bands, contexts, entropy, fields, structure
from zoo.codec.motion import BOTH, FIRST, MAX_MOTION, SECOND


def test_tables_sum_exactly_and_every_symbol_can_be_coded():
    tables = entropy.Tables(np.array([[1, 1, 10**6, 3], [0, 0, 0, 1]]))
    for number in range(2):
        frequencies = tables.frequencies(number)
        assert frequencies.sum() == 1 << entropy.PRECISION
        assert frequencies.min() >= 1


def test_constriction_takes_our_tables_as_they_are():
    """What it writes is as long as the integer frequencies say, also for the rarest symbols."""
    start = np.array([[2**30, 1, 1, 1, 50_000]])
    values = np.array([4] * 40 + [1] * 20)
    frequencies = entropy.Tables(start).frequencies(0)
    expected = np.sum(entropy.PRECISION - np.log2(frequencies[values]))
    coder = entropy.Encoder()
    model, _ = entropy._model(entropy.Tables(start), 0)
    coder._coder.encode(values.astype(np.int32), model)
    assert abs(len(coder.finish()) * 8 - expected) <= 64


def test_signed_integers_come_back_and_take_the_estimated_bits():
    rng = np.random.default_rng(0)
    values = np.rint(rng.laplace(scale=3, size=4000)).astype(np.int64)
    values[::500] *= 4001
    classes = rng.integers(0, 3, 4000)
    writer = entropy.Encoder()
    entropy.Signed(3).code(writer, classes, values)
    data = writer.finish()
    assert np.array_equal(entropy.Signed(3).code(entropy.Decoder(data), classes, None), values)
    assert abs(len(data) * 8 - writer.bits) <= 64


def test_a_latent_beyond_the_alphabet_is_refused():
    with pytest.raises(ValueError, match=r"2\*\*20"):
        entropy.Signed(1).code(entropy.Encoder(), np.zeros(1, int), np.array([2**22]))


@pytest.mark.parametrize("shape", [(1, 6, 10), (3, 2, 2), (2, 18, 9)])
def test_motion_comes_back(shape):
    rng = np.random.default_rng(1)
    n, h, w = shape
    frames, references = tuple(range(2, 2 + n)), tuple((0, 8 + k % 2) for k in range(n))
    known = {8: (np.array([-8, -16]), rng.integers(0, 3, (h * w, fields.LABEL)))}
    temporal = fields.over_time(frames, references, known, h * w)
    away = fields.distances(frames, references)
    # Patches of a few labels, of which some go on with the motion of another frame.
    few = rng.integers(-300, 300, (5, fields.LABEL)).clip(-MAX_MOTION, MAX_MOTION)
    few[:, 0], few[:, 1] = 0, (FIRST, SECOND, BOTH, BOTH, BOTH)
    labels = few[rng.integers(0, 5, (n, h, w))]
    labels[:, : h // 2] = labels[:, :1]
    fields.followed(flat := labels.reshape(-1, fields.LABEL), np.repeat(away, h * w, 0))
    labels = flat.reshape(n, h * w, fields.LABEL)
    labels[:, ::3] = temporal[:, 0, ::3]
    labels[:, ::7] = temporal[:, 1, ::7]
    labels = labels.reshape(n, h, w, fields.LABEL)
    writer = entropy.Encoder()
    written = fields.code(writer, fields.Models(), 2, shape, temporal, away, labels)
    reader = entropy.Decoder(writer.finish())
    read = fields.code(reader, fields.Models(), 2, shape, temporal, away, None)
    assert np.array_equal(written, read)
    assert np.array_equal(read[..., 1:], labels[..., 1:])


def test_steady_motion_goes_on_over_time():
    # Frame 8 moves by 16 quarters since frame 0: frame 4 lies in the middle between both.
    known = {8: (np.array([-8, -8]), np.array([[0, FIRST, 16, -8, 16, -8]]))}
    labels = fields.over_time((4,), ((0, 8),), known, 1)
    assert labels[0, 0, 0].tolist() == [1, BOTH, 8, -4, -8, 4]
    assert labels[0, 1, 0].tolist() == [2, BOTH, 0, 0, 0, 0]  # Frame 0 stands still.
    assert fields.over_time((16,), ((8, 0),), known, 1)[0, 1, 0].tolist() == [
        2,
        FIRST,
        16,
        -8,
        32,
        -16,
    ]


def _latents(rng, n):
    def bands_of(*shape):
        return np.rint(rng.laplace(scale=0.7, size=shape)).astype(np.int64)

    y = bands_of(n, 3, 4), tuple(bands_of(n, 3, 3 << k, 4 << k) for k in range(4))
    uv = bands_of(2 * n, 3, 4), tuple(bands_of(2 * n, 3, 3 << k, 4 << k) for k in range(3))
    return y, uv


def test_latents_come_back_with_usual_and_with_fitted_contexts():
    rng = np.random.default_rng(2)
    pieces = structure.pieces(3)
    values = [_latents(rng, len(piece.frames)) for piece in pieces]
    shapes = _latents(rng, 1)
    weights = bands.default_weights()
    weights[:, 1:] = rng.integers(0, 64, weights[:, 1:].shape)
    for chosen in (bands.default_weights(), weights):
        writer, models, sizes = entropy.Encoder(), bands.Models(chosen), {}
        for piece, value in zip(pieces, values, strict=True):
            bands.code(writer, models, piece, shapes, sizes, value)
        reader, models, sizes = entropy.Decoder(writer.finish()), bands.Models(chosen), {}
        for piece, value in zip(pieces, values, strict=True):
            found = bands.code(reader, models, piece, shapes, sizes, None)
            for plane in range(2):
                assert np.array_equal(found[plane][0], value[plane][0])
                for a, b in zip(found[plane][1], value[plane][1], strict=True):
                    assert np.array_equal(a, b)


def test_fitted_weights_find_the_feature_that_tells():
    rng = np.random.default_rng(3)
    features = rng.integers(0, 20, (len(contexts.FEATURES), 5000))
    weights = contexts.fitted(features, features[2] // 4)
    assert weights.argmax() == 2
    assert 48 <= weights[2] <= 64


def test_every_frame_is_coded_once_and_after_its_references():
    for count in (1, 2, 8, 9, 10, 100):
        done = set()
        for piece in structure.pieces(count):
            assert all(done >= set(pair) for pair in piece.references)
            assert not done & set(piece.frames)
            done |= set(piece.frames)
        assert done == set(range(count))
