"""Plans: what is read off a compiled program, which batch fits, and what happened when it ran."""

import dataclasses
import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

from experiments import configs
from experiments.config import Config, ConfigError
from experiments.parallel import Devices
from experiments.plan import Planned, communicated, largest, machine, plan
from zoo import cost

HERE = pathlib.Path(__file__).resolve().parent
PROGRAM = """
  %all-reduce.1 = f32[100]{0} all-reduce(%a), channel_id=1, replica_groups={{0,1,2,3}}, to_apply=%s
  %all-reduce = (f32[10,2]{1,0}, bf16[8]{0}) all-reduce-start(%b, %c), replica_groups=[1,4]<=[4]
  %done = (f32[10,2]{1,0}, bf16[8]{0}) all-reduce-done(%all-reduce)
  %all-gather.1 = (f32[4]{0}, f32[16]{0}) all-gather-start(%d), replica_groups={{0,1},{2,3}}
  %g = f32[16]{0:T(128)} all-gather(%d), replica_groups={}, dimensions={0}
  %p = (u8[3]{0}, u8[3]{0}, u32[], u32[]) collective-permute-start(%e), source_target_pairs={{0,1}}
  %r = f32[5]{0} reduce-scatter(%h), replica_groups={{0,1,2,3}}, dimensions={0}
  %f = f32[100]{0} fusion(%all-reduce.1), kind=kLoop, calls=%all-reduce.2
"""


def test_what_is_sent_is_read_off_the_program() -> None:
    assert list(communicated(PROGRAM, 4)) == [
        ("all-reduce", 400, 600),
        ("all-reduce", 96, 144),
        ("all-gather", 64, 32),
        ("all-gather", 64, 48),
        ("collective-permute", 3, 3),
        ("reduce-scatter", 20, 60),
    ]


@pytest.mark.parametrize(
    ("fixed", "each", "start", "refused", "compilations"),
    [
        (10e6, 1e3, 2, None, 10),
        (1e9, 2.4e6, 4, 15.9e9, 10),  # the compiler refuses a little before the memory ends
        (1e9, 1e9, 64, None, 10),
        (0, 40e6, 256, None, 4),
    ],
)
def test_the_largest_batch_is_closed_in(fixed, each, start, refused, compilations) -> None:
    usable, asked = int(16e9), []

    def needed(clips: int) -> int | None:
        asked.append(clips)
        memory = int(fixed + each * clips)
        return None if refused and memory > refused else memory

    fits, fails = largest(needed, start, usable, compilations)
    most = ((refused or usable) - fixed) / each
    assert fits <= most < fails and len(asked) == len(set(asked)) <= compilations
    if compilations == 10:
        assert fails - fits <= max(1, 0.05 * most)


def test_where_nothing_fits_or_nothing_ends() -> None:
    assert largest(lambda clips: None, 4, 100) == (0, 1)
    fits, fails = largest(lambda clips: 1, 4, 100, 3)
    assert fits >= 4 and fails is None


@pytest.mark.skipif(not pathlib.Path("/proc/self/clear_refs").exists(), reason="Linux tells it")
def test_the_predicted_memory_is_what_a_step_takes() -> None:
    found = subprocess.run(
        [sys.executable, HERE / "memory_program.py"],
        env=os.environ
        | {
            "PYTHONPATH": str(HERE.parents[1]),
            "JAX_PLATFORMS": "cpu",
            "MALLOC_TRIM_THRESHOLD_": "131072",  # glibc's own; malloc stays as it is
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert found.returncode == 0, found.stderr
    predicted, taken = map(int, found.stdout.split())
    assert predicted == pytest.approx(taken, rel=0.1)


def test_a_plan_for_this_machine() -> None:
    base = configs.load("cnn_small_grid")
    small = dataclasses.replace(base.data, frames=1, size=24, decode_size=24)
    lines: list[str] = []
    config = dataclasses.replace(base, data=small, batch_size=4)
    plan(config, "cpu", lambda line: lines.extend(line.splitlines()), compilations=2)
    text = "\n".join(lines)
    assert lines[0] == "Planned is one member of the search, alone."
    assert "cnn_small on cpu: 1 device of" in text and "4 clips of 1 frame of 24x24" in text
    assert "nothing, there is one device" in text
    assert "64 clips on a device, 64 in all; no limit was found" in text
    assert "2 programs compiled" in text and "nothing was run" in text


def test_names_that_are_not_known_and_compilers_that_are_not_there(monkeypatch) -> None:
    with pytest.raises(ConfigError, match=r"--plan: target is 'v9': use v5e:2x4.* or cpu"):
        machine("v9")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"v5e:2x4 needs libtpu: pip install '.*\[tpu\]'"):
        machine("v5e:2x4")
    with pytest.raises(ConfigError, match=r"h200 needs .*pip install 'jax\[cuda13\]'"):
        machine("h200")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
@pytest.mark.parametrize("name", ["v5e:2x4", "v5e:4x4", "v5e:8x8"])
def test_data_parallelism_sends_what_it_should(name) -> None:
    where = machine(name)
    n, config = where.devices.count, configs.load("cnn_small")
    planned = Planned(config, 10, where.devices)
    found = planned.compile(4 * n)
    assert found is not None
    ideal = 2 * (n - 1) / n * planned.gradients()
    assert ideal <= found.sent < 1.01 * ideal
    assert found.memory <= where.memory


def test_the_arithmetic_of_a_step_is_that_of_the_network() -> None:
    planned = Planned(Config(), 10, Devices())
    assert planned.batch(3)["clip"].shape == (3, 8, 72, 72, 3)
    # Backwards is twice forwards, less for the first layer, whose input needs no gradient, and more
    # where a gradient is a convolution over a margin of zeros.
    forward = cost.flops(planned.model, (8, 64, 64, 3))
    assert 2.5 * forward < planned.flops() < 3.2 * forward
