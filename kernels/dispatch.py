"""The only loop that chooses an implementation of an operator, and the way to ask what it chose.

An operator lists its implementations in order of preference, the XLA definition last. With
`implementation=None` each platform gets the first one that is meant for it and supports the
arguments; a named one is used or refused, it never falls back. The environment variable
ZOO_KERNELS=xla replaces None by "xla" everywhere, for a comparison.

The choice is made when a program is lowered for a platform, not when it is traced: the same traced
function runs its CPU form on `jax.devices("cpu")` and its TPU form on a TPU, and it can be lowered
for a chip that is not here. Each implementation runs in a named scope, which the compiler carries
along, so `implementations(function, *arguments)` reads off the program itself what is in it.
"""

import dataclasses
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
_SCOPE = re.compile(r"kernels\.(\w+)\.(\w+)")


@dataclasses.dataclass(frozen=True)
class Implementation:
    """One way to compute an operator.

    name: what `implementation=` takes, for example "xla" or "pallas_tpu". Several implementations
        for different platforms may share one.
    run: takes the operator's arrays and keyword parameters.
    platforms: where it may be chosen without being named.
    refuses: the reason why these arguments are not supported, or None where they are.
    """

    name: str
    run: Callable[..., Any]
    platforms: tuple[str, ...] = PLATFORMS
    refuses: Callable[..., str | None] = lambda *arrays, **parameters: None


def requested(implementation: str | None) -> str | None:
    """The implementation asked for by the argument or else by ZOO_KERNELS.

    Raises ValueError where ZOO_KERNELS is neither empty nor "xla".
    """
    if implementation is not None:
        return implementation
    wish = os.environ.get("ZOO_KERNELS", "")
    if wish not in ("", "xla"):
        raise ValueError(f"ZOO_KERNELS is {wish!r}: set it to 'xla' or leave it empty")
    return wish or None


def call(
    operator: str,
    candidates: Sequence[Implementation],
    implementation: str | None,
    *arrays: Any,
    **parameters: Any,
) -> Any:
    """Runs the named implementation, or on each platform the first that fits.

    Raises ValueError for an unknown name, NotImplementedError where the named implementation does
    not support the arguments.
    """

    def scoped(candidate: Implementation) -> Callable[..., Any]:
        def run(*arrays: Any) -> Any:
            with jax.named_scope(f"kernels.{operator}.{candidate.name}"):
                return candidate.run(*arrays, **parameters)

        return run

    if implementation is not None:
        names = list(dict.fromkeys(candidate.name for candidate in candidates))
        if implementation not in names:
            raise ValueError(
                f"{operator} has no implementation {implementation!r}: use one of {names}"
            )
        candidates = [c for c in candidates if c.name == implementation]
    refusals = [candidate.refuses(*arrays, **parameters) for candidate in candidates]
    fitting = [c for c, reason in zip(candidates, refusals, strict=True) if reason is None]
    if not fitting:
        raise NotImplementedError(
            f"{operator} cannot run as {implementation!r}, {refusals[-1]}: "
            "leave implementation=None to let the dispatcher choose"
        )
    by_platform = {
        platform: next((c for c in fitting if platform in c.platforms), fitting[-1])
        for platform in PLATFORMS
    }
    default = by_platform["cuda"]
    special = {p: scoped(c) for p, c in by_platform.items() if c is not default}
    if not special:
        return scoped(default)(*arrays)
    return jax.lax.platform_dependent(*arrays, default=scoped(default), **special)


def implementations(
    function: Callable[..., Any], *arguments: Any, platform: str | None = None
) -> set[tuple[str, str]]:
    """The (operator, implementation) pairs in the program of `function`, forward and backward.

    platform: for which to lower; by default the one jax would run on. Nothing is executed.
    """
    traced = jax.jit(function).trace(*arguments)
    lowered = traced.lower(lowering_platforms=(platform,) if platform else None)
    return set(_SCOPE.findall(lowered.as_text(debug_info=True)))
