"""A run that is killed, stopped or out of disk goes on exactly where it was."""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

# A checkpoint after every step, so that a kill often falls into the writing of one.
SETTINGS = ("--checkpoint_steps=1", "--epochs=3", "--augment.crop=random", "--optim.ema_decay=0.9")


# Up to six whole runs in one test, each of which compiles: seconds on an idle machine.
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def alone(command_line, tiny, tmp_path_factory) -> pathlib.Path:
    """The same run, left alone."""
    folder = tmp_path_factory.mktemp("alone")
    result = command_line(*tiny, *SETTINGS, "--out", "run", cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder / "run"


def same_result(run: pathlib.Path, other: pathlib.Path) -> None:
    assert (run / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()

    def lines(path: pathlib.Path) -> list[dict]:
        text = (path / "metrics.jsonl").read_text().splitlines()
        timing = ("seconds", "stage/", "input/", "clips_per_second")
        return [
            {k: v for k, v in json.loads(line).items() if not k.startswith(timing)} for line in text
        ]

    assert lines(run) == lines(other)


def test_kill_9_at_any_moment_changes_nothing(alone, command_line, tiny, tmp_path) -> None:
    moments = random.Random(0)
    arguments = (*tiny, *SETTINGS, "--out", "run")
    writing = tmp_path / "run" / "checkpoints" / "last"
    process = command_line.start(*arguments, cwd=tmp_path)
    kills = 0
    for attempt in range(4):
        if attempt % 2 == 0:  # while a checkpoint is being written
            hit = command_line.wait_until(
                lambda: any("tmp" in path.name for path in _listing(writing)), process, 120
            )
        else:  # a while after some checkpoint
            seen = set(_listing(writing))
            hit = command_line.wait_until(
                lambda seen=seen: set(_listing(writing)) - seen, process, 120
            )
            time.sleep(moments.random() * 0.3)
        if not hit:
            break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
        process = command_line.start(*arguments, "--resume", cwd=tmp_path)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert kills >= 2
    same_result(tmp_path / "run", alone)


def _listing(folder: pathlib.Path) -> list[pathlib.Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_says_how_to_go_on(number, alone, command_line, tiny, tmp_path) -> None:
    arguments = (*tiny, *SETTINGS, "--out", "run")
    process = command_line.start(*arguments, cwd=tmp_path)
    last = tmp_path / "run" / "checkpoints" / "last"
    assert command_line.wait_until(lambda: len(_listing(last)) > 0, process, 240)
    process.send_signal(number)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 128 + number
    assert "--resume" in out and "Traceback" not in err
    result = command_line(*arguments, "--resume", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Going on from step" in result.stdout
    same_result(tmp_path / "run", alone)


@pytest.mark.slow
def test_interrupted_before_the_first_step_there_is_nothing_to_lose(
    command_line, tiny, tmp_path
) -> None:
    process = command_line.start(*tiny, "--out", "run", cwd=tmp_path)
    assert command_line.wait_until((tmp_path / "run" / "config.json").exists, process, 240)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 128 + signal.SIGINT and "Traceback" not in err
    result = command_line(*tiny, "--out", "run", "--resume", cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_an_import_is_not_interrupted(command_line, tmp_path) -> None:
    (tmp_path / "interrupted.py").write_text(
        "import os, signal, time\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "time.sleep(0.2)\n"
        "print('imported')\n"
    )
    program = (
        "import sys, time\n"
        "from experiments.run import Signals\n"
        "sys.path.insert(0, '')\n"
        "with Signals() as signals:\n"
        "  try:\n"
        "    import interrupted\n"
        "    time.sleep(60)\n"
        "  except KeyboardInterrupt:\n"
        "    print('stopped by', signals.asked)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=command_line.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split() == ["imported", "stopped", "by", f"[{int(signal.SIGINT)}]"]


def test_an_interrupt_asked_for_again_does_not_come_when_all_is_over(command_line) -> None:
    program = (
        "import signal, time, types\n"
        "from experiments.run import Signals\n"
        "with Signals() as signals:\n"
        "  signals.asked.append(signal.SIGINT)\n"
        "  signals._ask_again(types.SimpleNamespace(exc_type=KeyboardInterrupt))\n"
        "time.sleep(0.5)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=command_line.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_an_interrupt_in_a_callback_of_the_garbage_collector_is_not_lost(command_line) -> None:
    program = (
        "import gc, os, signal, time\n"
        "from experiments.run import Signals\n"
        "def callback(phase, info):\n"
        "  if phase == 'start':\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(0.001)\n"
        "with Signals() as signals:\n"
        "  try:\n"
        "    gc.callbacks.append(callback)\n"
        "    gc.collect()\n"
        "    gc.callbacks.clear()\n"
        "    time.sleep(60)\n"
        "  except KeyboardInterrupt:\n"
        "    print('stopped by', signals.asked[-1])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=command_line.environment,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (result.stdout, result.stderr) == (f"stopped by {signal.SIGTERM.value}\n", "")


def test_a_loss_that_is_no_number_names_the_step_and_the_clips(
    command_line, tiny, tmp_path
) -> None:
    result = command_line(*tiny, "--optim.learning_rate=1e30", "--epochs=9", cwd=tmp_path)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "at step" in result.stderr and result.stderr.count("train/") >= 10


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 16 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    made = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], capture_output=True
    )
    if not made or made.returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
def test_a_full_disk_is_an_error_and_the_run_goes_on_when_there_is_room(
    alone, small_disk, command_line, tiny
) -> None:
    arguments = (*tiny, *SETTINGS, "--out", "run")
    filler = small_disk / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 11 << 20)
    result = command_line(*arguments, cwd=small_disk)
    assert result.returncode == 1, result.stdout
    assert "Traceback" not in result.stderr
    assert "--resume" in result.stderr and "run" in result.stderr
    filler.unlink()
    result = command_line(*arguments, "--resume", cwd=small_disk)
    assert result.returncode == 0, result.stderr
    same_result(small_disk / "run", alone)
