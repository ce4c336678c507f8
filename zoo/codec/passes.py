"""Passes over the groups of a video: without fitted weights, in search of a rate, within a time."""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from zoo.codec import container
from zoo.codec.source import Pictures

_MOST_PASSES = 7  # To find the quantiser of a rate.
_NEAR = 0.985  # A file of this share of the wanted size is near enough.
_COARSEST = 255


class Progress(NamedTuple):
    """How far a compression is.

    Attributes:
      frames, of: done in this pass, and all.
      bytes: of the best groups so far.
      rate: theirs, in bits per second; None before the first is whole.
      psnr: of their luma, the mean over frames in dB; None before the first is whole.
      seconds: since the beginning.
    """

    frames: int
    of: int
    bytes: int
    rate: float | None
    psnr: float | None
    seconds: float


class _Late(Exception):
    """There is no time to end this group."""


class _Part(NamedTuple):
    """A group, the bits that its tables say, its decibels summed over frames, and its seconds."""

    group: container.Group
    bits: float
    quality: float
    seconds: float

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return len(self.group.pack())


class Passes:
    """The best groups so far, and ways to make them better.

    Ctrl-C (KeyboardInterrupt) comes out of each method; `groups` are then the best so far.
    """

    def __init__(
        self,
        pictures: Pictures,
        group_frames: int,
        report: Callable[[Progress], None] | None,
        begin: float,
    ) -> None:
        """group_frames: most of a group; begin: what the progress counts seconds from."""
        self._pictures, self._report, self._begin = pictures, report, begin
        self._firsts = list(range(0, len(pictures.y), group_frames))
        self._group_frames = group_frames
        self._parts: list[_Part] = []

    @property
    def groups(self) -> list[container.Group]:
        """The best so far, from the first on without a gap."""
        return [part.group for part in self._parts]

    @property
    def bits(self) -> float:
        """What the tables say that the groups take."""
        return math.fsum(part.bits for part in self._parts)

    @property
    def size(self) -> int:
        """Bytes of the groups."""
        return sum(part.size for part in self._parts)

    def plain(self, quantiser: int) -> None:
        """All groups without fitted weights."""
        self.fitted(quantiser, 0)

    def fitted(self, quantiser: int, steps: int) -> None:
        """All groups, each network fitted by so many steps, however long it takes."""
        parts: list[_Part] = []
        whole = len(self._parts) == len(self._firsts)
        for number in range(len(self._firsts)):
            parts.append(self._part(number, quantiser, steps))
            if not whole:  # Until there is a whole pass, its beginning is the best there is.
                self._parts = parts
        self._parts = parts

    def search(self, most: float, quantiser: int, end: float) -> int:
        """Groups of at most `most` bytes in all, or as few as there are; gives their quantiser.

        quantiser: where to begin; end: when to stop with what was found (time.monotonic).
        """
        best: tuple[int, list[_Part]] | None = None
        smallest: tuple[int, list[_Part]] | None = None
        above, below = -1, _COARSEST + 1  # The finest known to be within, the coarsest known not.
        sizes: list[tuple[int, float]] = []
        for _ in range(_MOST_PASSES):
            begin = time.monotonic()
            self.plain(quantiser)
            sizes.append((quantiser, math.log2(max(self.size, 1) / max(most, 1))))
            if smallest is None or self.size < sum(part.size for part in smallest[1]):
                smallest = quantiser, self._parts
            if self.size <= most:
                below, best = quantiser, (quantiser, self._parts)
            else:
                above = quantiser
            near = _NEAR * most <= self.size <= most
            late = time.monotonic() + (time.monotonic() - begin) > end
            if near or late or below - above == 1:
                break
            # Twenty-four quantisers halve the size, unless two passes say otherwise.
            slope = 1 / 24
            if len(sizes) > 1 and sizes[-1][0] != sizes[-2][0]:
                (a, x), (b, y) = sizes[-2:]
                slope = min(max((x - y) / (b - a), 1 / 72), 1 / 12)
            # A little within is better than a little above.
            guess = quantiser + round((sizes[-1][1] + 0.01) / slope)
            quantiser = min(max(guess, above + 1), below - 1)
        found = best or smallest
        assert found is not None
        self._parts = found[1]
        return found[0]

    def fit(self, quantiser: int, steps: int, end: float, most: float = math.inf) -> None:
        """Fits weights for one group after the other as long as there is time.

        end: when all must be done (time.monotonic); most: bytes of all groups. All groups must be
        there already. Where bytes are bounded, one is replaced only if its luma gets better.
        """
        for number, part in enumerate(self._parts if steps else ()):
            now = time.monotonic()
            until = now + (end - now) / (len(self._parts) - number)
            if now >= until:
                return
            try:
                better = self._part(number, quantiser, steps, until, end)
            except _Late:
                return
            fits = self.size - part.size + better.size <= most
            if math.isinf(most) or (fits and better.quality > part.quality):
                self._parts = [*self._parts[:number], better, *self._parts[number + 1 :]]

    def _part(
        self,
        number: int,
        quantiser: int,
        steps: int,
        until: float = math.inf,
        end_of_all: float = math.inf,
    ) -> _Part:
        """Encodes one group, if it can be by `until`; raises _Late at `end_of_all`."""
        from zoo.codec import group as coding
        from zoo.codec import padding, structure
        from zoo.codec.fit import Effort

        pictures = self._pictures
        first = self._firsts[number]
        end = min(first + self._group_frames, len(pictures.y))
        fits = len({piece.depth for piece in structure.pieces(end - first)})
        usual = min((p.seconds / len(p.group.ticks) for p in self._parts), default=math.inf)
        watch = _Watch(until, end - first, fits, usual, end_of_all)

        def tell(done: int) -> None:
            self._tell(first + done)
            watch.finished(done)

        planes = padding.padded(pictures, first, end)
        effort = Effort(steps)
        data, bits, decoded = coding.encode(planes, quantiser, effort, tell, watch.spare)
        h, w = pictures.y.shape[1:]
        error = np.square(np.asarray(decoded.y - planes.y)[:, :h, :w]).mean((1, 2))
        quality = float(np.sum(10 * np.log10(255**2 / np.maximum(error, 1e-6))))
        ticks = pictures.ticks[first:end]
        last = pictures.last if end == len(pictures.y) else pictures.ticks[end] - ticks[-1]
        group = container.Group(number, first, ticks, last, data)
        return _Part(group, bits, quality, watch.seconds)

    def _tell(self, done: int) -> None:
        if self._report is None:
            return
        rate = psnr = None
        if self._parts:
            frames = sum(len(part.group.ticks) for part in self._parts)
            last = self._parts[-1].group
            ticks = last.ticks[-1] + last.last - self._parts[0].group.ticks[0]
            rate = 8 * self.size / float(ticks * self._pictures.time_base)
            psnr = sum(part.quality for part in self._parts) / frames
        seconds = time.monotonic() - self._begin
        self._report(Progress(done, len(self._pictures.y), self.size, rate, psnr, seconds))


class _Watch:
    """Says how long each fit of one group may take for the group to be ready in time."""

    def __init__(
        self, until: float, frames: int, fits: int, usual: float, end: float = math.inf
    ) -> None:
        """usual: seconds that a frame takes without fits; end: when it is too late."""
        self._until, self._frames, self._fits, self._usual = until, frames, fits, usual
        self._end = end
        self._begin, self._asked, self._fitting, self._done = time.monotonic(), 0.0, 0.0, 0

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._begin

    def spare(self) -> float:
        """The next fit's share of what the frames to come leave over."""
        self._asked = time.monotonic()
        if math.isinf(self._until):
            return self._until
        each = self._usual
        if self._done > 1:
            each = min(each, (self.seconds - self._fitting) / self._done)
        left = self._until - self._asked - each * (self._frames - self._done)
        self._fits -= 1
        return left / (self._fits + 1) if self._fits >= 0 else 0.0

    def finished(self, frames: int) -> None:
        """So many are done; raises _Late where it is too late for what is left."""
        now = time.monotonic()
        if self._asked:
            self._fitting, self._asked = self._fitting + now - self._asked, 0.0
        self._done = frames
        if now > self._end:
            raise _Late
