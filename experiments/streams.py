"""The batches that the members of a search read: some streams side by side, decoded once."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from experiments import data
from experiments.config import Config

Batch = dict[str, np.ndarray]


class Streams:
    """Batches of several configurations that differ in seed and fold, stacked: arrays [s b ...].

    Clips that are kept in memory are kept once for all streams, in `kept`.

    Args:
        configs: one for each stream.
        batch_size: clips in a batch of each.
        train: as for `experiments.data.batches`; else the clips that validate.
    """

    def __init__(
        self,
        prepared: data.Prepared,
        configs: Sequence[Config],
        batch_size: int,
        kept: dict[str, dict[int, Any]],
        *,
        train: bool,
    ) -> None:
        self._stack = contextlib.ExitStack()
        self.clips: list[int] = []
        self._iterators = []
        for config in configs:
            d = config.data
            source, subset = "train" if train or d.folds else "val", None
            if d.folds:
                subset = data.fold_positions(prepared, d)[0 if train else 1]
            self.clips.append(prepared.size(source) if subset is None else len(subset))
            iterator = data.batches(
                prepared,
                source,
                batch_size=batch_size,
                frames=d.frames,
                size=(d.decode_size, d.decode_size),
                fit=d.fit,
                sampling=d.sampling if train or d.sampling == "dense" else "uniform",
                stride=d.stride,
                train=train,
                seed=config.seed,
                workers=d.workers,
                threads=d.threads,
                timeout=d.timeout,
                memory=d.memory * 2**20,
                subset=subset,
                kept=kept.setdefault(source, {}),
            )
            self._stack.callback(iterator.close)
            self._iterators.append(iterator)
        self._lengths = [iterator.batches_per_epoch for iterator in self._iterators]

    def seek(self, epoch: int, batch: int) -> None:
        """Goes to a batch of an epoch; nothing was read before or the epoch is another one."""
        for iterator, length in zip(self._iterators, self._lengths, strict=True):
            position = epoch * length + min(batch, length)
            if iterator.get_state()["position"] != position:
                iterator.set_state({**iterator.get_state(), "position": position})

    def groups(self, first: int, size: int, end: int | None = None) -> Iterator[tuple[int, Batch]]:
        """An epoch from batch `first` on, and up to `end`, `size` batches of each stream at a time.

        Yields the number of the first and the clips, one batch after another. Where a stream has
        no more batches there are zeros, of weight 0.
        """
        longest = max(self._lengths)
        for start in range(first, longest if end is None else min(end, longest), size):
            rows = []
            for iterator, length in zip(self._iterators, self._lengths, strict=True):
                count = max(0, min(size, length - start))
                taken = [next(iterator) for _ in range(count)]
                rows.append(taken)
            like = next(taken[0] for taken in rows if taken)
            empty = {name: np.zeros_like(x) for name, x in like.items()}
            whole = [[*taken, *[empty] * (size - len(taken))] for taken in rows]
            yield (
                start,
                {
                    name: np.stack([np.concatenate([b[name] for b in taken]) for taken in whole])
                    for name in like
                },
            )

    def close(self) -> None:
        """Stops decoding."""
        self._stack.close()
