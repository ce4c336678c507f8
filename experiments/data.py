"""From a configuration to batches: prepares a dataset once, then reads it in a fixed order."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from experiments.config import Data
from experiments.datasets.plan import Plan
from experiments.datasets.records import PREPARED, DataError, Prepared, load
from experiments.datasets.shrinking import Shrinking
from experiments.datasets.splits import SPLITS, Splitting
from experiments.loader import BatchIterator, Decoder, Sampling, Stream
from zoo.cache import folder

__all__ = [
    "BatchIterator",
    "DataError",
    "Prepared",
    "batches",
    "cache_folder",
    "fold_positions",
    "prepare",
]

Kept = dict[int, Any]


def cache_folder() -> pathlib.Path:
    """Where prepared datasets are kept: `datasets` in $ZOO_CACHE or in ~/.cache/jax-video-zoo."""
    return folder("datasets")


def prepare(data: Data, *, say: Callable[[str], None] = print) -> Prepared:
    """The dataset of a configuration, prepared now unless it is in the cache.

    Args:
        data: dataset, sizes, splits and their seed.
        say: where lines for the user go.

    Raises:
        DataError: there are no usable clips, too many broken files, or no room for them.
    """
    plan = _plan(data)
    cache = cache_folder()
    if (cache / plan.folder / PREPARED).exists():
        prepared = load(cache / plan.folder)
    else:
        # Imported late: a prepared dataset is read without tensorflow-datasets.
        from experiments.datasets import builder

        prepared = builder.build(plan, cache, say)
    for note in prepared.notes:
        say(note)
    _check(prepared, plan.name, data.max_broken, say)
    return prepared


def _plan(data: Data) -> Plan:
    short_side = data.short_side or data.decode_size
    if data.dataset == "moving_shapes":
        from experiments.datasets.rendered import moving_shapes_plan

        clips = {"train": data.train_clips, "val": data.val_clips, "test": data.test_clips}
        return moving_shapes_plan(
            data.task,
            clips,
            size=short_side,
            seed=data.seed,
            crf=data.crf,
            keyframe_interval=data.keyframe_interval,
        )
    shrinking = Shrinking(short_side, data.keyframe_interval, data.crf)
    splitting = Splitting(data.val_fraction, data.test_fraction, data.seed)
    if data.dataset == "video_folder":
        from experiments.datasets.video_folder import video_folder_plan

        return video_folder_plan(data.root, shrinking, splitting)
    from experiments.datasets.tfds_sets import tfds_plan

    return tfds_plan(data.dataset.removeprefix("tfds:"), data.root, shrinking, splitting)


def _check(prepared: Prepared, name: str, max_broken: float, say: Callable[[str], None]) -> None:
    """Refuses data that no classifier can be trained on, before training starts."""
    broken = prepared.quarantine
    own = [split for split in prepared.splits if split not in prepared.aliases]
    files = sum(prepared.size(split) for split in own) + len(broken)
    if broken:
        summary = f"{len(broken)} of {files} clips of {name} are unusable"
        first = "; ".join(f"{entry.source} ({entry.reason})" for entry in broken[:3])
        where = f"all are listed with their reasons in {prepared.quarantine_file}"
        if len(broken) > max_broken * files:
            raise DataError(
                f"{summary}, more than the share of {max_broken:g} that data.max_broken tolerates: "
                f"{first}; {where}; replace or remove them, or raise data.max_broken."
            )
        say(f"{summary} and left out: {first}; {where}.")
    if len(prepared.classes) < 2:
        raise DataError(
            f"{name} has only the class {', '.join(prepared.classes)!r}: a classifier needs two "
            "or more; add clips of another class."
        )
    counts = zip(prepared.classes, prepared.counts["train"], strict=True)
    if empty := [name for name, count in counts if not count]:
        raise DataError(
            f"{name} has no usable training clip of {', '.join(map(repr, empty))}: add some, or "
            "remove the class."
        )
    for split in SPLITS:
        if split not in prepared.splits or not prepared.size(split):
            raise DataError(
                f"{name} has no clips in {split}: add some, or set data.{split}_fraction above 0 "
                "to divide the training clips."
            )


def fold_positions(prepared: Prepared, data: Data) -> tuple[list[int], list[int]]:
    """The positions in the training split that train and that validate, where there are folds.

    The clips are dealt to the folds in a random order that depends on `data.seed` alone.
    """
    order = np.random.default_rng([data.seed, data.folds]).permutation(prepared.size("train"))
    held = np.sort(order[data.fold :: data.folds])
    return np.setdiff1d(order, held).tolist(), held.tolist()


def batches(
    prepared: Prepared,
    split: str,
    *,
    batch_size: int,
    frames: int,
    size: tuple[int, int],
    fit: Literal["stretch", "crop", "pad"] = "stretch",
    sampling: Sampling = "segments",
    stride: int = 1,
    views: int = 1,
    train: bool,
    seed: int,
    epochs: int | None = None,
    workers: int = 0,
    threads: int = 2,
    host_index: int = 0,
    host_count: int = 1,
    parts: int = 1,
    timeout: float = 120.0,
    memory: int = 0,
    subset: Sequence[int] | None = None,
    kept: Kept | None = None,
) -> BatchIterator:
    """Batches of one split.

    In training the clips are shuffled anew in each epoch, incomplete batches are dropped, and
    there is no end unless `epochs` is given. In evaluation every clip comes once, in order, and
    the last batch is padded with clips of weight 0. Several hosts get different rows of the same
    batches: which clips make a batch does not depend on how many hosts there are.

    Args:
        prepared: a dataset from `prepare`.
        split: one of its splits.
        batch_size: clips in a batch, of all hosts together.
        frames: frames of a clip.
        size: height and width to which frames are decoded.
        fit: how a frame of another shape becomes `size`, see `zoo.video.decode`.
        sampling: in training, a random frame of each of `frames` equal segments ("segments"), the
            middle one ("uniform"), or consecutive frames `stride` apart from a random start
            ("dense"). In evaluation nothing is random.
        views: clips in time per video, in evaluation.
        train: as above.
        seed: of the order of the clips and the choice of frames, in training.
        epochs: passes over the split, in training.
        workers: Python processes that decode; 0 decodes from threads of this one.
        threads: ffmpeg processes at the same time (in each worker process).
        host_index, host_count: which of how many hosts this is.
        parts: a multiple of host_count, such as the devices of all hosts: a batch that does not
            divide into so many equal parts is padded with clips of weight 0.
        timeout: seconds without a batch after which the pipeline is declared dead.
        memory: a split whose decoded frames take no more than this many bytes is decoded once and
            then kept, unless worker processes decode.
        subset: positions of the clips that take part; None: all of the split.
        kept: where they are kept, to be shared by several iterators over the same split.

    Returns:
        An iterator over dicts of "clip" uint8, [b t h w c] in training and [b v t h w c] in
        evaluation, "label" int32 [b], "index" int32 [b], the position in the split, and "weight"
        float32 [b], where b are the rows of this host.

    Raises:
        DataError: there is no such split, or it has too few clips for one batch.
    """
    clips = prepared.size(split) if subset is None else len(subset)
    if train and clips < batch_size:
        raise DataError(
            f"{split} of {prepared.directory} has {clips} clips, fewer than a batch of "
            f"{batch_size}: lower batch_size or add clips."
        )
    fits = prepared.frames[split] * size[0] * size[1] * 3 <= memory
    stream = Stream(
        clips=clips,
        batch_size=batch_size,
        train=train,
        seed=seed,
        epochs=epochs if train else 1,
        host_index=host_index,
        host_count=host_count,
        parts=max(parts, host_count),
        subset=None if subset is None else tuple(subset),
    )
    decoder = Decoder(
        shards=prepared.shards[split],
        frames=frames,
        size=size,
        fit=fit,
        sampling=sampling,
        stride=stride,
        views=views,
        train=train,
        seed=seed,
        batch_size=stream.rows,
        batches_per_epoch=stream.batches_per_epoch,
        threads=threads,
        timeout=timeout,
        kept=({} if kept is None else kept) if fits and not workers else None,
    )
    state = {
        "dataset": prepared.directory.name,
        "split": split,
        "batch_size": batch_size,
        "train": train,
        "seed": seed,
        "clips": clips,
    }
    return BatchIterator(stream, decoder, workers, timeout, state)
