"""Whole files: round trip, damage, random access, the command line."""

import hashlib
import json
import os
import subprocess
import sys
import time
import warnings
from fractions import Fraction

import numpy as np
import pytest

from zoo import codec
from zoo.codec import checksum, container, decoding, errors, passes, source
from zoo.codec.encoding import compress, quantiser_of
from zoo.video import encode

HEIGHT, WIDTH = 35, 53
TIMES = [0.0, 0.04, 0.12, 0.2, 0.5]


@pytest.fixture(scope="module")
def video():
    """Five frames of odd size, a square that moves over a gradient, unevenly timed."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    frames = np.stack([np.stack([3 * x + y, 255 - 2 * x, 4 * y], -1)] * len(TIMES)).astype(np.uint8)
    for k in range(len(TIMES)):
        frames[k, 8:20, 5 + 3 * k : 17 + 3 * k] = (200, 40, 90)
    return encode(frames, timestamps=TIMES, pixel_format="yuv444p", crf=4)


@pytest.fixture(scope="module")
def compressed(video, tmp_path_factory):
    """In groups of two frames: three groups."""
    path = tmp_path_factory.mktemp("codec") / "small.zvc"
    result = compress(video, path, quality=80, group_frames=2, steps=0)
    return path, result


@pytest.fixture(scope="module")
def decoded(compressed):
    return codec.decode(compressed[0]).pictures


def test_pictures_and_times_come_back(video, compressed, decoded):
    original = source.read(video)
    assert decoded.ticks == original.ticks
    assert (decoded.time_base, decoded.last) == (original.time_base, original.last)
    assert decoded.y.shape == (5, HEIGHT, WIDTH)
    assert decoded.uv.shape == (5, 2, 18, 27)
    error = np.square(decoded.y.astype(float) - original.y).mean()
    assert 10 * np.log10(255**2 / error) > 36
    assert (decoded.matrix, decoded.color_range) == ("bt709", "tv")


@pytest.mark.parametrize("count", [1, 2])
def test_one_and_two_frames_come_back(video, tmp_path, count):
    path, original = tmp_path / "short.zvc", source.read(video, frames=count)
    compress(video, path, quality=80, steps=0, frames=count)
    found = codec.decode(path).pictures
    assert found.ticks == original.ticks and found.y.shape == original.y.shape
    assert np.square(found.y.astype(float) - original.y).mean() < 16


def test_the_file_is_as_long_as_the_tables_say(compressed):
    _, result = compressed
    # Of three tiny groups each ends with up to two words of four bytes.
    assert abs(result.data_bytes * 8 - result.estimated_bits) <= 0.01 * result.estimated_bits + 192


@pytest.mark.slow
def test_another_process_decodes_the_same_pictures(compressed, decoded):
    program = (
        "import sys, hashlib; from zoo import codec; p = codec.decode(sys.argv[1]).pictures;"
        "print(hashlib.sha256(p.y.tobytes() + p.uv.tobytes()).hexdigest())"
    )
    command = [sys.executable, "-c", program, os.fspath(compressed[0])]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.strip() == hashlib.sha256(decoded.y.tobytes() + decoded.uv.tobytes()).hexdigest()


def test_what_is_written_back_has_the_same_samples_and_times(compressed, decoded, tmp_path):
    path = tmp_path / "back.mkv"
    codec.decompress(compressed[0], path)
    again = source.read(path)
    assert np.array_equal(again.y, decoded.y)
    assert np.array_equal(again.uv, decoded.uv)
    seconds = [float(tick * again.time_base) for tick in again.ticks]
    assert seconds == pytest.approx(TIMES, abs=0.001)


def test_a_part_is_decoded_by_time(compressed, decoded):
    part = codec.decode(compressed[0], start=0.1, end=0.3).pictures
    assert part.ticks == decoded.ticks[2:4]
    assert np.array_equal(part.y, decoded.y[2:4])


def _damaged(compressed):
    data = bytearray(compressed[0].read_bytes())
    second = container.parse(bytes(data), "x").groups[1]
    data[second.offset + 60] ^= 1
    return bytes(data), second


def test_a_damaged_group_is_named(compressed):
    data, second = _damaged(compressed)
    with pytest.raises(errors.BrokenFile, match="checksum") as caught:
        codec.decode(data)
    assert (caught.value.group, caught.value.offset) == (1, second.offset)


def test_a_damaged_group_is_left_out_or_frozen(compressed, decoded):
    data, _ = _damaged(compressed)
    with pytest.warns(errors.CodecWarning):
        skipped = codec.decode(data, on_error="skip").pictures
    assert skipped.ticks == (*decoded.ticks[:2], decoded.ticks[4])
    with pytest.warns(errors.CodecWarning):
        frozen = codec.decode(data, on_error="freeze").pictures
    assert len(frozen.ticks) == 5
    assert np.array_equal(frozen.y[3], decoded.y[1])
    assert np.array_equal(frozen.y[4], decoded.y[4])


def test_a_file_cut_short_gives_its_whole_groups(compressed, decoded):
    whole = compressed[0].read_bytes()
    third = container.parse(whole, "x").groups[2].offset
    for end, said in ((-5, "before the group does"), (third + 9, "header"), (third, "groups")):
        with pytest.warns(errors.CodecWarning, match=said):
            found = codec.decode(whole[:end])
        assert np.array_equal(found.pictures.y, decoded.y[:4])
        (problem,) = found.problems
        assert isinstance(problem, errors.CutShort)
        assert problem.group == 2 and problem.offset in (third, len(whole[:end]))


def test_a_wrong_length_inside_a_file_is_damage_and_no_cut(compressed):
    data = bytearray(compressed[0].read_bytes())
    second = container.parse(bytes(data), "x").groups[1]
    data[second.offset + container._GROUP.size - 1] = 1  # its length, beyond the file's end
    with pytest.raises(errors.BrokenFile, match="before the group does") as caught:
        codec.decode(bytes(data))
    assert not isinstance(caught.value, errors.CutShort)


def test_500_damaged_files_give_typed_errors_or_whole_groups(compressed, monkeypatch):
    """Symbols of damaged groups are never decoded, so pictures need not be made again here."""
    monkeypatch.setattr(decoding, "_decoded", _blank)
    data = compressed[0].read_bytes()
    rng = np.random.default_rng(4)
    outcomes = {"error": 0, "groups": 0}
    for _ in range(500):
        broken = bytearray(data[: rng.integers(len(data) + 1)] if rng.random() < 0.3 else data)
        for _ in range(rng.integers(0, 4)):
            if broken:
                broken[rng.integers(len(broken))] = rng.integers(256)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pictures = codec.decode(bytes(broken), on_error="skip").pictures
            outcomes["groups"] += 1
            assert 1 <= len(pictures.ticks) <= 5
        except errors.CodecError:
            outcomes["error"] += 1
    assert min(outcomes.values()) > 20


def _blank(group, header, name):
    count = len(group.ticks)
    shape = (count, header.height, header.width)
    uv = (count, 2, -(-header.height // 2), -(-header.width // 2))
    return decoding._Part(list(group.ticks), np.zeros(shape, np.uint8), np.zeros(uv, np.uint8))


def test_wrong_symbols_under_a_right_checksum_are_pictures_or_a_typed_error(compressed):
    read = container.parse(compressed[0].read_bytes(), "x")
    group = read.groups[0]
    for data in (b"", b"\xff" + group.data, group.data[:1], group.data[:1] + bytes(40)):
        other = container.Group(0, 0, group.ticks, group.last, data)
        try:
            assert decoding._decoded(other, read.header, "x").y.shape[0] == 2
        except errors.BrokenFile as error:
            assert error.group == 0


def _file(*groups: container.Group, frames: int) -> bytes:
    """Groups with right checksums under a header that announces `frames`."""
    header = container.Header(8, 8, 8, 0, 0, Fraction(1, 25), frames, len(groups))
    return header.pack() + b"".join(group.pack() for group in groups)


def test_groups_that_go_back_are_left_out():
    """Or the gap between two of them would be filled with millions of frozen frames."""
    far = container.MAX_FRAMES - 1
    groups = [
        container.Group(number, first, (tick,), 1, b"data")
        for number, (first, tick) in enumerate([(0, 0), (far, 9), (0, 10), (far, 5)])
    ]
    read = container.parse(_file(*groups, frames=container.MAX_FRAMES), "x")
    assert [group.number for group in read.groups] == [0, 1]
    assert [problem.group for problem in read.problems] == [2, 3]
    with pytest.raises(errors.TooLarge):  # the gap is counted before it is filled
        two = _file(*groups[:2], frames=container.MAX_FRAMES)
        codec.decode(two, on_error="freeze", max_bytes=2**20)


def test_a_time_that_no_integer_holds_is_damage():
    data = _file(container.Group(0, 0, (2**63,), 1, b"data"), frames=1)
    assert "time" in str(container.parse(data, "x").problems[0])


def test_a_file_of_beginnings_is_not_searched_for_ever(monkeypatch):
    count, read = 3000, 0
    each = container._GROUP.size

    def counted(data: bytes) -> int:
        nonlocal read
        read += len(data)
        return -1  # which is no file's

    beginnings = b"".join(  # each of a group of all that is left
        container._GROUP.pack(container.GROUP_MAGIC, 0, 0, 1, max(0, left * each - each - 16))
        for left in range(count, 0, -1)
    )
    data = _file(container.Group(0, 0, (0,), 1, b""), frames=1)[: container._HEADER.size + 4]
    header = container.read_header(data, "x")
    monkeypatch.setattr(container, "crc32c", counted)
    monkeypatch.setattr(container, "read_header", lambda data, name: header)
    assert not container.parse(data + beginnings, "x").groups
    assert 0 < read <= (container.SEARCH + 2) * len(data + beginnings)


def test_too_many_frames_are_refused_before_they_are_decoded(compressed):
    with pytest.raises(errors.TooLarge, match="above 5000; raise max_bytes"):
        codec.decode(compressed[0], max_bytes=5000)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda b: b"RIFF" + b[4:], errors.NotACompressedVideo),
        (lambda b: b"", errors.NotACompressedVideo),
        (lambda b: b[:20], errors.BrokenFile),
        (lambda b: b[:20] + b"\x77" + b[21:], errors.BrokenFile),
    ],
)
def test_a_wrong_header_is_a_typed_error(compressed, change, kind):
    with pytest.raises(kind):
        codec.info(change(compressed[0].read_bytes()))


def test_another_version_or_decoder_is_named(compressed):
    data = compressed[0].read_bytes()
    for place in (8, 10):
        body = bytearray(data[: container._HEADER.size])
        body[place] ^= 1
        other = (
            bytes(body) + checksum.crc32c(bytes(body)).to_bytes(4, "little") + data[len(body) + 4 :]
        )
        with pytest.raises(errors.WrongDecoder):
            codec.info(other)


def test_the_checksum_is_crc32c():
    assert checksum.crc32c(b"123456789") == 0xE3069283  # RFC 3720's check value
    assert checksum.crc32c(bytes(32)) == 0x8A9136AA


@pytest.mark.slow
def test_ten_bits_stay_ten_bits(tmp_path):
    rng = np.random.default_rng(5)
    y = np.repeat(np.repeat(rng.integers(200, 800, (1, 6, 6)), 8, 1), 8, 2).astype("<u2")
    uv = np.full((1, 2, 24, 24), 512, "<u2")
    ten = source.Pictures(y, uv, (0,), Fraction(1, 25), 1, 10, "bt709", "tv")
    source.write(ten, tmp_path / "ten.mkv")
    compress(tmp_path / "ten.mkv", tmp_path / "ten.zvc", quality=100, steps=0)
    back = codec.decode(tmp_path / "ten.zvc").pictures
    assert (back.depth, back.y.dtype) == (10, np.uint16)
    assert np.abs(back.y.astype(int) - y).max() <= 8


def test_a_bit_rate_is_hit_from_below(video, tmp_path):
    wanted = 12_000
    result = compress(video, tmp_path / "rate.zvc", bitrate=wanted, steps=0, group_frames=2)
    rate = result.bytes * 8 / codec.info(tmp_path / "rate.zvc")["seconds"]
    # Three groups end on words of four bytes, each 60 bits per second here.
    assert 0.92 * wanted <= rate <= wanted


def test_a_bit_rate_below_the_least_is_named(video, tmp_path):
    with pytest.warns(errors.CodecWarning, match="the least"):
        compress(video, tmp_path / "rate.zvc", bitrate=10, steps=0, frames=1)


def test_an_interrupt_leaves_the_groups_that_are_done(video, tmp_path):
    def stop(progress):
        if progress.frames > 2:
            raise KeyboardInterrupt

    path = tmp_path / "part.zvc"
    with pytest.raises(KeyboardInterrupt):
        compress(video, path, group_frames=2, steps=0, report=stop)
    assert codec.info(path)["frames"] == 2
    assert len(codec.decode(path).pictures.ticks) == 2


def test_an_interrupt_of_a_later_pass_leaves_a_whole_file(video, tmp_path):
    calls = []

    def stop(progress):
        calls.append(progress)
        if len(calls) > 1 and progress.frames < calls[-2].frames:  # The second pass has begun.
            raise KeyboardInterrupt

    path = tmp_path / "whole.zvc"
    with pytest.raises(KeyboardInterrupt):
        compress(video, path, group_frames=2, steps=0, bitrate=20_000, report=stop)
    assert codec.info(path)["frames"] == 5
    assert calls[-1].rate > 0 and 10 < calls[-1].psnr < 100


def test_a_spent_time_budget_fits_nothing_and_says_so(video, tmp_path):
    short, none = tmp_path / "short.zvc", tmp_path / "none.zvc"
    with pytest.warns(errors.CodecWarning, match="above the time budget"):
        compress(video, short, group_frames=2, time_budget=1e-6, steps=2)
    compress(video, none, group_frames=2, steps=0)
    assert short.read_bytes() == none.read_bytes()


def test_a_group_is_given_up_when_its_time_is_over():
    now = time.monotonic()
    watch = passes._Watch(now + 100, frames=10, fits=4, usual=5.0)
    assert watch.spare() == pytest.approx((100 - 10 * 5) / 4, abs=0.1)
    watch.finished(2)  # which took no time: nothing is kept back for the others
    assert watch.spare() == pytest.approx(100 / 3, abs=0.1)
    with pytest.raises(passes._Late):
        passes._Watch(now - 2, 10, 4, 5.0, end=now - 1).finished(1)


def test_quality_is_checked():
    assert quantiser_of(100) < quantiser_of(0)
    with pytest.raises(ValueError, match="quality is 101"):
        quantiser_of(101)


def test_the_command_line(compressed, video, tmp_path, capsys):
    from zoo.__main__ import main

    (tmp_path / "in.mp4").write_bytes(video)
    out, back = os.fspath(tmp_path / "out.zvc"), os.fspath(tmp_path / "back.mp4")
    video_path = os.fspath(tmp_path / "in.mp4")
    assert main(["compress", video_path, out, "--steps", "0", "--group", "2"]) == 0
    assert main(["decompress", out, back]) == 0
    capsys.readouterr()
    assert main(["info", out]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 5
    cut = tmp_path / "cut.zvc"
    cut.write_bytes((tmp_path / "out.zvc").read_bytes()[:-3])
    assert main(["decompress", os.fspath(cut), back]) == 3
    assert "3 bytes before the group does" in capsys.readouterr().err
    assert main(["decompress", out, back, "--max-bytes", "99"]) == 2
    assert main(["decompress", video_path, back]) == 2
    assert "does not begin" in capsys.readouterr().err
