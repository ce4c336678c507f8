"""Decoded frames: which, when, how large, upright, in which colours."""

import math
import pathlib
import subprocess
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zoo import video
from zoo.video import ClipRequest, ffmpeg

# name: options, and the source's size where it matters.
KINDS = {
    "h264.mp4": ["-c:v", "libx264", "-g", "12"],
    "open_gop.mp4": ["-c:v", "libx264", "-g", "12", "-x264-params", "open-gop=1:bframes=3"],
    "intra_refresh.mp4": ["-c:v", "libx264", "-g", "99", "-x264-params", "intra-refresh=1"],
    "no_edit_list.mp4": ["-c:v", "libx264", "-g", "12", "-use_editlist", "0"],
    "fragmented.mp4": ["-c:v", "libx264", "-g", "12", "-movflags", "frag_keyframe+empty_moov"],
    "hevc.mkv": ["-c:v", "libx265", "-g", "12", "-x265-params", "log-level=none:open-gop=1"],
    "vp9.webm": ["-c:v", "libvpx-vp9", "-g", "12", "-deadline", "realtime", "-cpu-used", "8"],
    "stream.ts": ["-c:v", "libx264", "-g", "12"],
    "program.mpg": ["-c:v", "mpeg2video", "-bf", "2", "-g", "12"],
    "no_times.avi": ["-c:v", "mpeg4", "-bf", "2", "-g", "12"],
    "raw.h264": ["-c:v", "libx264", "-g", "12"],
    "flash.flv": ["-c:v", "flv1", "-g", "12"],
    "intra.mov": ["-c:v", "prores", "-pix_fmt", "yuv422p10le"],
    "theora.ogv": ["-c:v", "libtheora", "-g", "12"],
    "anim.gif": [],
    "anim.webp": ["-c:v", "libwebp_anim"],
    "variable.mkv": [
        *("-vf", "select='not(eq(mod(n,7),3))',setpts=PTS+gt(mod(N\\,5)\\,2)*0.013/TB"),
        *("-fps_mode", "passthrough", "-enc_time_base", "1:90000", "-c:v", "libx264", "-g", "12"),
    ],
    "late.mkv": [
        *("-f", "lavfi", "-i", "sine=d=2", "-vf", "setpts=PTS+0.48/TB", "-c:v", "libx264"),
        *("-g", "12"),
    ],
    "late.ts": [
        *("-f", "lavfi", "-i", "sine=d=2", "-vf", "setpts=PTS+0.48/TB", "-c:v", "libx264"),
        *("-g", "12"),
    ],
}


def assert_same(clip: video.Clip, whole: video.Clip, frames: list[int]) -> None:
    np.testing.assert_array_equal(clip.timestamps, whole.timestamps[frames])
    np.testing.assert_array_equal(clip.frames, whole.frames[frames])
    assert clip.error is None


@pytest.mark.parametrize("name", KINDS)
def test_clips_equal_the_whole_video_cut(make_video, name: str):
    path = make_video(name, *KINDS[name])
    whole = video.decode(path, size=(24, 32))
    count = len(whole.frames)
    assert count == video.probe(path).frames
    assert count == {"variable.mkv": 43, "theora.ogv": 32, "anim.webp": 26}.get(name, 50)
    assert np.all(np.diff(whole.timestamps) > 0)
    requests, expected = [], []
    for first in (1, 13, count - 9, count - 3):
        start = float(whole.timestamps[first])
        requests.append(ClipRequest(path, start=start, frames=5))
        expected.append(list(range(first, min(first + 5, count))))
    second = float(whole.timestamps[11])
    requests.append(ClipRequest(path, start=second, frames=4, stride=3))
    expected.append([11, 14, 17, 20])
    requests.append(ClipRequest(path, start=second, indices=(0, 2, 2, 9)))
    expected.append([11, 13, 13, 20])
    requests.append(ClipRequest(path, start=second, indices=(2, 5)))
    expected.append([13, 16])
    together = video.decode_many(requests, size=(24, 32))
    for request, clip, frames in zip(requests, together, expected, strict=True):
        assert isinstance(clip, video.Clip), (request, clip)
        assert_same(clip, whole, frames)
    alone = video.decode(path, start=second, frames=4, stride=3, size=(24, 32))
    assert_same(alone, whole, [11, 14, 17, 20])


def test_start_between_frames_takes_the_next(make_video):
    path = make_video("h264.mp4", *KINDS["h264.mp4"])
    assert video.decode(path, start=0.5, frames=2, size=8).timestamps.tolist() == [0.52, 0.56]
    assert video.decode(path, start=0.52, frames=1, size=8).timestamps.tolist() == [0.52]


