"""Facts of real and of made files, in all the variety of containers and pixel formats."""

import pathlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zoo import video
from zoo.video.probe import bit_depth, frame_rate

# name: frames, rate, width, height, rotation, pixel format, codec, duration.
REAL = {
    "arm_wrestling.mp4": (280, 28, 340, 256, 0, "yuv420p", "h264", Fraction(10)),
    "bigbuckbunny.mp4": (132, 25, 1280, 720, 0, "yuv420p", "h264", Fraction(132, 25)),
    "bikes.mp4": (250, 25, 640, 272, 0, "yuv420p", "h264", Fraction(10)),
    "carphone_pristine.mp4": (
        *(120, Fraction(30000, 1001), 176, 144, 0, "yuv420p", "h264", Fraction(1001, 250)),
    ),
    "corrupted.mp4": (50, 10, 1280, 720, 0, "yuv420p", "h264", Fraction(5)),
    "cricket.gif": (79, 25, 224, 224, 0, "bgra", "gif", Fraction(79, 25)),
    "pancake.mkv": (310, 30, 426, 240, 0, "yuv420p", "h264", Fraction(10333, 1000)),
    "rot_0.mov": (3, 30, 568, 320, 0, "yuv420p", "h264", Fraction(1, 10)),
    "rot_90.mov": (3, 30, 320, 568, 90, "yuv420p", "h264", Fraction(1, 10)),
    "rot_180.mov": (3, 30, 568, 320, 180, "yuv420p", "h264", Fraction(1, 10)),
    "rot_270.mov": (3, 30, 320, 568, 270, "yuv420p", "h264", Fraction(1, 10)),
    "scene_cuts.mp4": (250, 25, 1280, 272, 0, "yuv444p", "h264", Fraction(10)),
    "test.avi": (164, 25, 320, 240, 0, "yuv420p", "mpeg4", Fraction(164, 25)),
    "unordered.mov": (4, 32, 50, 50, 0, "yuv420p", "h264", Fraction(1, 8)),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files(shared: pathlib.Path, name: str):
    info = video.probe(shared / "videos" / name)
    rotation = info.rotation
    assert REAL[name] == (
        *(info.frames, info.frame_rate, info.width, info.height, rotation),
        *(info.pixel_format, info.codec, info.duration),
    )
    assert not info.variable_frame_rate
    assert info.bit_depth == 8
    assert info.start_time == 0


def test_every_real_file_is_listed(shared: pathlib.Path):
    assert {path.name for path in (shared / "videos").iterdir()} == set(REAL)


def test_bytes_are_probed_like_their_file(shared: pathlib.Path):
    path = shared / "videos" / "carphone_pristine.mp4"
    assert video.probe(path.read_bytes()) == video.probe(path)


def test_colour_facts(shared: pathlib.Path):
    info = video.probe(shared / "videos" / "rot_0.mov")
    assert (info.color_space, info.color_range) == ("bt709", "tv")
    assert (info.color_primaries, info.color_transfer) == ("bt709", "bt709")
    plain = video.probe(shared / "videos" / "bikes.mp4")
    assert (plain.color_space, plain.color_range) == ("unknown", "unknown")


def test_mixed_colour_facts(make_video):
    options = ["-color_primaries", "bt2020", "-color_trc", "smpte2084", "-colorspace", "bt2020nc"]
    tags = "setparams=color_primaries=bt2020:color_trc=smpte2084:colorspace=bt2020nc:range=tv"
    path = make_video(
        "hdr.mkv", "-vf", f"{tags},format=yuv420p10le", *options, "-c:v", "ffv1", seconds=0.2
    )
    info = video.probe(path)
    assert (info.color_primaries, info.color_transfer) == ("bt2020", "smpte2084")
    assert (info.color_space, info.color_range) == ("bt2020nc", "tv")
    assert (info.pixel_format, info.bit_depth) == ("yuv420p10le", 10)


def test_sound_that_begins_first_does_not_move_the_clock(make_video):
    sound = ["-f", "lavfi", "-i", "sine=d=2"]
    path = make_video("late.mkv", *sound, "-vf", "setpts=PTS+0.48/TB", "-c:v", "libx264")
    info = video.probe(path)
    assert info.start_time == Fraction(12, 25)
    assert (info.frames, info.frame_rate, info.duration) == (50, 25, 2)


def test_an_alpha_stream_counts_as_alpha(make_video):
    path = make_video("a.webm", "-vf", "format=yuva420p", "-c:v", "libvpx-vp9", seconds=0.2)
    assert video.probe(path).pixel_format == "yuva420p"


def test_missing_frames_make_a_variable_rate(make_video):
    drop = ["-vf", "select='not(eq(mod(n,7),3))'", "-fps_mode", "passthrough"]
    path = make_video("variable.mp4", *drop, "-c:v", "libx264")
    info = video.probe(path)
    assert info.variable_frame_rate
    assert info.frames == 43
    assert info.frame_rate == Fraction(42, 1) / Fraction(49, 25)


@example(rate=Fraction(94), frames=6, start=1)  # 93 fits the ends and not the times between
@settings(max_examples=60, deadline=None)
@given(
    rate=st.one_of(
        st.sampled_from([Fraction(b * 1000, 1001) for b in (24, 30, 60)]),
        st.integers(1, 120).map(Fraction),
    ),
    frames=st.integers(3, 400),
    start=st.integers(0, 5000),
)
def test_a_rate_survives_rounding_to_milliseconds(rate: Fraction, frames: int, start: int):
    times = [round((Fraction(start, 7) + k / rate) * 1000) for k in range(frames)]
    found, variable = frame_rate(times, 0, Fraction(1, 1000))
    assert not variable
    # A short video cannot tell neighbouring rates apart; a standard one is preferred then.
    # Both fit the rounded times, so the ends of their grids are at most two milliseconds apart.
    assert abs((frames - 1) / found - (frames - 1) / rate) <= Fraction(2, 1000)
    if frames > 4 * rate and rate in (24, 25, 30, Fraction(24000, 1001), Fraction(30000, 1001)):
        assert found == rate


def test_rates_of_one_frame_and_of_none():
    assert frame_rate([5], 40, Fraction(1, 1000)) == (25, False)
    assert frame_rate([5], 0, Fraction(1, 1000)) == (0, False)
    # One unit is one frame: a missing frame must not be taken for rounding.
    assert frame_rate([0, 1, 2, 4, 5], 1, Fraction(1, 25)) == (20, True)


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        *(("yuv420p", 8), ("yuv420p10le", 10), ("p010le", 10), ("gray16be", 16), ("rgb48le", 16)),
        *(("rgba64be", 16), ("gbrpf32le", 32), ("y210le", 10), ("monow", 1), ("rgb565le", 6)),
        *(("yuva444p12le", 12), ("nv12", 8), ("pal8", 8), ("yuvj420p", 8), ("x2rgb10le", 10)),
    ],
)
def test_bit_depth(name: str, depth: int):
    assert bit_depth(name) == depth


def test_times_agree_with_the_decoder(make_video):
    path = make_video("h264.mp4", "-c:v", "libx264", "-g", "12")
    info, clip = video.probe(path), video.decode(path, size=(8, 8))
    assert info.frames == len(clip.timestamps)
    np.testing.assert_array_equal(clip.timestamps, np.arange(50) / 25)
