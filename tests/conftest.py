"""Fixtures that more than one test folder uses."""

import os
import pathlib

import pytest

# Video files, encoded bytes and golden values that are too large for the repository.
SHARED = pathlib.Path(
    os.environ.get("ZOO_SHARED", pathlib.Path(__file__).resolve().parents[2] / "shared")
)


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of real clips beside the checkout; the test is skipped where it is absent."""
    if not (SHARED / "videos").is_dir():
        pytest.skip(f"{SHARED}/videos is absent: set ZOO_SHARED to the folder of real clips")
    return SHARED
