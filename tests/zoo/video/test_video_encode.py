"""Round trips: what is encoded is what is decoded, at the right times, in the right colours."""

import pathlib
import stat
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo import video
from zoo.video import ClipRequest


def moving(frames: int = 12, h: int = 48, w: int = 64, channels: int = 3) -> np.ndarray:
    """A smooth picture that moves one pixel a frame."""
    t, y, x = np.meshgrid(np.arange(frames), np.arange(h), np.arange(w), indexing="ij")
    waves = [np.sin((x + t) / 9.0), np.cos(y / 7.0), np.sin((x + y + t) / 11.0), 0 * x + 1.0]
    return np.stack([(127 + 120 * wave).astype(np.uint8) for wave in waves[:channels]], -1)


def decoded(content: bytes | pathlib.Path, **options) -> video.Clip:
    clip = video.decode(content, **options)
    assert clip.error is None
    return clip


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / max(float(np.mean((a.astype(float) - b) ** 2)), 1e-9))


def test_colours_and_motion_survive():
    frames = moving()
    for pixel_format, least in (("yuv420p", 38), ("yuv444p", 40)):
        content = video.encode(frames, fps=25, crf=8, pixel_format=pixel_format)
        clip = decoded(content)
        assert clip.frames.shape == frames.shape
        for k in range(len(frames)):
            assert psnr(clip.frames[k], frames[k]) > least
        info = video.probe(content)
        assert (info.codec, info.pixel_format) == ("h264", pixel_format)
        assert (info.color_space, info.color_range) == ("bt709", "tv")
        assert (info.color_primaries, info.color_transfer) == ("bt709", "bt709")


@pytest.mark.parametrize("color", [(255, 0, 0), (0, 255, 0), (20, 90, 200), (128, 128, 128)])
def test_flat_colours(color: tuple[int, int, int]):
    frames = np.broadcast_to(np.uint8(color), (3, 32, 32, 3))
    clip = decoded(video.encode(frames, fps=5, crf=1))
    assert np.abs(clip.frames.astype(int) - frames).max() <= 3


def test_grey_and_alpha_input():
    grey = moving(channels=1)
    clip = decoded(video.encode(grey, fps=25, crf=8), pixels="gray")
    assert psnr(clip.frames, grey) > 38
    rgba = moving(channels=4)
    same = video.encode(rgba, fps=25), video.encode(rgba[..., :3], fps=25)
    assert psnr(decoded(same[0]).frames, decoded(same[1]).frames) > 50


@settings(max_examples=15, deadline=None)
@given(
    rate=st.builds(Fraction, st.integers(1, 60_000), st.sampled_from([1, 1001, 1000, 7])).filter(
        lambda rate: Fraction(1, 10) < rate < 500
    ),
    frames=st.integers(2, 14),
)
def test_any_rational_rate_is_exact(rate: Fraction, frames: int):
    content = video.encode(moving(frames, 16, 16), fps=rate)
    info = video.probe(content)
    assert (info.frame_rate, info.frames, info.variable_frame_rate) == (rate, frames, False)
    assert info.duration == frames / rate and info.start_time == 0
    exact = [float(k / rate) for k in range(frames)]
    np.testing.assert_array_equal(decoded(content, size=(2, 2)).timestamps, exact)


@pytest.mark.parametrize(("h", "w"), [(15, 16), (16, 15), (15, 15), (1, 1), (2, 333)])
def test_odd_sizes(h: int, w: int):
    frames = moving(4, h, w)
    clip = decoded(video.encode(frames, fps=5, crf=4))
    assert clip.frames.shape == (4, h + h % 2, w + w % 2, 3)
    # The last row and column are repeated, so that nothing dark bleeds in.
    padded = np.pad(frames, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)), mode="edge")
    assert psnr(clip.frames, padded) > 28
    exact = decoded(video.encode(frames, fps=5, crf=4, pixel_format="yuv444p"))
    assert exact.frames.shape == frames.shape


def test_variable_times():
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.004, 0.3, 200)) + 5
    content = video.encode(moving(200, 16, 16), timestamps=times)
    clip = decoded(content, size=(2, 2))
    np.testing.assert_allclose(clip.timestamps, times - times[0], atol=0.5 / 90_000 + 1e-9)
    assert video.probe(content).variable_frame_rate


def test_equal_input_gives_equal_bytes_alone_and_together():
    clips = [moving()[:, :, shift : shift + 40] for shift in (0, 9, 24)] * 7
    together = video.encode_many(clips, fps=Fraction(30000, 1001), crf=23)
    assert together[:3] == together[3:6]
    assert len(set(together)) == 3
    alone = video.encode(clips[1], fps=Fraction(30000, 1001), crf=23)
    assert together[1] == alone == video.encode(clips[1], fps=Fraction(30000, 1001), crf=23)
    assert b"Lavf" not in alone and b"x264 - core" not in alone
    assert video.encode_many([], fps=5) == []


def test_clips_of_several_sizes_together():
    clips = [moving(3, 16, 16), moving(5, 32, 20), moving(2, 9, 9, 1)]
    shapes = [decoded(content).frames.shape for content in video.encode_many(clips, fps=5)]
    assert shapes == [(3, 16, 16, 3), (5, 32, 20, 3), (2, 10, 10, 3)]


