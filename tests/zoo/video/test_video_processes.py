"""What an ffmpeg process leaves behind, however it or its parent ends: nothing."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from zoo import video
from zoo.video import ClipRequest, encode, pipes

LARGE = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "250"]


@pytest.fixture
def large(make_video) -> pathlib.Path:
    """600 frames of 640 x 480: more than any pipe holds, half a second to decode."""
    return make_video("large.mp4", *LARGE, source="color=c=red", size="640x480", seconds=24)


def test_good_and_bad_runs_leave_nothing(make_video, tmp_path, leaves_nothing):
    path = make_video("h264.mp4", "-c:v", "libx264", "-g", "12")
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(make_video("whole.mkv", "-c:v", "libx264").read_bytes()[:3000])
    frames = video.decode(path).frames
    video.probe(path.read_bytes())
    requests = [ClipRequest(source, frames=40) for source in (path, cut, path.read_bytes(), b"x")]
    video.decode_many(requests, size=(8, 8))
    for source in (cut, b"nonsense", b""):
        with pytest.raises(video.VideoError):
            video.decode(source)
    with pytest.raises(video.VideoTooLarge):
        video.decode(path, max_bytes=1000)
    video.shrink(path, short_side=16)
    video.encode(frames[:4], tmp_path / "out.mp4", fps=5)
    video.encode_many([frames[:4], frames[4:8]], fps=5)
    with pytest.raises(video.VideoError):
        video.encode(frames[:4], tmp_path / "bad.mp4", fps=5, preset="no such preset")
    assert sorted(p.name for p in tmp_path.glob("*.mp4")) == ["out.mp4"]
    leaves_nothing()


def test_timeout(large, leaves_nothing):
    begin = time.monotonic()
    with pytest.raises(video.VideoTimeout, match=r"large.mp4: .* 0.1 s"):
        video.decode(large, timeout=0.1)
    assert time.monotonic() - begin < 3
    results = video.decode_many([ClipRequest(large, indices=(599,))] * 2, size=(9, 9), timeout=0.05)
    assert all(isinstance(result, video.VideoTimeout) for result in results)
    with pytest.raises(video.VideoTimeout):
        video.shrink(large, short_side=300, timeout=0.2)
    leaves_nothing()


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MemoryError])
def test_interruption(large, leaves_nothing, monkeypatch, interruption):
    def interrupt(sink: pipes.Sink) -> bool:
        raise interruption

    monkeypatch.setattr(pipes.Sink, "read", interrupt)
    with pytest.raises(interruption):
        video.decode(large)
    leaves_nothing()


def test_a_stopped_ffmpeg_is_a_timeout(large, leaves_nothing, monkeypatch):
    """A child that hangs without reading, writing or ending."""
    start = subprocess.Popen.__init__

    def stopped(process: subprocess.Popen, *arguments, **options) -> None:
        start(process, *arguments, **options)
        os.kill(process.pid, signal.SIGSTOP)

    monkeypatch.setattr(subprocess.Popen, "__init__", stopped)
    with pytest.raises(video.VideoTimeout):
        video.decode(large, timeout=0.3)
    leaves_nothing()


def test_a_killed_ffmpeg_is_an_error(large, leaves_nothing, monkeypatch):
    start = subprocess.Popen.__init__

    def killed(process: subprocess.Popen, *arguments, **options) -> None:
        start(process, *arguments, **options)
        os.kill(process.pid, signal.SIGKILL)

    monkeypatch.setattr(subprocess.Popen, "__init__", killed)
    with pytest.raises(video.VideoError, match="killed by signal 9"):
        video.decode(large)
    with pytest.raises(video.VideoError, match="killed by signal 9"):
        video.encode(np.zeros((2, 8, 8, 3), np.uint8), fps=5)
    leaves_nothing()


PARENTS = {
    "decode": "video.decode(sys.argv[1])",
    "many": "video.decode_many([video.ClipRequest(sys.argv[1], frames=599)] * 2, size=(480, 640))",
    "encode": "video.encode(np.zeros((900, 480, 640, 3), np.uint8), sys.argv[1] + '.out', fps=5, "
    "preset='veryslow')",
}


@pytest.mark.skipif(not pathlib.Path("/proc").is_dir(), reason="processes are found in /proc")
@pytest.mark.parametrize("what", PARENTS)
def test_a_killed_parent_leaves_no_orphan(large, tmp_path, what: str):
    path = tmp_path / "large.mp4"
    path.write_bytes(large.read_bytes())
    script = f"""
        import sys, numpy as np
        from zoo import video
        {PARENTS[what]}
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script), str(path)])
    child = _wait_for(lambda: _ffmpeg_of(parent.pid))
    # Stopped first, so that the child certainly outlives its parent.
    parent.send_signal(signal.SIGSTOP)
    parent.kill()
    parent.wait()
    assert _wait_for(lambda: not _alive(child)), "ffmpeg outlived the process that started it"
    assert [p.name for p in tmp_path.iterdir()] == ["large.mp4"]


def _ffmpeg_of(parent: int) -> int | None:
    """The child of `parent` that runs ffmpeg."""
    try:
        text = pathlib.Path(f"/proc/{parent}/task/{parent}/children").read_text()
        for child in map(int, text.split()):
            if "ffmpeg" in pathlib.Path(f"/proc/{child}/cmdline").read_text().split("\0")[0]:
                return child
    except FileNotFoundError:
        pass
    return None


def _alive(process: int) -> bool:
    try:
        state = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _wait_for(condition):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.005)
    raise AssertionError("waited for 30 s in vain")


def test_interrupt_key_reaches_only_the_parent(large):
    """Ctrl-C goes to the terminal's whole process group: ffmpeg must not be in it."""
    groups = []
    run = subprocess.Popen.__init__

    def watch(process: subprocess.Popen, *arguments, **options) -> None:
        run(process, *arguments, **options)
        groups.append(os.getpgid(process.pid))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "__init__", watch)
        video.probe(large)
    assert groups and os.getpgrp() not in groups


def test_no_shell_and_no_inherited_options(make_video, monkeypatch, tmp_path):
    path = make_video("h264.mp4", "-c:v", "libx264", "-g", "12")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FFREPORT", "file=report.log:level=32")
    monkeypatch.setenv("AV_LOG_FORCE_COLOR", "1")
    assert video.probe(path).frames == 50
    assert len(video.decode(path, size=4).frames) == 50
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(encode_module().os, "fsync", full)
    with pytest.raises(video.VideoError, match=r"clip.mp4: the disk is full; free some space"):
        video.encode(np.zeros((2, 8, 8, 3), np.uint8), path, fps=5)
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]
    assert path.read_bytes() == b"old"


def test_really_full_disk(tmp_path):
    """A tiny file system, where the right to mount one is there."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no right to mount a small file system: {error}")
    try:
        noise = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)
        with pytest.raises(video.VideoError, match="the disk is full"):
            video.encode(noise, small / "clip.mp4", fps=5, crf=1)
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def encode_module():
    return sys.modules[encode.__module__]


def test_folder_is_absent(tmp_path):
    with pytest.raises(FileNotFoundError):
        video.encode(np.zeros((2, 8, 8, 3), np.uint8), tmp_path / "no" / "clip.mp4", fps=5)
