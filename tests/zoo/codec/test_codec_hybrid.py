"""The second mode: an MP4 that any player takes, and a filter that pays or is left out."""

import contextlib
import os
from fractions import Fraction

import numpy as np
import pytest

from zoo import codec
from zoo.codec import errors, hybrid, sidecar, source, wiener
from zoo.video import probe


def _blurred(x):
    for axis in (1, 2):
        x = (x + np.roll(x, 1, axis) + np.roll(x, -1, axis)) / 3
    return x


@pytest.fixture(scope="module")
def pictures():
    """Nine frames of odd size, structured noise that stands still, unevenly timed."""
    rng = np.random.default_rng(7)
    y = 128 + 3 * _blurred(rng.normal(0, 40, (1, 95, 127))) + rng.normal(0, 1, (9, 95, 127))
    uv = 128 + 3 * _blurred(rng.normal(0, 10, (2, 48, 64)))[None] + np.zeros((9, 1, 1, 1))
    y, uv = (np.clip(np.rint(x), 0, 255).astype(np.uint8) for x in (y, uv))
    ticks = (0, 1, 2, 3, 5, 6, 9, 10, 11)
    return source.Pictures(y, uv, ticks, Fraction(1, 25), 1, 8, "bt709", "tv")


@pytest.fixture(scope="module")
def original(pictures, tmp_path_factory):
    path = tmp_path_factory.mktemp("hybrid") / "in.mkv"
    source.write(pictures, path)
    return path


@pytest.fixture(scope="module")
def compressed(original):
    path = original.with_name("out.mp4")
    return path, hybrid.compress(original, path, crf=28)


def _error(a, b):
    return np.square(a.astype(float) - b).mean()


def test_the_filter_makes_pictures_better_and_the_mp4_plays_without_it(pictures, compressed):
    path, result = compressed
    plain = source.read(path)  # as a player does, which knows nothing of the box
    assert plain.y.shape == (9, 96, 128) and probe(path).codec == "h264"
    found = codec.decode(path).pictures
    assert found.y.shape == pictures.y.shape and found.uv.shape == pictures.uv.shape
    assert 0 < result.filter_bytes < result.saved and result.bytes == path.stat().st_size
    gain = 10 * np.log10(_error(plain.y[:, :95, :127], pictures.y) / _error(found.y, pictures.y))
    assert gain > 0.1 and result.gain == pytest.approx(gain, abs=0.5)
    seconds = [tick * found.time_base for tick in found.ticks]
    assert seconds == [tick * pictures.time_base for tick in pictures.ticks]


def test_a_filter_that_does_not_pay_is_left_out(original, tmp_path, monkeypatch):
    nothing = np.zeros((3, wiener.CLASSES, wiener.FEATURES), np.int64)
    dear = nothing.copy()
    dear[0] = 1
    for weights, gain in ((nothing, 0.0), (dear, 1e-7)):
        monkeypatch.setattr(hybrid, "_fitted", lambda *_, w=weights, g=gain: (w, [g, 0.0, 0.0]))
        result = hybrid.compress(original, tmp_path / "out.mp4", crf=35)
        assert (result.filter_bytes, result.gain) == (0, 0.0)
        assert sidecar.find((tmp_path / "out.mp4").read_bytes()) is None
    with pytest.raises(errors.NotACompressedVideo, match="played as it is"):
        codec.decode(tmp_path / "out.mp4")


def test_weights_come_back_from_the_box():
    rng = np.random.default_rng(2)
    weights = np.zeros((3, wiener.CLASSES, wiener.FEATURES), np.int64)
    weights[0] = rng.integers(-127, 128, weights[0].shape) * (rng.random((wiener.CLASSES, 1)) < 0.5)
    weights[2, :, : wiener.LINEAR] = rng.integers(-9, 10, wiener.LINEAR)
    movie = b"\0\0\0\x10ftypisom\0\0\0\0"
    data = movie + sidecar.pack(sidecar.Filters(31, 17, weights), movie)
    assert sidecar.find(data) == len(movie)
    found = sidecar.parse(data, len(movie), "x")
    assert (found.width, found.height) == (31, 17)
    assert np.array_equal(found.weights, weights)
    assert len(data) - len(movie) == sidecar.size_of(weights)


def test_damaged_boxes_are_typed_errors_or_no_boxes():
    weights = np.ones((3, wiener.CLASSES, wiener.FEATURES), np.int64)
    movie = b"\0\0\0\x10ftypisom\0\0\0\0"
    data = movie + sidecar.pack(sidecar.Filters(31, 17, weights), movie)
    rng = np.random.default_rng(3)
    for _ in range(300):
        broken = bytearray(data[: rng.integers(len(data))] if rng.random() < 0.3 else data)
        for _ in range(rng.integers(1, 4)):
            if broken:
                broken[rng.integers(len(broken))] ^= rng.integers(1, 256)
        place = sidecar.find(bytes(broken))
        if place is not None:
            with pytest.raises(errors.CodecError):
                sidecar.parse(bytes(broken), place, "x")


def test_wrong_symbols_under_a_right_checksum_are_weights_or_a_typed_error():
    rng = np.random.default_rng(5)
    for size in (0, 1, 4, 7, 40, 400):
        for data in (rng.bytes(size), bytes(size), b"\xff" * size):
            with contextlib.suppress(errors.BrokenFile):
                assert np.abs(sidecar._decoded(data, "x", 0)).max() <= 127


def test_a_filter_of_other_pictures_is_refused(compressed):
    data = bytearray(compressed[0].read_bytes())
    data[len(data) // 2 - 40] ^= 1  # in the pictures
    with pytest.raises(errors.BrokenFile, match="other pictures"):
        codec.decode(bytes(data))


def test_least_squares_find_a_filter_that_was_applied():
    rng = np.random.default_rng(4)
    decoded = rng.uniform(60, 190, (3, 40, 40)).astype(np.float32)
    weights = np.zeros((wiener.CLASSES, wiener.FEATURES))
    weights[:, 0], weights[:, 5], weights[:, wiener.SPATIAL] = 0.125, -0.0625, 0.25
    original = np.asarray(wiener._corrected(decoded, weights))
    equations = wiener.Equations()
    equations.add(decoded, original)
    found = equations.solved(wiener.FEATURES, together=True, step=1 / 128)
    assert np.array_equal(found, weights)
    before = np.square(original - decoded[1]).sum()
    assert equations.gains(found).sum() == pytest.approx(before, rel=1e-3)


def test_the_command_line(original, tmp_path, capsys):
    from zoo.__main__ import main

    video, out = os.fspath(original), os.fspath(tmp_path / "out.mp4")
    back = os.fspath(tmp_path / "back.mkv")
    assert main(["compress", video, out, "--mode", "filter", "--quality", "57"]) == 0
    assert "gains" in capsys.readouterr().out
    assert main(["decompress", out, back]) == 0
    assert source.read(back).y.shape == (9, 95, 127)
    for more in (["--bitrate", "9"], ["--time-budget", "9"]):
        assert main(["compress", video, out, "--mode", "filter", *more]) == 2
    assert main(["compress", video, out + ".zvc", "--mode", "filter"]) == 2
