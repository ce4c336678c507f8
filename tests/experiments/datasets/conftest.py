"""Small video files, and preparation in processes of its own."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from zoo import video

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def clips() -> list[bytes]:
    """Thirty different videos of 6 frames of 32x24 pixels, 10 frames per second."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (30, 6, 24, 32, 3), np.uint8)
    return video.encode_many(list(frames), fps=10, crf=30, keyframe_interval=2)


@pytest.fixture
def make_files(tmp_path: pathlib.Path, clips: list[bytes]) -> Callable[..., pathlib.Path]:
    """Writes different videos under the given names, and nothing but these names, below a root."""

    def make(*names: str, root: str = "data") -> pathlib.Path:
        for number, name in enumerate(names):
            path = tmp_path / root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(clips[number])
        return tmp_path / root

    return make


@pytest.fixture
def start_script(tmp_path: pathlib.Path) -> Callable[..., subprocess.Popen]:
    """Starts a Python script, which prepares into the cache `tmp_path/cache`."""
    started: list[subprocess.Popen] = []

    def start(text: str, *arguments: str) -> subprocess.Popen:
        path = tmp_path / f"script{len(started)}.py"
        path.write_text(text)
        environment = {"ZOO_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(REPOSITORY)}
        process = subprocess.Popen(
            [sys.executable, str(path), *arguments],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
