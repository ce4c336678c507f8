"""Several processes on one machine: how they start, what they leave, and the loss of one."""

import json
import os
import pathlib
import signal
import socket
import time

import pytest

from experiments.config import ConfigError
from experiments.hosts import Distributed, how_to_start

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_NTASKS": "2",
}
KUBERNETES = {
    "JAX_COORDINATOR_ADDRESS": "train-workers-0-0.train:1234",
    "JAX_NUM_PROCESSES": "4",
    "JOB_COMPLETION_INDEX": "3",
}


def test_by_hand_the_environment_does_not_matter() -> None:
    wanted = Distributed("node1:1234", 2, 0)
    found = how_to_start(wanted, SLURM | KUBERNETES, tpu=True)
    assert found == {
        "coordinator_address": "node1:1234",
        "num_processes": 2,
        "process_id": 0,
        "cluster_detection_method": "deactivate",
    }


@pytest.mark.parametrize(
    ("environment", "tpu", "expected"),
    [
        ({}, False, None),
        ({}, True, {}),
        (SLURM, False, {"cluster_detection_method": "slurm"}),
        (SLURM | {"SLURM_NTASKS": "1"}, False, None),
        # A batch script outside of a step, or a shell in an allocation: one process.
        ({k: v for k, v in SLURM.items() if k != "SLURM_STEP_NODELIST"}, False, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, False, {}),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False, None),
        (KUBERNETES | {"JAX_NUM_PROCESSES": "1", "JOB_COMPLETION_INDEX": "0"}, False, None),
    ],
)
def test_others_are_found_by_the_environment(environment, tpu, expected) -> None:
    assert how_to_start(Distributed(), environment, tpu=tpu) == expected
    assert how_to_start(Distributed(detect=False), environment, tpu=tpu) is None


def test_kubernetes_numbers_its_pods() -> None:
    found = how_to_start(Distributed(), KUBERNETES, tpu=False)
    assert found is not None and found["num_processes"] == 4 and found["process_id"] == 3
    with pytest.raises(ConfigError, match=r"JAX_NUM_PROCESSES is '4'.*''"):
        how_to_start(Distributed(), {**KUBERNETES, "JOB_COMPLETION_INDEX": ""}, tpu=False)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (("node1", 2, 0), "coordinator is 'node1'"),
        (("node1:1", 0, 0), "num_processes is 0"),
        (("node1:1", 2, 2), "process_id is 2: set a number from 0 to 1"),
        (("", 2, 0), "without distributed.coordinator"),
    ],
)
def test_a_mistake_is_named(values, said) -> None:
    with pytest.raises(ConfigError, match=said):
        Distributed(*values)


