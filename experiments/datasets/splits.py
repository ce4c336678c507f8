"""Dividing clips into train, val and test, where the data does not do it."""

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from experiments.datasets.records import DataError

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {split: split for split in SPLITS} | {"validation": "val", "valid": "val"}


class Labelled(Protocol):
    """A clip with its label and the split that the data puts it into, or an empty string."""

    @property
    def label(self) -> Hashable: ...

    @property
    def split(self) -> str: ...


T = TypeVar("T", bound=Labelled)


@dataclass(frozen=True)
class Splitting:
    """How splits are made where the data has none: shares of the training clips, and a seed."""

    val_fraction: float
    test_fraction: float
    seed: int


def recording(name: str) -> str:
    """What clips of one recording share, if the name says so, else an empty string.

    UCF101 and the sets made like it call the fourth clip of recording 25 "v_Class_g25_c04.avi".
    """
    found = re.fullmatch(r"(.*_g\d+)_c\d+(\.\w+)?", name)
    return found[1] if found else ""


def divide(
    clips: Sequence[T], group: Callable[[T], Hashable], splitting: Splitting
) -> tuple[dict[str, list[T]], dict[str, str], list[str]]:
    """Puts clips into splits; the splits that the data has are kept.

    Where there is a val but no test, test is val under a second name: dividing train could put
    clips of one recording on both sides, which the given split may have been made to avoid. Where
    there is no val, it is divided from train, and so is test.

    Args:
        clips: all clips; those without a split count as train.
        group: clips with the same value stay together.
        splitting: sizes and seed.

    Returns:
        The clips of each split, splits under a second name, and notes on what was decided.

    Raises:
        DataError: a split would be empty.
    """
    splits: dict[str, list[T]] = {split: [] for split in SPLITS}
    for clip in clips:
        splits[clip.split or "train"].append(clip)
    if splits["val"] and not splits["test"]:
        del splits["test"]
        note = (
            "There is no test split: the final test is measured on val, which also chose the best "
            "checkpoint."
        )
        return splits, {"test": "val"}, [note]
    if splits["val"]:
        return splits, {}, []

    made = ["val"] if splits["test"] else ["test", "val"]
    # Shares of all clips, taken one after the other from what is left.
    share = {"test": splitting.test_fraction, "val": splitting.val_fraction}
    if "test" in made:
        share["val"] /= 1 - share["test"]
    for split in made:
        splits["train"], splits[split] = split_off(
            splits["train"], share[split], group=group, seed=splitting.seed
        )
        if not splits[split]:
            raise DataError(
                f"No clips can be divided from train as {split}: add some of each class, or set "
                f"data.{split}_fraction above 0."
            )
    note = (
        f"{' and '.join(reversed(made))} are divided from the training clips at random, by class "
        f"(seed {splitting.seed}). Clips of one recording stay together only if they are named "
        "like v_Class_g25_c04, are parts of one file, or have the same content; else give the "
        "splits yourself."
    )
    return splits, {}, [note]


def split_off(
    items: Sequence[T],
    share: float,
    *,
    group: Callable[[T], Hashable],
    seed: int,
) -> tuple[list[T], list[T]]:
    """Divides items into a larger and a smaller part, at random and stratified by label.

    Items of one group (cut from one video, or with the same content) stay together, so that no
    source is on both sides; a group with several labels counts for its first. Each label gives
    `share` of its items rounded to the nearest number, at least one if it has two groups or more
    and the share is not zero, and never its last group. Both parts keep the order of `items`.

    Returns:
        The items that stay and those that are split off.
    """
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for position, item in enumerate(items):
        groups[group(item)].append(position)
    by_label: dict[Hashable, list[list[int]]] = defaultdict(list)
    for members in groups.values():
        by_label[items[members[0]].label].append(members)

    rng = np.random.default_rng([seed, 0x5B117])
    chosen: set[int] = set()
    for name in sorted(by_label, key=str):
        candidates = by_label[name]
        count = sum(map(len, candidates))
        wanted = max(1, round(share * count)) if share > 0 else 0
        taken, order = 0, rng.permutation(len(candidates))
        for position in order[: len(candidates) - 1]:
            if taken >= wanted:
                break
            chosen.update(candidates[position])
            taken += len(candidates[position])
    stay = [item for i, item in enumerate(items) if i not in chosen]
    return stay, [item for i, item in enumerate(items) if i in chosen]
