"""Compiles for a TPU that is not here, through libtpu, and reads off what the compiler tells.

XLA writes an estimate of cycles beside each of its own instructions, and none beside a Pallas
kernel. What both have is the listing of their instruction bundles. Those are counted, each as often
as the loops around it run, branches as if always taken. A bundle takes one cycle at least; waiting
for memory or for the matrix unit is not in the count. XLA's estimates are up to four times the
bundles of the same instruction, so the one is not to be compared with the other.
"""

import functools
import importlib.util
import math
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies

from kernels.targets import Report, Target, TargetError

# Copies smaller than this are scalars and weights, not layouts of whole arrays.
_SMALL = 1 << 16
_ITEM = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "f64": 8}
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
}
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%(\S+) = (\w+)\[([\d,]*)\]\S* ([\w-]+)\(")
_OPCODE = re.compile(r"^\s*(?:ROOT )?%\S+ = .*? ([a-z][\w-]*)\(")
# Instructions that run nothing of their own; every other one should carry an estimate.
_FREE = {"bitcast", "constant", "copy-done", "copy-start", "get-tuple-element", "parameter"}
_FREE |= {"after-all", "partition-id", "replica-id", "slice-done", "slice-start", "tuple"}
_NOTHING = re.compile(r'custom_call_target="(AllocateBuffer|ConcatBitcast)"')
_BUNDLE = re.compile(r"^\s*0x[0-9a-f]+\s+([A-Z]*)\s*:\s*((?:>\s*)*)\{(\})?")
_EXIT = re.compile(r"scmp\.\w+\.s32\.totalorder (%\w+), (\d+) /\* loop exit test \*/")
_STEP = re.compile(r"(%\w+) = sadd\.s32 (\d+), ")


@functools.cache
def _dump() -> pathlib.Path:
    """The folder where libtpu writes each kernel's bundles from now on.

    libtpu reads its environment once, when it is first used in a process.
    """
    folder = pathlib.Path(tempfile.mkdtemp(prefix="kernels-aot-"))
    flags = f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true"
    flags += " --xla_jf_dump_llo_pass_label_regex=final_bundles"
    os.environ["LIBTPU_INIT_ARGS"] = f"{os.environ.get('LIBTPU_INIT_ARGS', '')} {flags}".strip()
    return folder


def _require(target: Target) -> None:
    if importlib.util.find_spec("libtpu") is None:
        raise TargetError(f"{target} needs libtpu: pip install 'jax-video-zoo[tpu]'")


def devices(target: Target) -> list[Any]:
    """The devices of the slice, to compile for. Raises TargetError where libtpu is not there."""
    _require(target)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    return list(topologies.get_topology_desc(str(target), platform="tpu").devices)


@functools.cache
def _sharding(target: Target) -> jax.sharding.NamedSharding:
    """All of an array on the first chip of the slice."""
    mesh = jax.sharding.Mesh(np.array(devices(target)[:1]), ("data",))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def compile_report(
    function: Callable[..., Any], arguments: Sequence[jax.ShapeDtypeStruct], target: Target
) -> Report:
    """Compiles function(*arguments) for one chip of the target. Raises TargetError, see targets."""
    _require(target)
    folder = _dump()
    for left in folder.iterdir():
        left.unlink() if left.is_file() else shutil.rmtree(left)
    where = _sharding(target)
    placed = [jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=where) for a in arguments]
    compiled = jax.jit(function).lower(*placed).compile()
    text, memory = compiled.as_text(), compiled.memory_analysis()
    assert text is not None and memory is not None
    try:
        listings = [path.read_text() for path in sorted(folder.glob("*-final_bundles.txt"))]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    return read(text, memory.temp_size_in_bytes, listings)


def read(text: str, memory: int, listings: Sequence[str]) -> Report:
    """The report of an optimised program; listings: the final bundles of its instructions."""
    copies = [size for size in map(_copied, text.splitlines()) if size >= _SMALL]
    estimates = [int(n) for n in re.findall(r'"estimated_cycles":"(\d+)"', text)]
    claims = re.findall(r'"memory_space":"1","offset":"\d+","size":"(\d+)"', text)
    kernels = text.count('custom_call_target="tpu_custom_call"')
    counts = [executed(listing) for listing in listings]
    return Report(
        memory=memory,
        copies=len(copies),
        copied=sum(copies),
        cycles=None
        if any(map(_unknown, text[text.find("ENTRY") :].splitlines()))
        else sum(estimates),
        bundles=sum(count for count, _ in counts) if counts else None,
        exact=all(exact for _, exact in counts) if counts else None,
        vmem=max(map(int, claims), default=None),
        kernels=len(estimates) + kernels,
    )


def _unknown(line: str) -> bool:
    """Whether this instruction of the entry computation takes time and has no estimate.

    XLA's own select-and-scatter is one of them, as a Pallas kernel is.
    """
    match = _OPCODE.match(line)
    if not match or match[1] in _FREE or _NOTHING.search(line):
        return False
    return '"estimated_cycles"' not in line


def _copied(line: str) -> int:
    """Bytes that this instruction writes, if it only moves an array into another layout, else 0."""
    match = _INSTRUCTION.match(line)
    if not match:
        return 0
    name, kind, sizes, opcode = match.groups()
    moves = opcode == "copy" or (opcode == "fusion" and name.startswith(("copy_", "transpose_")))
    if not moves and opcode != "transpose":
        return 0
    return math.prod(int(n) for n in sizes.split(",") if n) * _ITEM.get(kind, 4)


def executed(listing: str) -> tuple[int, bool]:
    """How many bundles an instruction executes, from the listing of its final bundles.

    A line is marked with one ">" for each loop around it, LB where a loop begins; after a loop's
    end some lines may still carry its mark. The test at a loop's end compares its counter with a
    limit; the counter grows by a constant from zero. A loop that runs a number of times that is not
    in the listing counts once, and the second result is then False: the first is a lower bound.
    """
    loops: list[list[int]] = [[0, 1]]  # of each open loop the bundles of one run, and the runs
    exact = True
    growth = {name: int(step) for name, step in _STEP.findall(listing)}

    def close(depth: int) -> None:
        nonlocal exact
        while len(loops) > depth + 1:
            bundles, runs = loops.pop()
            exact = exact and runs > 0
            loops[-1][0] += bundles * max(runs, 1)

    for line in listing.splitlines():
        match = _BUNDLE.match(line)
        if match:
            # An empty bundle carries no mark, wherever it is.
            depth = len(loops) - 1 if match[3] else match[2].count(">")
            begins = match[1] == "LB"
            close(depth - begins)
            if begins:
                loops.extend([0, 0] for _ in range(depth + 1 - len(loops)))
            loops[-1][0] += 1
        test = _EXIT.search(line)
        if test and len(loops) > 1:
            loops[-1][1] = -(-int(test[2]) // growth.get(test[1], 1))
    close(0)
    return loops[0][0], exact
