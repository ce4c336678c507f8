"""Dividing clips: complete, disjoint, stratified, by group, and the same for the same seed."""

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.datasets.records import DataError
from experiments.datasets.splits import SPLITS, Splitting, divide, recording, split_off


@dataclass(frozen=True)
class Clip:
    name: int
    label: str
    group: int
    split: str = ""


def clips_of(*labels: str, split: str = "") -> list[Clip]:
    return [Clip(i, label, i, split) for i, label in enumerate(labels)]


some_clips = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 12)), max_size=40).map(
    # A group has one label, as parts of one video normally do.
    lambda pairs: [Clip(i, "ab"[g % 2], g) for i, (_, g) in enumerate(pairs)]
)


@given(some_clips, st.floats(0, 0.9), st.integers(0, 9))
def test_parts_are_complete_disjoint_and_keep_groups(clips, share, seed) -> None:
    stay, off = split_off(clips, share, group=lambda c: c.group, seed=seed)
    assert sorted(stay + off, key=lambda c: c.name) == clips
    assert stay == [c for c in clips if c in set(stay)]
    assert not {c.group for c in stay} & {c.group for c in off}
    # No label is lost from the larger part.
    assert {c.label for c in stay} == {c.label for c in clips}
    assert split_off(clips, share, group=lambda c: c.group, seed=seed) == (stay, off)


@given(st.integers(2, 60), st.integers(2, 60), st.floats(0.01, 0.5))
def test_each_label_gives_its_share(a, b, share) -> None:
    clips = clips_of(*"a" * a, *"b" * b)
    _, off = split_off(clips, share, group=lambda c: c.group, seed=0)
    given_off = Counter(clip.label for clip in off)
    assert given_off["a"] == min(max(1, round(share * a)), a - 1)
    assert given_off["b"] == min(max(1, round(share * b)), b - 1)


def test_the_seed_decides_who_goes() -> None:
    clips = clips_of(*"a" * 30)
    parts = [split_off(clips, 0.3, group=lambda c: c.group, seed=seed)[1] for seed in (0, 0, 1)]
    assert parts[0] == parts[1] != parts[2]


@pytest.mark.parametrize(
    ("has", "sizes", "aliases"),
    [
        ({"": 40}, {"train": 28, "val": 4, "test": 8}, {}),
        ({"train": 40}, {"train": 28, "val": 4, "test": 8}, {}),
        ({"train": 40, "test": 6}, {"train": 36, "val": 4, "test": 6}, {}),
        ({"train": 40, "val": 6}, {"train": 40, "val": 6}, {"test": "val"}),
        ({"train": 40, "val": 6, "test": 6}, {"train": 40, "val": 6, "test": 6}, {}),
    ],
)
def test_only_missing_splits_are_made(has, sizes, aliases) -> None:
    clips = [Clip(i, "ab"[i % 2], i, split) for split, n in has.items() for i in range(n)]
    splits, found, notes = divide(clips, lambda c: (c.group, c.split), Splitting(0.1, 0.2, 0))
    assert {split: len(of_split) for split, of_split in splits.items()} == sizes
    assert found == aliases
    assert list(splits) == [split for split in SPLITS if split in sizes]
    for split, of_split in splits.items():
        if has.get(split) and split != "train":
            assert {clip.split for clip in of_split} == {split}
    assert len(notes) == (0 if len(has) == 3 else 1)


def test_a_split_that_would_be_empty_is_an_error() -> None:
    with pytest.raises(DataError, match=r"as test: .* data.test_fraction above 0"):
        divide(clips_of(*"aabb"), lambda c: c.group, Splitting(0.1, 0.0, 0))
    with pytest.raises(DataError, match="No clips can be divided from train as val"):
        divide(clips_of(*"abab", split="train"), lambda c: c.group, Splitting(0.5, 0.5, 0))


def test_recordings_are_told_from_names_like_those_of_ucf101() -> None:
    assert recording("Run/v_Run_g01_c02.avi") == recording("Run/v_Run_g01_c11.avi") != ""
    assert recording("Run/v_Run_g02_c02.avi") != recording("Run/v_Run_g01_c02.avi")
    assert recording("fi005.mp4") == ""
