"""Videos made by ffmpeg's test source, and what a process leaves behind."""

import contextlib
import os
import pathlib
import subprocess
from collections.abc import Callable

import pytest

from zoo.video import ffmpeg

MakeVideo = Callable[..., pathlib.Path]


@pytest.fixture(scope="session")
def make_video(tmp_path_factory: pytest.TempPathFactory) -> MakeVideo:
    """make_video(name, *options, size=, rate=, seconds=, source=) -> path, made once a session."""
    folder = tmp_path_factory.mktemp("videos")

    def make(
        name: str,
        *options: str,
        size: str = "64x48",
        rate: str = "25",
        seconds: float = 2,
        source: str = "testsrc2",
    ) -> pathlib.Path:
        path = folder / name
        if not path.exists():
            lavfi = f"{source}{':' if '=' in source else '='}s={size}:r={rate}:d={seconds}"
            command = [ffmpeg.executable(), "-loglevel", "error", "-nostdin", "-f", "lavfi"]
            subprocess.run([*command, "-i", lavfi, *options, str(path)], check=True)
        return path

    return make


def children() -> set[int]:
    """Process numbers of this process's children."""
    tasks = pathlib.Path(f"/proc/{os.getpid()}/task")
    if not tasks.is_dir():
        pytest.skip("the list of children is read from /proc, which is absent")
    found: set[int] = set()
    for task in tasks.iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
            found.update(map(int, (task / "children").read_text().split()))
    return found


@pytest.fixture
def leaves_nothing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A check, to be called last: no child, open descriptor or temporary file is left."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.chdir(temporary)
    descriptors = pathlib.Path("/proc/self/fd")
    before = children(), len(list(descriptors.iterdir()))

    def check() -> None:
        assert children() <= before[0]
        assert len(list(descriptors.iterdir())) == before[1]
        assert list(temporary.iterdir()) == []

    return check