def test_many_clips_of_many_files_in_few_processes(make_video, monkeypatch):
    names = ["h264.mp4", "hevc.mkv", "intra.mov", "vp9.webm"]
    paths = [make_video(name, *KINDS[name]) for name in names]
    runs = []
    run = ffmpeg.Job.run
    monkeypatch.setattr(ffmpeg.Job, "run", lambda *a, **k: runs.append(1) or run(*a, **k))
    requests = [
        ClipRequest(paths[k % 4].read_bytes() if k % 3 else paths[k % 4], start=k / 20, frames=3)
        for k in range(16)
    ]
    clips = video.decode_many(requests, size=(12, 16))
    assert len(runs) == 1
    for request, clip in zip(requests, clips, strict=True):
        alone = video.decode(request.source, start=request.start, frames=3, size=(12, 16))
        np.testing.assert_array_equal(clip.frames, alone.frames)
        np.testing.assert_array_equal(clip.timestamps, alone.timestamps)


def test_one_bad_clip_leaves_the_others_as_they_are(make_video, tmp_path):
    good = make_video("h264.mp4", *KINDS["h264.mp4"])
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(make_video("hevc.mkv", *KINDS["hevc.mkv"]).read_bytes()[:6000])
    requests = [
        ClipRequest(good, frames=2),
        ClipRequest(text, frames=2),
        ClipRequest(good, start=1.0, frames=2),
        ClipRequest(tmp_path / "missing.mp4", frames=2),
        ClipRequest(cut, frames=50),
        ClipRequest(good, start=9.0, frames=2),
        ClipRequest(good, start=1.96, frames=2, name="the last frame"),
    ]
    first, is_text, second, missing, broken, late, last = video.decode_many(requests, size=(8, 8))
    assert isinstance(is_text, video.NotAVideo) and "text.mp4" in str(is_text)
    assert isinstance(missing, video.VideoError) and "missing.mp4" in str(missing)
    assert isinstance(broken, video.BrokenVideo) and "cut.mkv" in str(broken)
    assert 0 < broken.good_frames < 50
    assert isinstance(late, video.VideoError) and "earlier" in str(late)
    assert first.timestamps.tolist() == [0.0, 0.04]
    assert second.timestamps.tolist() == [1.0, 1.04]
    assert last.timestamps.tolist() == [1.96]


def test_requests_for_nothing():
    assert video.decode_many([], size=(8, 8)) == []


@pytest.mark.parametrize("name", ["h264.mp4", "variable.mkv", "late.mkv"])
@pytest.mark.parametrize("fps", [Fraction(10), Fraction(30000, 1001), Fraction(60)])
@pytest.mark.parametrize("start", [0.0, 0.71])
def test_target_rate_shows_what_is_on_display(make_video, name: str, fps: Fraction, start: float):
    path = make_video(name, *KINDS[name])
    whole = video.decode(path, size=(12, 16))
    clip = video.decode(path, start=start, fps=fps, size=(12, 16))
    last = 2.0 if name != "variable.mkv" else whole.timestamps[-1] + 0.04
    ticks = [start + k / float(fps) for k in range(math.ceil((last - start) * fps))]
    # Half a millisecond of tolerance: containers that count milliseconds round by as much.
    shown = [int(np.searchsorted(whole.timestamps, tick + 5.1e-4)) - 1 for tick in ticks]
    assert abs(len(clip.frames) - len(shown)) <= 1  # How long the last frame lasts is not known.
    shared = min(len(clip.frames), len(shown))
    np.testing.assert_array_equal(clip.timestamps[:shared], whole.timestamps[shown[:shared]])
    np.testing.assert_array_equal(clip.frames[:shared], whole.frames[shown[:shared]])
    few = video.decode_many([ClipRequest(path, start=start, fps=fps, frames=7)] * 2, size=(12, 16))
    np.testing.assert_array_equal(few[1].timestamps, clip.timestamps[:7])
    np.testing.assert_array_equal(few[1].frames, clip.frames[:7])


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(indices=st.lists(st.integers(0, 49), min_size=1, max_size=40).map(sorted))
def test_any_indices(make_video, indices: list[int]):
    path = make_video("h264.mp4", *KINDS["h264.mp4"])
    clip = video.decode(path, indices=indices, size=(2, 2), pixels="gray")
    assert clip.timestamps.tolist() == [index / 25 for index in indices]


