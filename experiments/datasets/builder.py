"""Preparation: a plan becomes ArrayRecord shards of encoded clips, once, and then it is cached.

The shards are written by a TFDS builder, without TensorFlow. Everything is written into a
temporary folder that is renamed when it is complete, under a lock: a preparation that is killed
leaves nothing that a later one takes for whole, and of two at once the second waits for the first.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import json
import multiprocessing
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from experiments.datasets.plan import Contents, Item, Plan, Rejected, end_with_parent, in_order
from experiments.datasets.records import (
    PREPARED,
    QUARANTINE,
    Broken,
    DataError,
    Prepared,
    Record,
    load,
    to_example,
)
from zoo.cache import lock

CLIPS_PER_SHARD = 256  # TFDS holds the clips of one shard in memory while it writes them

Say = Callable[[str], None]
Example = tuple[int, dict[str, Any]]


class EncodedClips(tfds.core.ShardBasedBuilder):
    """Encoded clips with their labels. It writes shard by shard: a split need not fit in memory."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None  # nothing is downloaded; TFDS would look for a list of checksums

    def __init__(
        self,
        *,
        data_dir: str,
        classes: Sequence[str],
        shards: Mapping[str, Sequence[Callable[[], Iterator[Example]]]],
    ) -> None:
        self._classes, self._shards = classes, shards
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "video": tfds.features.Scalar(dtype=np.object_, doc="A video file of one clip."),
            "label": tfds.features.ClassLabel(names=list(self._classes)),
            "source": tfds.features.Text(doc="Where the clip comes from."),
            "frames": tfds.features.Scalar(dtype=np.int64),
            "fps": tfds.features.Scalar(dtype=np.int64, doc="Numerator."),
            "fps_denominator": tfds.features.Scalar(dtype=np.int64),
            "constant_rate": tfds.features.Scalar(dtype=np.int64, doc="1 if so, else 0."),
            "height": tfds.features.Scalar(dtype=np.int64),
            "width": tfds.features.Scalar(dtype=np.int64),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Encoded clips.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(
        self, dl_manager: Any
    ) -> Mapping[str, Sequence[Callable[[], Iterator[Example]]]]:
        return self._shards

    def _log_download_bytes(self) -> None:
        """Nothing: TFDS would print about downloads that there are none of."""

    def _log_download_done(self) -> None:
        """Nothing, as above."""


def build(plan: Plan, cache: pathlib.Path, say: Say) -> Prepared:
    """The dataset of a plan, prepared now unless it is in the cache.

    Args:
        plan: what to prepare.
        cache: folder of all prepared datasets.
        say: where lines for the user go.

    Raises:
        DataError: it cannot be prepared, for instance because the disk is full.
    """
    directory = cache / plan.folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        waiting = f"Another process is preparing {plan.name}; waiting for it."
        with lock(cache / f".{plan.folder}.lock", lambda: say(waiting)):
            if not (directory / PREPARED).exists():
                _prepare(plan, directory, say)
        return load(directory)
    except OSError as error:
        raise DataError(
            f"{cache}: {plan.name} cannot be prepared there: {error}; make room, or set ZOO_CACHE "
            "to another folder."
        ) from error


