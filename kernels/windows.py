"""Sliding windows over the spatial axes of an array [n, *spatial, c]: sizes, padding, offsets."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

import jax
from jax import lax

# "VALID", "SAME" or one (low, high) pair for each spatial axis.
Padding = str | Sequence[tuple[int, int]]


def per_axis(value: int | Sequence[int], axes: int, name: str) -> tuple[int, ...]:
    """One positive integer for each spatial axis.

    Raises ValueError for a wrong count or a number below 1.
    """
    values = (value,) * axes if isinstance(value, int) else tuple(value)
    if len(values) != axes or min(values) < 1:
        raise ValueError(f"{name} is {value!r}: give one positive integer, or {axes} of them")
    return values


@dataclasses.dataclass(frozen=True)
class Windows:
    """A window and how it moves; every field has one entry for each spatial axis."""

    sizes: tuple[int, ...]  # of the input
    window: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]

    @classmethod
    def of(
        cls,
        shape: Sequence[int],
        window: int | Sequence[int],
        stride: int | Sequence[int],
        padding: Padding,
        dilation: int | Sequence[int] = 1,
    ) -> "Windows":
        """The windows over an input of `shape` [n, *spatial, c].

        Raises ValueError where there is no room for a single window, and for wrong arguments.
        """
        sizes = tuple(shape[1:-1])
        axes = len(sizes)
        window = per_axis(window, axes, "window")
        stride = per_axis(stride, axes, "stride")
        dilation = per_axis(dilation, axes, "dilation")
        reach = [(k - 1) * d + 1 for k, d in zip(window, dilation, strict=True)]
        if padding == "VALID":
            pairs = ((0, 0),) * axes
        elif padding == "SAME":
            total = [
                max((math.ceil(size / s) - 1) * s + r - size, 0)
                for size, s, r in zip(sizes, stride, reach, strict=True)
            ]
            pairs = tuple((t // 2, t - t // 2) for t in total)
        elif isinstance(padding, str) or len(padding) != axes:
            raise ValueError(f"padding is {padding!r}: use 'VALID', 'SAME' or {axes} (low, high)")
        else:
            pairs = tuple((int(low), int(high)) for low, high in padding)
            if min(min(pair) for pair in pairs) < 0:
                raise ValueError(f"padding is {padding!r}: crop the input in place of padding < 0")
        windows = cls(sizes, window, stride, pairs, dilation)
        if min(windows.outputs) < 1:
            raise ValueError(
                f"a window of {window} with dilation {dilation} does not fit into {sizes} "
                f"with padding {pairs}: use larger frames or more padding"
            )
        return windows

    @property
    def outputs(self) -> tuple[int, ...]:
        """How many windows there are along each axis."""
        return tuple(
            (size + low + high - (k - 1) * d - 1) // s + 1
            for size, (low, high), k, d, s in zip(
                self.sizes, self.padding, self.window, self.dilation, self.stride, strict=True
            )
        )

    @property
    def padded(self) -> bool:
        return any(low or high for low, high in self.padding)

    @property
    def still(self) -> tuple[bool, ...]:
        """For each axis whether its windows are single elements of the input."""
        return tuple(
            k == 1 and pair == (0, 0) for k, pair in zip(self.window, self.padding, strict=True)
        )

    def taps(self) -> Iterator[tuple[int, ...]]:
        """The offsets of the window's elements in padded coordinates, in row-major order."""
        steps = (range(0, k * d, d) for k, d in zip(self.window, self.dilation, strict=True))
        return itertools.product(*steps)

    def elements(self, padded: jax.Array) -> Iterator[jax.Array]:
        """For each element of the window that element of all windows, [n, *outputs, c].

        padded: the input with its padding, [n, *spatial, c].
        """
        strides = (1, *self.stride, 1)
        for tap in self.taps():
            ends = (
                o + (n - 1) * s + 1 for o, n, s in zip(tap, self.outputs, self.stride, strict=True)
            )
            yield lax.slice(
                padded, (0, *tap, 0), (padded.shape[0], *ends, padded.shape[-1]), strides
            )

    def spread(self) -> Iterator[list[tuple[int, int, int]]]:
        """For each element of the window how lax.pad brings [*outputs] back to its places.

        Low, high and interior padding of each spatial axis, to [*sizes]. Undoes `elements`.
        """
        for tap in self.taps():
            config = []
            for axis, offset in enumerate(tap):
                low = offset - self.padding[axis][0]
                reach = (self.outputs[axis] - 1) * self.stride[axis] + 1
                config.append((low, self.sizes[axis] - low - reach, self.stride[axis] - 1))
            yield config

    def along(self, axes: Sequence[int]) -> "Windows":
        """The windows over some of the spatial axes alone."""
        fields = [field.name for field in dataclasses.fields(self)]
        return Windows(**{f: tuple(getattr(self, f)[axis] for axis in axes) for f in fields})

    def with_time(self) -> "Windows":
        """The same windows over single frames, with a first axis of size 1."""
        return Windows(
            (1, *self.sizes),
            (1, *self.window),
            (1, *self.stride),
            ((0, 0), *self.padding),
            (1, *self.dilation),
        )
