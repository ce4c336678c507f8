"""Chips that one can compile for without having them, and what a compiler tells about a program.

A target is a chip and, for TPUs, the shape of the slice: `v5e:2x4`, `v6e:2x4`, `v4:2x2x2`,
`v5p:2x2x2`, `h200`. Imports nothing local and no jax: the compilers are in targets_tpu.py and
targets_cuda.py, each with

    compile_report(function: Callable[..., Any], arguments: Sequence[jax.ShapeDtypeStruct],
                   target: Target) -> Report

which raises TargetError, a sentence for the user, where the compiler is not installed.
"""

import dataclasses
import re

# For each chip its platform and the number of axes of its slices; none for a single GPU.
_CHIPS = {"v4": ("tpu", 3), "v5e": ("tpu", 2), "v5p": ("tpu", 3), "v6e": ("tpu", 2)}
_CHIPS["h200"] = ("cuda", 0)
_EXAMPLES = "v5e:2x4, v6e:2x4, v4:2x2x2, v5p:2x2x2 or h200"
# A slice has at most this many chips along an axis; the description of larger ones takes memory.
_LONGEST = 16


class TargetError(RuntimeError):
    """A chip that cannot be compiled for here; the message says what is missing."""


@dataclasses.dataclass(frozen=True)
class Target:
    """chip: "v5e". topology: chips along each axis of a TPU slice. platform: "tpu" or "cuda"."""

    chip: str
    topology: tuple[int, ...]
    platform: str

    @classmethod
    def parse(cls, text: str) -> "Target":
        """The target called `text`. Raises ValueError for a name that is not known."""
        chip, _, rest = text.partition(":")
        if chip not in _CHIPS:
            raise ValueError(f"target is {text!r}: use {_EXAMPLES}")
        platform, axes = _CHIPS[chip]
        sizes = tuple(int(n) for n in rest.split("x")) if re.fullmatch(r"\d+(x\d+)*", rest) else ()
        fits = all(1 <= size <= _LONGEST for size in sizes)
        if len(sizes) != axes or not fits or (text != chip and not sizes):
            raise ValueError(f"target is {text!r}: use {_EXAMPLES}")
        return cls(chip, sizes, platform)

    def __str__(self) -> str:
        return ":".join([self.chip, *filter(None, ["x".join(map(str, self.topology))])])


@dataclasses.dataclass(frozen=True)
class Report:
    """What a compiler tells about one program; None where it does not tell.

    memory: bytes of device memory that the program needs at its peak beside the arguments
        and results.
    copies, copied: the number of whole-array transposes and layout copies in the optimised program,
        and the bytes they write.
    cycles: the compiler's own estimate for the whole program, for comparing two versions of a
        program on the same chip; not a time. None where the compiler has no
        estimate for a part of it, such as a Pallas kernel.
    bundles: instruction bundles that the program executes (TPU), a count that XLA's instructions
        and Pallas kernels have in common; waiting is not in it.
    exact: whether bundles counts all; else loops of unknown length count as running once, and
        there are at least as many.
    vmem: bytes of on-chip memory that the hungriest of the program's kernels claims (TPU).
    registers, spills, shared: registers a thread, bytes spilled and bytes of shared memory of the
        hungriest kernel (GPU).
    kernels: how many kernels the program starts.
    """

    memory: int | None = None
    copies: int = 0
    copied: int = 0
    cycles: int | None = None
    bundles: int | None = None
    exact: bool | None = None
    vmem: int | None = None
    registers: int | None = None
    spills: int | None = None
    shared: int | None = None
    kernels: int | None = None
