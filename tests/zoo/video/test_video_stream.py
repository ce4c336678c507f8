"""Whole videos in pieces: the frames and times of `decode`, bounded, and nothing left behind."""

import threading
import time
from fractions import Fraction

import numpy as np
import pytest

from zoo import video
from zoo.video.stream import VideoStream, View


def collect(stream: VideoStream, view: int = 0) -> tuple[np.ndarray, np.ndarray]:
    pieces = [piece for piece in stream if piece.view == view]
    return (
        np.concatenate([piece.frames for piece in pieces]),
        np.concatenate([piece.times for piece in pieces]),
    )


VIEWS = {
    "own size": (View(None), {}),
    "stretched": (View((30, 40)), {"size": (30, 40)}),
    "short side": (View(24), {"size": 24}),
    "cropped, grey": (
        View((24, 24), "crop", "gray"),
        {"size": (24, 24), "fit": "crop", "pixels": "gray"},
    ),
    "padded": (View((32, 32), "pad"), {"size": (32, 32), "fit": "pad"}),
    "slower": (View((24, 32), fps=Fraction(10)), {"size": (24, 32), "fps": 10}),
}


@pytest.mark.parametrize("name", VIEWS)
def test_equals_decode(name, make_video):
    path = make_video("a.mp4", "-g", "10")
    view, arguments = VIEWS[name]
    expected = video.decode(path, **arguments)
    with VideoStream(path, [view]) as stream:
        frames, times = collect(stream)
    assert np.array_equal(frames, expected.frames)
    assert np.array_equal(times, expected.timestamps)


def test_one_pass_serves_several_views(make_video):
    path = make_video("a.mp4", "-g", "10")
    views = [View((24, 32)), View((48, 64), fps=Fraction(5)), View(16, pixels="gray")]
    with VideoStream(path, views) as stream:
        pieces = list(stream)
    for number, view in enumerate(views):
        with VideoStream(path, [view]) as stream:
            alone, times = collect(stream)
        own = [piece for piece in pieces if piece.view == number]
        assert np.array_equal(np.concatenate([piece.frames for piece in own]), alone)
        assert np.array_equal(np.concatenate([piece.times for piece in own]), times)


@pytest.mark.parametrize(
    "name", ["test.avi", "rot_90.mov", "unordered.mov", "cricket.gif", "pancake.mkv"]
)
def test_real_files_have_the_times_of_decode(name, shared):
    path = shared / "videos" / name
    expected = video.decode(path, size=(27, 48))
    with VideoStream(path, [View((27, 48))], threads=2) as stream:
        frames, times = collect(stream)
    assert np.array_equal(frames, expected.frames)
    assert np.array_equal(times, expected.timestamps)


def test_bytes_are_a_source(make_video):
    content = make_video("a.mp4", "-g", "10").read_bytes()
    with VideoStream(content, [View((24, 32))], name="mine") as stream:
        assert len(collect(stream)[0]) == 50 and stream.name == "mine"


def test_broken_file_gives_its_frames_and_then_the_error(make_video, tmp_path):
    whole = make_video("long.mkv", "-g", "10", seconds=8).read_bytes()
    path = tmp_path / "cut.mkv"
    path.write_bytes(whole[: len(whole) // 2])
    frames = 0
    with VideoStream(path, [View((24, 32))]) as stream, pytest.raises(video.BrokenVideo) as caught:
        for piece in stream:
            frames += len(piece.frames)
    assert 50 < frames < 150
    assert "cut.mkv" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"", video.NotAVideo), (b"no video at all" * 100, video.NotAVideo)],
)
def test_what_is_no_video_is_refused(content, error, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with VideoStream(path, [View(24)]) as stream, pytest.raises(error):
        next(iter(stream))


def test_absent_file(tmp_path):
    with (
        VideoStream(tmp_path / "absent.mp4", [View(24)]) as stream,
        pytest.raises(FileNotFoundError),
    ):
        list(stream)


def test_waits_for_the_reader_and_ends_when_it_leaves(make_video, leaves_nothing):
    """However long the video, no more than `ahead` bytes and one piece are decoded unread."""
    path = make_video("b.mp4", "-g", "10", size="320x240", seconds=20)
    before = threading.active_count()
    with VideoStream(path, [View(None)], ahead=2**20) as stream:
        first = next(iter(stream))
        deadline = time.monotonic() + 60
        while stream.waiting() <= 2**20 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        assert 2**20 < stream.waiting() <= 2**20 + 4 * first.frames.nbytes
    assert threading.active_count() == before
    leaves_nothing()


def test_views_are_checked(make_video):
    with pytest.raises(ValueError, match=r"fps is -1"):
        View(24, fps=Fraction(-1))
    with pytest.raises(ValueError, match="at least one view"):
        VideoStream(make_video("a.mp4", "-g", "10"), [])