def _prepare(plan: Plan, directory: pathlib.Path, say: Say) -> None:
    """Writes the dataset into `directory`, which appears complete or not at all."""
    contents = plan.contents()
    temporary = directory.with_name(f".{directory.name}.tmp")
    for leftover in (temporary, directory):  # of a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir()
    total = sum(map(len, contents.splits.values()))
    say(f"Preparing {total} clips of {plan.name} in {directory}.")
    started = time.perf_counter()
    try:
        with (
            tqdm(total=total, unit="clip", leave=False, disable=None) as bar,
            _executor(contents) as executor,
            contextlib.ExitStack() as streams,
        ):
            encoded = {}
            for split, items in contents.splits.items():
                encoded[split] = _Encoded(contents, items, executor, bar)
                streams.callback(encoded[split].close)
            builder = EncodedClips(
                data_dir=os.fspath(temporary),
                classes=contents.classes,
                shards={split: found.shards() for split, found in encoded.items()},
            )
            try:
                builder.download_and_prepare(download_dir=temporary / "downloads")
            except concurrent.futures.BrokenExecutor as error:
                raise DataError(
                    f"{plan.name}: a process that prepared clips was killed (out of memory?); run "
                    "again."
                ) from error
            except RuntimeError as error:  # from ArrayRecord, whose errors have no other type
                raise OSError(f"the shards could not be written: {error}") from error
        shutil.rmtree(temporary / "downloads")
        _describe(plan, contents, builder, temporary, encoded)
        temporary.replace(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    say(f"Prepared {plan.name} in {time.perf_counter() - started:.1f} s.")


class _Encoded:
    """The encoded clips of one split, in order, handed out shard by shard."""

    def __init__(
        self,
        contents: Contents,
        items: Sequence[Item],
        executor: concurrent.futures.Executor,
        bar: tqdm,
    ) -> None:
        self._items, self._bar = items, bar
        self.rejected: list[Rejected] = []
        self.counts = [0] * len(contents.classes)  # clips of each class
        self.frames = 0
        chunks = (items[i : i + contents.chunk] for i in range(0, len(items), contents.chunk))
        # Enough under way for every worker to find work while a shard is written.
        self._results = in_order(executor, contents.encode, chunks, 2 * _workers() + 1)
        self._pending: Iterator[Record | Rejected] = itertools.chain.from_iterable(self._results)

    def shards(self) -> list[Callable[[], Iterator[Example]]]:
        """One generator of examples for each shard; they must be exhausted in this order."""
        starts = range(0, len(self._items), CLIPS_PER_SHARD)
        return [functools.partial(self._shard, start) for start in starts]

    def close(self) -> None:
        self._results.close()

    def _shard(self, start: int) -> Iterator[Example]:
        count = min(CLIPS_PER_SHARD, len(self._items) - start)
        for key, result in enumerate(itertools.islice(self._pending, count), start):
            self._bar.update()
            if isinstance(result, Rejected):
                self.rejected.append(result)
            else:
                self.counts[result.label] += 1
                self.frames += result.frames
                yield key, to_example(result)


def _workers() -> int:
    return os.cpu_count() or 1


def _executor(contents: Contents) -> concurrent.futures.Executor:
    if not contents.processes:
        return concurrent.futures.ThreadPoolExecutor(_workers())
    # Spawned: a fork of a process that runs threads, such as JAX's, can deadlock.
    return concurrent.futures.ProcessPoolExecutor(
        _workers(), multiprocessing.get_context("spawn"), initializer=end_with_parent
    )


def _describe(
    plan: Plan,
    contents: Contents,
    builder: EncodedClips,
    directory: pathlib.Path,
    encoded: Mapping[str, _Encoded],
) -> None:
    """Writes the report of broken files and, last, the description that `load` reads."""
    splits: dict[str, list[tuple[str, int]]] = {}
    for split, info in builder.info.splits.items():
        names = [os.path.relpath(name, directory) for name in info.filepaths]
        splits[split] = list(zip(names, info.shard_lengths, strict=True))
    report = {
        "broken": [
            dataclasses.asdict(
                Broken(entry.item.source, split, contents.classes[entry.item.label], entry.reason)
            )
            for split, found in encoded.items()
            for entry in found.rejected
        ],
        "duplicates": contents.duplicates,
    }
    _write_json(directory / QUARANTINE, report)
    description = {
        "name": plan.name,
        "recipe": plan.recipe,
        "classes": contents.classes,
        "splits": splits,
        "counts": {split: found.counts for split, found in encoded.items()},
        "frames": {split: found.frames for split, found in encoded.items()},
        "aliases": contents.aliases,
        "notes": contents.notes,
    }
    _write_json(directory / PREPARED, description)


def _write_json(path: pathlib.Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", "utf-8")