def test_crf_trades_size_for_quality():
    frames = moving()
    sizes = [len(video.encode(frames, fps=25, crf=crf)) for crf in (1, 18, 40)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 2 * sizes[2]


def test_key_frames_come_often():
    """Seeking to any place decodes few frames: the packet list shows the key frames."""
    from zoo.video.probe import read_packets

    content = video.encode(moving(50, 16, 16), fps=25, keyframe_interval=7)
    assert content is not None
    keys = [p.shown_at for p in read_packets(content, "clip", 30.0)[0] if p.key]
    assert len(keys) == 8 and len(set(np.diff(keys))) == 1


def test_file_is_written_whole_and_readable(tmp_path):
    path = tmp_path / "naïve name.mp4"
    path.write_bytes(b"old")
    assert video.encode(moving(), path, fps=25) is None
    assert path.read_bytes() == video.encode(moving(), fps=25)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    (tmp_path / "plain").touch()
    modes = {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()}
    assert len(modes) == 1


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        (np.zeros((2, 8, 8, 3)), {}, "float64"),
        (np.zeros((8, 8, 3), np.uint8), {}, r"\[8, 8, 3\]"),
        (np.zeros((2, 8, 8, 2), np.uint8), {}, r"\[2, 8, 8, 2\]"),
        (np.zeros((0, 8, 8, 3), np.uint8), {}, "empty"),
        (np.zeros((2, 8, 8, 3), np.uint8), {"fps": 0}, "fps is 0"),
        (np.zeros((2, 8, 8, 3), np.uint8), {"crf": 52}, "crf is 52"),
        (np.zeros((2, 8, 8, 3), np.uint8), {"keyframe_interval": 0}, "keyframe_interval is 0"),
        (np.zeros((2, 8, 8, 3), np.uint8), {"timestamps": [0.0]}, r"timestamps have shape \[1\]"),
        (np.zeros((2, 8, 8, 3), np.uint8), {"timestamps": [1.0, 1.0]}, "do not increase"),
    ],
)
def test_wrong_arguments(frames: np.ndarray, options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        video.encode(frames, **options)


def test_shrink_keeps_frames_and_makes_rates_exact(shared: pathlib.Path):
    path = shared / "videos" / "pancake.mkv"
    content = video.shrink(path, short_side=56, crf=12)
    info = video.probe(content)
    assert (info.width, info.height, info.frames, info.frame_rate) == (100, 56, 310, 30)
    assert (info.codec, info.duration) == ("h264", Fraction(31, 3))
    assert len(content) < path.stat().st_size / 2
    small, large = decoded(content, size=(28, 50)), decoded(path, size=(28, 50))
    assert psnr(small.frames, large.frames) > 34
    assert np.abs(small.timestamps - large.timestamps).max() < 1e-3


def test_shrink_a_part(shared: pathlib.Path):
    path = shared / "videos" / "pancake.mkv"
    whole = decoded(path, size=(28, 50))
    content = video.shrink(path, short_side=56, crf=12, start=2.0, end=3.1)
    part = decoded(content, size=(28, 50))
    assert len(part.frames) == 33 and part.timestamps[0] == 0
    assert psnr(part.frames, whole.frames[60:93]) > 34
    with pytest.raises(video.VideoError, match="no frame lies between 50 s"):
        video.shrink(path, short_side=56, start=50.0, end=60.0)
    with pytest.raises(ValueError, match="is empty"):
        video.shrink(path, short_side=56, start=3.0, end=3.0)


@pytest.mark.parametrize("name", ["late.ts", "late.mkv", "variable.mkv", "raw.h264", "a.avi"])
def test_shrink_a_part_of_any_container(make_video, name: str):
    options = {
        "late": [*("-f", "lavfi", "-i", "sine=d=2"), "-vf", "setpts=PTS+0.48/TB"],
        "variable": [
            *("-vf", "select='not(eq(mod(n,7),3))'", "-fps_mode", "passthrough"),
            *("-enc_time_base", "1:1000"),
        ],
    }.get(name.split(".")[0], [])
    codec = ["-c:v", "mpeg4"] if name.endswith("avi") else ["-c:v", "libx264"]
    path = make_video(f"part_{name}", *options, *codec, "-g", "12")
    whole = decoded(path, size=(24, 32))
    start, end = float(whole.timestamps[10]), float(whole.timestamps[31])
    part = decoded(video.shrink(path, short_side=48, crf=8, start=start, end=end), size=(24, 32))
    assert len(part.frames) == 21
    assert psnr(part.frames, whole.frames[10:31]) > 26
    np.testing.assert_allclose(
        part.timestamps, whole.timestamps[10:31] - whole.timestamps[10], atol=1e-3
    )


def test_shrink_does_not_enlarge_and_turns_upright(shared: pathlib.Path, make_video):
    small = make_video("small.mp4", "-c:v", "libx264", "-pix_fmt", "yuv444p", size="30x18")
    info = video.probe(video.shrink(small, short_side=99))
    assert (info.width, info.height) == (30, 18)
    info = video.probe(video.shrink(shared / "videos" / "rot_90.mov", short_side=64))
    assert (info.width, info.height, info.rotation) == (64, 114, 0)


def test_records_of_a_shard_decode_together():
    clips = [moving(16, 32, 32) for _ in range(20)]
    records = video.encode_many(clips, fps=8, crf=12)
    requests = [ClipRequest(record, start=0.5, indices=(0, 3, 6)) for record in records]
    results = video.decode_many(requests, size=(32, 32))
    for result in results:
        assert isinstance(result, video.Clip)
        assert psnr(result.frames, clips[0][[4, 7, 10]]) > 34
        assert result.timestamps.tolist() == [0.5, 0.875, 1.25]
