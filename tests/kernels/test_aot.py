"""Compiling for chips that are not here: with libtpu really, without it reading its texts."""

import importlib.util
import json
import subprocess
import sys

import pytest

from kernels import aot, targets_tpu
from kernels.targets import Report

LISTING = """
 0x0   :  { %1 = setup }
 0x1 LB: > { %2 = first }
 0x2   :  {}
 0x3 LB: >> { %3 = inner }
 0x4   : >> { %p1 = scmp.ge.s32.totalorder %s1, 5 /* loop exit test */  ;;  %4 = more }
 0x5   : >> { %5 = sbr.rel (!%p1) target = $region2 }
 0x6   :  {}
 0x7 LB: >> { %p2 = scmp.ge.s32.totalorder %s2, 7 /* loop exit test */ }
 0x8 PF: > { %p3 = scmp.ge.s32.totalorder %s3, 10 /* loop exit test */ }
 0x9   :  { %6 = done }
"""
PROGRAM = """
ENTRY %main {
  %copy = bf16[32,56,56,54]{3,0,2,1:T(8,128)(2,1)} copy(%x), "estimated_cycles":"100"
  %copy.1 = f32[27]{0} copy(%w), backend_config={"estimated_cycles":"1"}
  %fusion = bf16[32,56,56,54]{3,0,2,1} fusion(%copy), "estimated_cycles":"900","size":"1",
  %copy_bitcast_fusion = f32[256,256]{1,0} fusion(%fusion), calls=%c, "estimated_cycles":"9"
  %transpose.3 = f32[256,256]{0,1} transpose(%fusion), "estimated_cycles":"5","size":"9",
  %custom-call = f32[256,256]{0,1} custom-call(%p), custom_call_target="ConcatBitcast"
  %tuple.9 = (f32[256,256]{0,1}) tuple(%transpose.3), "memory_space":"1","offset":"0","size":"4096"
}
"""


def test_bundles_are_counted_as_often_as_their_loops_run():
    inner = 5 * 4 + 7 * 1  # the empty bundle after a branch belongs to its loop
    assert targets_tpu.executed(LISTING) == (2 + 10 * (3 + inner), True)


def test_a_loop_of_unknown_length_counts_once():
    listing = LISTING.replace("%s2, 7 /*", "%s2, %s9 /*")
    assert targets_tpu.executed(listing) == (2 + 10 * (3 + 5 * 4 + 1), False)


def test_a_counter_may_grow_by_more_than_one():
    listing = LISTING.replace("%1 = setup", "%s3 = sadd.s32 4, %s9")
    assert targets_tpu.executed(listing) == (2 + 3 * (3 + 5 * 4 + 7), True)


def test_what_follows_a_loop_under_its_mark_runs_once():
    listing = LISTING + " 0xa   :  { %7 = end }\n 0xb   : > { %8 = after }\n 0xc   :  { %9 = x }\n"
    assert targets_tpu.executed(listing) == (2 + 10 * (3 + 27) + 3, True)


def test_copies_and_estimates_are_read_off_the_program():
    report = targets_tpu.read(PROGRAM, 12, [LISTING, LISTING])
    size = 32 * 56 * 56 * 54 * 2 + 2 * 256 * 256 * 4
    assert report == Report(12, 3, size, 1015, 2 * (2 + 10 * 30), True, 4096, kernels=5)


@pytest.mark.parametrize(
    "line",
    [
        '%k = f32[8,128]{1,0} custom-call(%x), custom_call_target="tpu_custom_call"',
        "ROOT %s = bf16[8,9,9,64]{3,2,1,0} select-and-scatter(%x, %dy, %zero), select=%ge",
    ],
)
def test_a_program_with_a_part_of_unknown_length_has_no_estimate(line):
    program = PROGRAM.replace("  %copy.1", f"  {line}\n  %copy.1")
    assert targets_tpu.read(program, 12, []).cycles is None


def test_the_table_and_a_failure_in_it():
    row = aot.Row("conv", "a.shape", "forward", "xla_rewrite", Report(bundles=2_000_000))
    assert "2.000 Mbundles ( 1.50x)" in aot.line(row, Report(bundles=3_000_000))
    least = Report(bundles=2_000_000, exact=False)
    row = aot.Row("conv", "a.shape", "forward", "xla_rewrite", least)
    line = aot.line(row, Report(bundles=3_000_000, exact=True))
    assert ">=   2.000 Mbundles" in line and "x)" not in line
    row = aot.Row("conv", "a.shape", "forward", "pallas_tpu", None, "too large")
    assert aot.line(row, None).endswith("does not compile: too large")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "v9"], "use v5e:2x4"),
        (["--target", "v5e:2x4", "cnn_base.conv9"], "no shape is called cnn_base.conv9"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit):
        aot.main(arguments)
    assert message in capsys.readouterr().err


def command(*arguments):
    run = [sys.executable, "-m", "kernels.aot", *arguments]
    return subprocess.run(run, capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is installed")
def test_without_libtpu_one_sentence_says_what_to_install():
    done = command("--target", "v5e:2x4", "x3d_m.stage5")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == (
        "python -m kernels.aot: v5e:2x4 needs libtpu: pip install 'jax-video-zoo[tpu]'"
    )


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
@pytest.mark.slow
@pytest.mark.parametrize("target", ["v5e:2x4", "v6e:2x4"])
def test_the_depthwise_kernels_compile(target, tmp_path):
    out = tmp_path / "out.json"
    done = command("--target", target, "x3d_m.stage2", "--batch", "8", "--json", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(out.read_text())["rows"]
    assert {row["candidate"] for row in rows} >= {"xla", "pallas_tpu"}
    assert all((row["report"]["cycles"] or row["report"]["bundles"] or 1) > 0 for row in rows)
    assert all(row["report"]["cycles"] for row in rows if row["candidate"] == "xla")
