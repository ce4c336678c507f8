"""The process environment that XLA needs, set without importing jax."""

import os
import platform
import subprocess
import sys

import pytest

from kernels import environment

FLAG = "--xla_cpu_experimental_ynn_fusion_type"


def python(code, **variables):
    """Runs code in a new interpreter; returns what it prints."""
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | variables
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.mark.parametrize(
    ("version", "flags"),
    [
        ("0.10.1", ()),
        ("0.10.2", (f"{FLAG}=",)),
        ("0.12.0.1", (f"{FLAG}=",)),
        ("0.13.0", ()),  # not tried: an unknown flag would abort the process
    ],
)
def test_flags_follow_the_version(version, flags):
    assert environment.flags_for(version) == flags


def test_importing_the_package_imports_no_jax():
    code = "import sys, os, kernels; print('jax' in sys.modules, os.environ['XLA_FLAGS'])"
    assert python(code) == f"False {FLAG}="


@pytest.mark.parametrize("mine", [f"{FLAG}=1", f"--xla_cpu_enable_fast_math=false {FLAG}=1"])
def test_a_flag_of_the_user_stays(mine):
    code = "import os, kernels; print(os.environ['XLA_FLAGS'])"
    assert python(code, XLA_FLAGS=mine) == mine


def test_other_flags_of_the_user_are_kept_and_jax_accepts_ours():
    code = (
        "import os, kernels; kernels.environment.prepare(); import jax.numpy as jnp;"
        "print(int(jnp.ones(3).sum()), os.environ['XLA_FLAGS'])"
    )
    other = "--xla_cpu_enable_fast_math=false"
    assert python(code, XLA_FLAGS=other) == f"3 {other} {FLAG}="


FAULTS = """
import resource, sys
import kernels
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def use():
    block = libc.malloc(64 << 20)
    ctypes.memset(block, 1, 64 << 20)
    libc.free(block)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt belongs to glibc")
def test_freed_memory_is_kept_unless_the_user_tunes_malloc():
    assert int(python(FAULTS)) < 100
    assert int(python(FAULTS, MALLOC_TRIM_THRESHOLD_="131072")) > 100


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt belongs to glibc")
def test_large_blocks_are_given_back_where_that_is_asked_for():
    level = "import kernels; kernels.environment.return_large_blocks()\n"
    assert int(python(level + FAULTS)) > 100