def test_real_files_have_all_frames_in_order(shared: pathlib.Path):
    folder = shared / "videos"
    counts = {
        "pancake.mkv": 310,
        "cricket.gif": 79,
        "unordered.mov": 4,
        "carphone_pristine.mp4": 120,
    }
    for name, count in counts.items():
        clip = video.decode(folder / name, size=(8, 8))
        info = video.probe(folder / name)
        assert clip.frames.shape == (count, 8, 8, 3)
        grid = np.arange(count) / float(info.frame_rate)
        np.testing.assert_allclose(clip.timestamps, grid, atol=float(info.time_base) / 2 + 1e-9)
    # AVI has no presentation times: B-frames delay the first frame by one.
    clip = video.decode(folder / "test.avi", size=(8, 8))
    np.testing.assert_allclose(clip.timestamps, (np.arange(164) + 1) / 25)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("arm_wrestling.mp4", (280, 256, 340)),
        ("bikes.mp4", (250, 272, 640)),
        ("bigbuckbunny.mp4", (132, 720, 1280)),
        ("scene_cuts.mp4", (250, 272, 1280)),
    ],
)
def test_real_files_in_full_size(shared: pathlib.Path, name: str, shape: tuple[int, ...]):
    first = video.decode(shared / "videos" / name, frames=2)
    assert first.frames.shape == (2, *shape[1:], 3)
    assert len(video.decode(shared / "videos" / name, size=(2, 2)).frames) == shape[0]


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotated_files_are_upright(shared: pathlib.Path, degrees: int):
    path = shared / "videos" / f"rot_{degrees}.mov"
    stored = stored_frame(path, 568, 320)
    upright = np.rot90(stored, -degrees // 90)
    clip = video.decode(path)
    assert clip.frames.shape == (3, *upright.shape)
    # Subsampled chroma is interpolated after the turn: close, not equal.
    difference = np.abs(clip.frames[0].astype(int) - upright)
    assert difference.mean() < 1
    together = video.decode_many([ClipRequest(path, frames=2)] * 2, size=(40, 40))
    assert np.array_equal(together[1].frames, video.decode(path, frames=2, size=(40, 40)).frames)


def stored_frame(path: pathlib.Path, width: int, height: int) -> np.ndarray:
    """The first frame as it is stored, by an ffmpeg command of its own."""
    exact = "scale=flags=bilinear+accurate_rnd+full_chroma_int,format=rgb24"
    command = [ffmpeg.executable(), "-loglevel", "error", "-noautorotate", "-i", str(path)]
    command += ["-frames:v", "1", "-vf", exact, "-f", "rawvideo", "-"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(height, width, 3)


def test_frames_agree_with_pyav(shared: pathlib.Path):
    av = pytest.importorskip("av")
    for name in ("pancake.mkv", "arm_wrestling.mp4", "carphone_pristine.mp4", "cricket.gif"):
        path = shared / "videos" / name
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            decoded = list(container.decode(stream))
            times = [frame.time for frame in decoded]
            picture = decoded[37].to_ndarray(format="rgb24")
        clip = video.decode(path)
        np.testing.assert_allclose(clip.timestamps, times, atol=1e-9)
        # PyAV rounds colours less exactly.
        assert np.abs(clip.frames[37].astype(int) - picture).mean() < 2


TO_709 = "scale=flags=accurate_rnd+full_chroma_int:out_color_matrix=bt709"
COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (90, 160, 30)]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("eight.mkv", ["-vf", f"{TO_709}:out_range=tv,format=yuv420p"]),
        ("ten.mkv", ["-vf", f"{TO_709}:out_range=tv,format=yuv420p10le"]),
        ("full.mkv", ["-vf", f"{TO_709}:out_range=pc,format=yuv444p"]),
        ("sixteen.mkv", ["-vf", "format=gbrp16le"]),
    ],
)
def test_flat_colours_are_exact(make_video, name: str, options: list[str]):
    for number, color in enumerate(COLORS):
        options_709 = ["-colorspace", "bt709"] if "scale" in options[1] else []
        path = make_video(
            f"{number}{name}",
            *(*options, *options_709, "-c:v", "ffv1"),
            source=f"color=c=0x{bytes(color).hex()}",
            seconds=0.08,
        )
        for size in (None, (20, 30)):
            pixel = video.decode(path, size=size).frames[0, 7, 9]
            assert np.abs(pixel.astype(int) - color).max() <= 2, (color, size)


