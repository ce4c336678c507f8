"""Folders of small videos, whole and broken."""

import pathlib
from collections.abc import Callable

import numpy as np
import pytest

from zoo import video

BROKEN = {
    "cut.mp4": lambda whole: whole[: len(whole) // 2],
    "empty.mp4": lambda whole: b"",
    "text.mp4": lambda whole: b"this is no video\n" * 50,
    "zeros.avi": lambda whole: b"\0" * 4096,
    "sound only.mkv": None,
}


@pytest.fixture(scope="session")
def clip_bytes() -> Callable[[int], bytes]:
    """clip_bytes(seed): 1.2 s of a moving square in MP4."""

    def make(seed: int, frames: int = 30) -> bytes:
        rng = np.random.default_rng(seed)
        ground, square = rng.integers(0, 256, (2, 3))
        clip = np.broadcast_to(ground, (frames, 64, 96, 3)).astype(np.uint8).copy()
        for t in range(frames):
            clip[t, 20:44, 4 + t : 28 + t] = square
        return video.encode(clip, fps=25)

    return make


@pytest.fixture(scope="session")
def sound() -> bytes:
    """A Matroska file with a sine and no picture."""
    import subprocess

    from zoo.video import ffmpeg

    command = [ffmpeg.executable(), "-loglevel", "error", "-f", "lavfi", "-i", "sine=d=1"]
    done = subprocess.run([*command, "-f", "matroska", "-"], capture_output=True, check=True)
    return done.stdout


@pytest.fixture
def fill(clip_bytes, sound) -> Callable[..., None]:
    """fill(folder, whole=, broken=): writes so many videos of each kind."""
    encoded = [clip_bytes(seed) for seed in range(3)]

    def write(folder: pathlib.Path, whole: int, broken: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(whole):
            (folder / f"clip {number:02} ü'.mp4").write_bytes(encoded[number % 3])
        for name in list(BROKEN)[:broken]:
            spoil = BROKEN[name]
            (folder / name).write_bytes(sound if spoil is None else spoil(encoded[0]))

    return write
