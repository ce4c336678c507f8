"""The command line in a process of its own, on the smallest run that is still whole."""

import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]

# Two steps an epoch, two epochs; real rendering, encoding, decoding, training and testing.
TINY = (
    "--data.train_clips=20",
    "--data.val_clips=10",
    "--data.test_clips=10",
    "--data.frames=2",
    "--data.size=32",
    "--data.decode_size=36",
    "--batch_size=10",
    "--epochs=2",
    "--eval.batch_size=10",
)


class CommandLine:
    """Starts `python -m experiments.run` with a cache that all tests of the session share."""

    def __init__(self, cache: pathlib.Path) -> None:
        self._settings = {
            "ZOO_CACHE": str(cache),
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONUNBUFFERED": "1",
        }

    @property
    def environment(self) -> dict[str, str]:
        """This process's, which tests change, with these settings."""
        return os.environ | self._settings

    def start(self, *arguments: str, cwd: pathlib.Path, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "experiments.run", *arguments],
            cwd=cwd,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @staticmethod
    def wait_until(
        condition: Callable[[], bool], process: subprocess.Popen, seconds: float
    ) -> bool:
        """Polls until `condition` holds; False if the process ended before it did."""
        deadline = time.monotonic() + seconds
        while not condition():
            if process.poll() is not None:
                return False
            assert time.monotonic() < deadline, f"nothing happened in {seconds} s"
            time.sleep(0.001)
        return True

    def __call__(
        self, *arguments: str, cwd: pathlib.Path, **environment: str
    ) -> subprocess.CompletedProcess:
        process = self.start(*arguments, cwd=cwd, **environment)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture(scope="session")
def command_line(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    return CommandLine(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    return TINY