def test_grey_sources_and_grey_output(make_video):
    path = make_video("grey.mkv", "-vf", "format=gray", "-c:v", "ffv1", seconds=0.2)
    rgb, grey = video.decode(path), video.decode(path, pixels="gray")
    assert grey.frames.shape == (5, 48, 64, 1)
    for channel in range(3):
        np.testing.assert_array_equal(rgb.frames[..., channel], grey.frames[..., 0])
    ten = make_video("grey10.mkv", "-vf", "format=gray10le", "-c:v", "ffv1", seconds=0.2)
    close = np.abs(video.decode(ten, pixels="gray").frames.astype(int) - grey.frames)
    assert close.max() <= 1


def test_alpha(make_video):
    half = "geq=lum='lum(X,Y)':cb='cb(X,Y)':cr='cr(X,Y)':a='if(lt(X,32),64,200)'"
    filters = f"format=yuva420p,{half},format=yuva420p"
    for name, codec in (("vp9a.webm", "libvpx-vp9"), ("vp8a.webm", "libvpx"), ("a.mkv", "ffv1")):
        options = ["-vf", filters, "-c:v", codec, "-auto-alt-ref", "0"]
        path = make_video(name, *(options if codec != "ffv1" else options[:4]), seconds=0.2)
        clip = video.decode(path, pixels="rgba")
        assert clip.frames.shape == (5, 48, 64, 4)
        assert clip.frames[0, 20, [4, 60], 3].tolist() == [64, 200]
        pair = video.decode_many([ClipRequest(path, frames=1)] * 2, size=(48, 64), pixels="rgba")
        np.testing.assert_array_equal(pair[1].frames, clip.frames[:1])
        assert video.decode(path).frames.shape == (5, 48, 64, 3)


@pytest.mark.parametrize(
    ("size", "fit", "shape"),
    [
        (None, "stretch", (95, 127)),
        ((10, 40), "stretch", (10, 40)),
        ((33, 33), "crop", (33, 33)),
        ((33, 33), "pad", (33, 33)),
        ((200, 300), "pad", (200, 300)),
        (48, "stretch", (48, 64)),
        (1, "stretch", (1, 1)),
        (190, "stretch", (190, 254)),
    ],
)
def test_sizes(make_video, size, fit: str, shape: tuple[int, int]):
    path = make_video("odd.mkv", "-vf", "scale=127:95,format=gbrp", "-c:v", "ffv1", seconds=0.2)
    clip = video.decode(path, frames=2, size=size, fit=fit)
    assert clip.frames.shape == (2, *shape, 3)


def test_portrait_short_side(make_video):
    path = make_video("tall.mp4", "-c:v", "libx264", size="40x90")
    assert video.decode(path, frames=1, size=20).frames.shape == (1, 45, 20, 3)


def test_crop_takes_the_middle_and_pad_keeps_all(make_video):
    bars = "color=c=red:s=30x48:r=25:d=0.2[l];[0][l]overlay=0:0,drawbox=x=98:w=30:c=blue:t=fill"
    path = make_video(
        "bars.mkv",
        *("-filter_complex", f"{bars},format=gbrp", "-c:v", "ffv1"),
        source="color=c=white",
        size="128x48",
        seconds=0.2,
    )
    crop = video.decode(path, frames=1, size=(24, 24), fit="crop").frames[0]
    assert crop.min() > 250
    pad = video.decode(path, frames=1, size=(64, 64), fit="pad").frames[0]
    red, blue = np.array([255, 0, 0]), np.array([0, 0, 255])
    assert np.abs(pad[32, 4] - red).max() < 4 and np.abs(pad[32, 60] - blue).max() < 4
    assert pad[:18].max() == 0 and pad[-18:].max() == 0 and pad[32, 32].min() > 250


def test_frames_may_be_changed(make_video):
    path = make_video("h264.mp4", *KINDS["h264.mp4"])
    for clip in (
        video.decode(path, frames=2),
        video.decode_many([ClipRequest(path, frames=2)] * 2, size=(8, 8))[1],
        video.decode(path, indices=[0, 0], size=8),
    ):
        clip.frames[...] = 0
        assert clip.frames.max() == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"start": -1.0},
        {"start": float("nan")},
        {"frames": 0},
        {"stride": 0},
        {"fps": Fraction(0)},
        {"fps": Fraction(5), "stride": 2},
        {"indices": ()},
        {"indices": (3, 1)},
        {"indices": (-1,)},
        {"indices": (1,), "frames": 2},
    ],
)
def test_requests_that_mean_nothing(fields: dict):
    with pytest.raises(ValueError, match=r"give|ask|use|choose|leave"):
        ClipRequest("x.mp4", **fields)
