"""What must be in the process environment before XLA starts; imports nothing but the library.

XLA reads XLA_FLAGS once, when the first backend is created, and an unknown flag in it aborts the
process. So the flags are chosen from the installed version of jaxlib, read from the package's
metadata without importing jax, and a flag that the user has already set is left as it is.

CPU: jaxlib sends convolutions and matrix products to YNNPACK. Without it (an empty list of fusion
types) the training step of cnn_small on 256 clips of 1 frame of 64x64 took 0.56 s in place of
1.9 s on jaxlib 0.10.2 and 0.68 s in place of 0.75 s on 0.12.0.1 (two cores, AMD EPYC, 2026-11-22),
and its weight gradients are ten times more exact.

Memory: XLA's CPU client takes every temporary from malloc, and glibc gives blocks of this size
back to the system when they are freed, so that each step faults in, and clears, all its memory
again: 122,000 page faults and 0.25 s of system time in a step of cnn_base on 8 frames, 30,000 and
0.05 s when malloc keeps what it has (same machine and date, donated arguments). The price is that
the process does not shrink; and where small blocks come and go between the large ones, as in the
analysis of a film, it grows by whole large blocks, now and then, until enough of them lie about.
`return_large_blocks` is for a process in which a level use of memory is worth more: each block of
16 MiB is the system's again when it is freed (analysis of a film with blocks of 38 MB: 314 to 316
MB at its end in place of 350 to 458, for 5 % more processor time). Any variable that tunes glibc's
malloc and is set by the user, or another allocator in LD_PRELOAD, leaves malloc alone.
"""

import ctypes
import importlib.metadata
import os
import platform

# flag, its value, first version of jaxlib and first later minor version that it was not tried with.
_FLAGS = (("--xla_cpu_experimental_ynn_fusion_type", "", (0, 10, 2), (0, 13)),)


# mallopt's parameters, from malloc.h: never give memory back (M_TRIM_THRESHOLD), never map a block
# by itself (M_MMAP_MAX), one arena for all threads (M_ARENA_MAX), or each would keep its own.
_MALLOC = {-1: -1, -4: 0, -8: 1}
# Blocks from this size on are mapped by themselves (M_MMAP_THRESHOLD), any number (M_MMAP_MAX).
_MAPPED = {-3: 2**24, -4: 65536}
_MALLOC_VARIABLES = (
    "GLIBC_TUNABLES",
    "LD_PRELOAD",
    "MALLOC_ARENA_MAX",
    "MALLOC_MMAP_MAX_",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
)


def flags_for(version: str) -> tuple[str, ...]:
    """The XLA flags for one version of jaxlib, for example "0.10.2"."""
    number = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
    return tuple(f"{flag}={value}" for flag, value, low, high in _FLAGS if low <= number < high)


def prepare() -> None:
    """Sets what is described above, each unless the user has. Harmless when called twice."""
    _add_flags()
    _tune_malloc(_MALLOC)


def return_large_blocks() -> None:
    """From now on memory use is level rather than fast; see above."""
    _tune_malloc(_MAPPED)


def _tune_malloc(values: dict[int, int]) -> None:
    if platform.libc_ver()[0] == "glibc" and not any(v in os.environ for v in _MALLOC_VARIABLES):
        libc = ctypes.CDLL(None)
        for parameter, value in values.items():
            libc.mallopt(parameter, value)


def _add_flags() -> None:
    present = os.environ.get("XLA_FLAGS", "")
    names = {word.partition("=")[0] for word in present.split()}
    missing = [
        flag
        for flag in flags_for(importlib.metadata.version("jaxlib"))
        if flag.partition("=")[0] not in names
    ]
    if missing:
        os.environ["XLA_FLAGS"] = " ".join([*present.split(), *missing])
