"""The same training on any number of devices and hosts, also where batches do not divide evenly."""

import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

HERE = pathlib.Path(__file__).resolve().parent
PROGRAM = HERE / "devices_program.py"
# Eleven clips on eight devices: two each, then one, then none.
UNEVEN, EVEN = 11, 16


def start(output: pathlib.Path, batch_size: int, devices: int, *hosts: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, PROGRAM, output, str(batch_size), *hosts],
        env=os.environ
        | {
            "PYTHONPATH": str(HERE.parents[1]),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*processes: subprocess.Popen) -> None:
    try:
        for process in processes:
            out, _ = process.communicate(timeout=240)
            assert process.returncode == 0, out
    finally:
        for process in processes:
            process.kill()


def on_two_hosts(output: pathlib.Path, batch_size: int, devices: int) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    hosts = [start(output, batch_size, devices, address, "2", str(host)) for host in (0, 1)]
    finish(*hosts)


def compare(one: pathlib.Path, other: pathlib.Path, devices: int) -> None:
    with np.load(one) as expected, np.load(other) as found:
        assert found["devices"] == devices and set(found) == set(expected)
        for name in set(expected) - {"devices"}:
            np.testing.assert_allclose(
                found[name], expected[name], rtol=1e-3, atol=2e-5, err_msg=name
            )


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> pathlib.Path:
    output = tmp_path_factory.mktemp("alone") / "state.npz"
    finish(start(output, UNEVEN, 1))
    return output


def test_eight_devices_and_an_uneven_batch(alone, tmp_path) -> None:
    finish(start(tmp_path / "state.npz", UNEVEN, 8))
    compare(alone, tmp_path / "state.npz", 8)


def test_two_hosts_of_four_devices_and_an_uneven_batch(alone, tmp_path) -> None:
    on_two_hosts(tmp_path / "state.npz", UNEVEN, 4)
    compare(alone, tmp_path / "state.npz", 8)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 8])
def test_even_batches(tmp_path, devices) -> None:
    finish(start(tmp_path / "one.npz", EVEN, 1))
    finish(start(tmp_path / "several.npz", EVEN, devices))
    compare(tmp_path / "one.npz", tmp_path / "several.npz", devices)


@pytest.mark.slow
def test_two_devices_and_an_uneven_batch(alone, tmp_path) -> None:
    finish(start(tmp_path / "state.npz", UNEVEN, 2))
    compare(alone, tmp_path / "state.npz", 2)
