"""Compiles a program for an NVIDIA chip that is not here and reads off what the compilers say.

XLA compiles from a description of the chip (kernels/chips), without timing its choices on it. What
it says is in the optimised HLO; what the assembler says of XLA's kernels is found by running it
once more on the PTX that XLA leaves behind, and Mosaic writes down the assembler's words itself.
This tells whether a kernel compiles and what it takes, and which transposes are around it. It tells
no time.
"""

import contextlib
import dataclasses
import importlib.util
import math
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from kernels.targets import Report, Target, TargetError

_CHIPS = pathlib.Path(__file__).parent / "chips"
_PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")
# "%y = bf16[8,64]{1,0} transpose(..." or copy, at any depth of the program.
_COPY = re.compile(r" = (\w+)\[([\d,]*)\]\S* (?:transpose|copy)\(")
_KERNEL = re.compile(r" (?:fusion|custom-call)\(")
_REGISTERS = re.compile(r"Used (\d+) registers")
_SPILLS = re.compile(r"(\d+) bytes spill (?:stores|loads)")
_SHARED = re.compile(r"(\d+) bytes smem")
_LAUNCHED_SHARED = re.compile(r"dynamic_shared_memory_size %c(\d+)")
_MOSAIC = re.compile(r'kernel_hash = "([^"]+)"')
# By the hash of a Mosaic kernel.
_SAID: dict[str, str | None] = {}
_HLO_TYPES = {"pred": 1, "bf16": 2, "f16": 2, "f32": 4, "f64": 8, "c64": 8, "c128": 16}


def compile_report(
    function: Callable[..., Any], arguments: Sequence[jax.ShapeDtypeStruct], target: Target
) -> Report:
    """What the compilers say of `function` of arrays like `arguments` on one chip of `target`.

    Registers, spills and shared memory are None where no kernel was assembled, and where the words
    about a Mosaic kernel cannot be told from those about another: it is assembled once in a
    process, so ask about programs with one new kernel before those with several.
    Raises TargetError where jax's CUDA plugin or the assembler is not installed.
    """
    sharding = jax.sharding.SingleDeviceSharding(devices(target)[0])
    placed = [jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding) for a in arguments]
    assembler = _assembler()
    with tempfile.TemporaryDirectory() as name, _mosaic_writes_to(name):
        folder = pathlib.Path(name)
        lowered = jax.jit(function).lower(*placed)
        options = {"xla_gpu_autotune_level": 0, "xla_dump_to": name}
        compiled = lowered.compile(compiler_options=options)
        hlo = compiled.as_text() or ""
        said = [_assemble(assembler, file) for file in _ptx_of_xla(folder)]
        said += _about_mosaic(set(_MOSAIC.findall(hlo)), folder)
    text = "" if None in said else "\n".join(filter(None, said))
    memory = compiled.memory_analysis()
    return dataclasses.replace(
        read_hlo(hlo),
        memory=memory.temp_size_in_bytes if memory else None,
        registers=max(map(int, _REGISTERS.findall(text)), default=None),
        spills=max(map(int, _SPILLS.findall(text)), default=None),
        shared=max(map(int, _SHARED.findall(text)), default=None),
    )


def read_hlo(text: str) -> Report:
    """The copies and kernels in an optimised HLO module; the rest of the report is None."""
    sizes = [
        _itemsize(dtype) * math.prod(int(n) for n in shape.split(",") if n)
        for dtype, shape in _COPY.findall(text)
    ]
    return Report(copies=len(sizes), copied=sum(sizes), kernels=len(_KERNEL.findall(text)))


def _itemsize(dtype: str) -> int:
    """Bytes of an HLO type such as bf16, s32 or f8e4m3fn."""
    bits = re.match(r"[a-z]+(\d+)", dtype)
    return _HLO_TYPES.get(dtype) or max(1, int(bits[1]) // 8 if bits else 1)


def devices(target: Target) -> list[Any]:
    """The one device, to compile for. Raises TargetError where jax's CUDA plugin is not there."""
    if not any(importlib.util.find_spec(name) for name in _PLUGINS):
        raise TargetError(
            f"compiling for {target} needs jax's CUDA plugin: pip install 'jax[cuda13]'"
        )
    jnp.zeros(())  # starts jax's backends, and with them the plugin
    description = (_CHIPS / f"{target.chip}.textproto").read_text()
    found = topologies.get_topology_desc(
        platform="cuda", topology_name=target.chip, target_config=description, topology="1x1x1"
    )
    return list(found.devices)


def _assembler() -> str:
    """The path of ptxas: that of the nvidia-cuda-nvcc package, which the plugin brings, or any."""
    package = importlib.util.find_spec("nvidia")
    for folder in package.submodule_search_locations or () if package else ():
        for found in sorted(pathlib.Path(folder).glob("c*/bin/ptxas")):
            return str(found)
    found = shutil.which("ptxas")
    if found is None:
        raise TargetError("reading registers needs ptxas: pip install nvidia-cuda-nvcc")
    return found


def _about_mosaic(hashes: set[str], folder: pathlib.Path) -> list[str | None]:
    """What the assembler said of the Mosaic kernels of a program, now or at an earlier one."""
    new = hashes - _SAID.keys()
    words = []
    for file in folder.glob("*.ptxas"):
        passes = file.with_suffix(".mlir-passes.log").read_text()
        claims = [f"{n} bytes smem" for n in _LAUNCHED_SHARED.findall(passes)]
        words.append("\n".join([file.read_text(), *claims]))
    if len(new) == len(words) == 1:
        _SAID[new.pop()] = words[0]
    elif new:
        _SAID.update(dict.fromkeys(new, None))
        return [*words] if len(new) == len(words) and new == hashes else [None]
    return [_SAID[each] for each in hashes]


def _ptx_of_xla(folder: pathlib.Path) -> list[pathlib.Path]:
    return [file for file in sorted(folder.glob("module_*.ptx")) if ".entry" in file.read_text()]


def _assemble(assembler: str, file: pathlib.Path) -> str:
    architecture = re.search(r"^\.target (\w+)", file.read_text(), re.MULTILINE)
    if architecture is None:
        raise TargetError(f"{file.name} names no target: XLA's PTX is not as expected")
    command = [assembler, "-v", f"-arch={architecture[1]}", "-o", os.devnull, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise TargetError(f"{assembler} refuses {file.name}: {done.stderr[:500]}")
    return done.stderr


@contextlib.contextmanager
def _mosaic_writes_to(folder: str) -> Iterator[None]:
    """Mosaic GPU takes where to write from the environment, each time that it compiles."""
    name = "MOSAIC_GPU_DUMP_TO"
    before = os.environ.get(name)
    os.environ[name] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