def start(command_line, count: int, cwd: pathlib.Path, *arguments: str, devices: int = 2) -> list:
    """`count` processes of so many devices each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    several = ("--distributed.coordinator", address, "--distributed.num_processes", str(count))
    return [
        command_line.start(
            *arguments,
            *(several if count > 1 else ()),
            *(("--distributed.process_id", str(number)) if count > 1 else ()),
            cwd=cwd,
            JAX_PLATFORMS="cpu",
            XLA_FLAGS=f"--xla_force_host_platform_device_count={devices}",
        )
        for number in range(count)
    ]


def ended(processes: list) -> list[tuple[int, str, str]]:
    try:
        found = [(*process.communicate(timeout=280), process.returncode) for process in processes]
        return [(status, out, err) for out, err, status in found]
    finally:
        for process in processes:
            process.kill()


def epochs(run: pathlib.Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
    return [line for line in lines if "val/loss" in line]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "killed", [pytest.param(0, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.by_hand)]
)
def test_a_lost_host_ends_the_job_and_one_goes_on(command_line, tiny, tmp_path, killed) -> None:
    arguments = ["--config", "cnn_small", *tiny, "--batch_size=3", "--checkpoint_steps=1"]
    arguments += ["--epochs=8", "--optim.learning_rate=1e-4"]
    both = start(command_line, 2, tmp_path, *arguments, "--out", "run")
    saved = tmp_path / "run" / "checkpoints" / "last"
    try:
        assert command_line.wait_until(
            lambda: any(p.name.isdecimal() and int(p.name) > 8 for p in saved.glob("*")),
            both[0],
            240,
        ), both[0].communicate()
        os.kill(both[killed].pid, signal.SIGKILL)
        lost = time.monotonic()
        both[1 - killed].wait(timeout=120)
        assert time.monotonic() - lost < 60
    finally:
        results = ended(both)
    status, _, err = results[1 - killed]
    assert status not in (0, None)
    assert "--resume" in err or "another task died" in err, err
    if killed == 1:
        assert "has lost the others" in err and "Traceback" not in err

    (one,) = ended(start(command_line, 1, tmp_path, *arguments, "--out", "run", "--resume"))
    assert one[0] == 0 and "Going on from step" in one[1], one
    (other,) = ended(start(command_line, 1, tmp_path, *arguments, "--out", "alone"))
    assert other[0] == 0, other
    # The same clips in the same steps, none twice: the same run but for rounding.
    found, expected = epochs(tmp_path / "run"), epochs(tmp_path / "alone")
    assert [line["step"] for line in found] == [6 * epoch for epoch in range(1, 9)]
    for line, like in zip(found, expected, strict=True):
        assert line["train/loss"] == pytest.approx(like["train/loss"], rel=2e-3)
        assert line["val/loss"] == pytest.approx(like["val/loss"], rel=2e-3)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_hosts_share_a_search(command_line, tiny, tmp_path) -> None:
    arguments = ["--config", "cnn_small", *tiny, "--batch_size=5", "--search.folds", "2"]
    arguments += ["--search.learning_rate", "1e-3", "1e-2", "--search.halving", "2"]
    for status, out, err in ended(start(command_line, 2, tmp_path, *arguments, "--out", "two")):
        assert status == 0, (out, err)
    ((status, _, err),) = ended(start(command_line, 1, tmp_path, *arguments, "--out", "one"))
    assert status == 0, err
    files = [sorted(path.name for path in (tmp_path / run).iterdir()) for run in ("one", "two")]
    assert files[0] == files[1] and "model.safetensors" in files[0]
    one, two = (json.loads((tmp_path / run / "metrics.json").read_text()) for run in ("one", "two"))
    assert [trial["epochs"] for trial in two["trials"]] == [2, 1]
    for found, expected in zip(two["trials"], one["trials"], strict=True):
        assert found["trial"] == expected["trial"] and found["epochs"] == expected["epochs"]
        assert found["val/loss"] == pytest.approx(expected["val/loss"], rel=2e-3)
    known = json.loads((tmp_path / "two" / "search.json").read_text())
    assert {name.split("-")[2] for name in known["done"]} == {"part0of2", "part1of2"}


@pytest.mark.by_hand
@pytest.mark.timeout(900)
def test_a_search_of_two_hosts_goes_on_with_one(command_line, tiny, tmp_path) -> None:
    arguments = ["--config", "cnn_small", *tiny, "--batch_size=5", "--search.folds", "2"]
    arguments += ["--search.learning_rate", "1e-4", "3e-4", "1e-3", "--search.seed", "0", "1"]
    arguments += ["--search.together=4", "--out"]
    both = start(command_line, 2, tmp_path, *arguments, "two")

    def some_are_trained() -> bool:
        known = [json.loads(path.read_text()) for path in (tmp_path / "two").glob("search-h*.json")]
        return any(one["done"] for one in known)

    try:
        assert command_line.wait_until(some_are_trained, both[0], 240), both[0].communicate()
        os.kill(both[1].pid, signal.SIGKILL)
    finally:
        results = ended(both)
    assert all(status != 0 for status, _, _ in results), results
    assert not (tmp_path / "two" / "metrics.json").exists()

    several = start(command_line, 1, tmp_path, *arguments, "two", "--resume", devices=3)
    ((status, out, err),) = ended(several)
    assert status == 0, (out, err)
    ((status, _, err),) = ended(start(command_line, 1, tmp_path, *arguments, "one", devices=1))
    assert status == 0, err
    runs = [tmp_path / run for run in ("one", "two")]
    one, two = (json.loads((run / "metrics.json").read_text()) for run in runs)
    assert len(one["trials"]) == 3
    for found, expected in zip(two["trials"], one["trials"], strict=True):
        assert found["trial"] == expected["trial"] and found["epochs"] == expected["epochs"] == 2
        assert found["val/loss"] == pytest.approx(expected["val/loss"], rel=2e-3)
        assert found["train/loss"] == pytest.approx(expected["train/loss"], rel=2e-3)
    done = json.loads((runs[1] / "search.json").read_text())["done"]
    assert {name.split("-")[2] for name in done} >= {"part0of1"}
    assert sorted(run for members in done.values() for run in members) == list(range(12))
    weights = [(run / "model.safetensors").stat().st_size for run in runs]
    assert weights[0] == weights[1]
