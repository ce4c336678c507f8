"""The user's own videos: layouts, CSV files, names, duplicates and broken files."""

import os
import pathlib
import shutil

import pytest

from experiments.datasets import builder
from experiments.datasets.records import DataError, Prepared
from experiments.datasets.shrinking import Shrinking
from experiments.datasets.splits import Splitting
from experiments.datasets.video_folder import list_csv, list_folder, video_folder_plan
from zoo import video

SHRINKING = Shrinking(short_side=16, keyframe_interval=4, crf=28)
SPLITTING = Splitting(val_fraction=0.2, test_fraction=0.2, seed=0)


def plan(root: pathlib.Path):
    return video_folder_plan(str(root), SHRINKING, SPLITTING)


def prepare(root: pathlib.Path) -> Prepared:
    return builder.build(plan(root), root.parent / "cache", print)


def sources(prepared: Prepared, split: str) -> list[str]:
    return [prepared.source_name(split, i) for i in range(prepared.size(split))]


def test_given_splits_are_kept(make_files) -> None:
    root = make_files(
        *("train/a/1.mp4", "train/a/2.mp4", "train/b/1.mp4", "validation/a/3.mp4"),
        *("validation/b/3.mp4", "test/b/4.mp4"),
    )
    prepared = prepare(root)
    assert prepared.classes == ("a", "b")
    assert sources(prepared, "train") == ["train/a/1.mp4", "train/a/2.mp4", "train/b/1.mp4"]
    assert sources(prepared, "val") == ["validation/a/3.mp4", "validation/b/3.mp4"]
    assert sources(prepared, "test") == ["test/b/4.mp4"]
    assert prepared.notes == ()
    record = prepared.record("test", 0)
    assert (record.label, record.frames, record.fps) == (1, 6, 10)
    assert (record.height, record.width) == (16, 22)
    assert video.probe(record.video).frames == 6


def test_train_and_val_only_test_on_val(make_files) -> None:
    names = [f"{split}/{c}/{i}.mp4" for split in ("train", "val") for c in "ab" for i in (1, 2)]
    prepared = prepare(make_files(*names))
    assert sources(prepared, "test") == sources(prepared, "val")
    assert prepared.size("train") == 4
    assert prepared.aliases == {"test": "val"}
    assert "the final test is measured on val" in prepared.notes[0]


def test_class_folders_are_divided_by_class(make_files) -> None:
    names = [f"{c}/{i}.mp4" for c in ("one", "two") for i in range(10)]
    prepared = prepare(make_files(*names))
    assert prepared.counts == {"train": (6, 6), "val": (2, 2), "test": (2, 2)}
    found = [name for split in prepared.splits for name in sources(prepared, split)]
    assert sorted(found) == sorted(names)
    assert "seed 0" in prepared.notes[0]


def test_a_class_may_be_called_train(make_files) -> None:
    found, _ = list_folder(make_files("train/1.mp4", "plane/1.mp4", "test/1.mp4"))
    assert {(source.label, source.split) for source in found} == {
        ("train", ""),
        ("plane", ""),
        ("test", ""),
    }


def test_names_of_all_kinds(make_files) -> None:
    root = make_files(
        *("train/Größe 😀/ä 1.mp4", "train/b/ä 1.mp4", "train/b/.hidden.mp4", "train/b/UPPER.MP4"),
        *("train/b/deeper/still/x.mkv", "val/b/1.mp4", "val/Größe 😀/1.mp4", "test/b/2.mp4"),
    )
    (root / "train" / "b" / "readme.txt").write_text("not a video")
    (root / "train" / ".git").mkdir()
    (root / "train" / "b" / "Thumbs.db").touch()
    undecodable = os.fsencode(root / "train" / "b") + b"/\xff.mp4"
    shutil.copy(root / "train" / "b" / "UPPER.MP4", undecodable)
    (root / "train" / "b" / "link.mp4").symlink_to(root / "val" / "b" / "1.mp4")
    (root / "train" / "b" / "loop").symlink_to(root / "train" / "b")
    (root / "extra").mkdir()
    prepared = prepare(root)
    assert prepared.classes == ("Größe 😀", "b")
    assert sources(prepared, "train") == [
        *("train/Größe 😀/ä 1.mp4", "train/b/UPPER.MP4", "train/b/\\udcff.mp4"),
        *("train/b/deeper/still/x.mkv", "train/b/link.mp4", "train/b/ä 1.mp4"),
    ]
    assert prepared.notes[0].startswith("Ignored 2 files that are not videos by their extension: ")
    assert prepared.notes[1] == "Ignored folders beside train and val and test: extra."
    # The link is the same video as one of val.
    assert "1 videos appear under two labels or in two splits" in prepared.notes[2]
    assert "train/b/link.mp4 = val/b/1.mp4" in prepared.notes[2]
    assert "train/b/link.mp4" in prepared.quarantine_file.read_text("utf-8")


def test_composed_and_decomposed_names_are_one_class(make_files) -> None:
    found, _ = list_folder(make_files("train/e\u0301/1.mp4", "val/\u00e9/1.mp4", "train/b/1.mp4"))
    assert {source.label for source in found} == {"\u00e9", "b"}


def test_the_same_content_is_found(make_files) -> None:
    root = make_files(*(f"{c}/{i}.mp4" for c in "ab" for i in range(8)))
    shutil.copy(root / "a" / "0.mp4", root / "b" / "0.mp4")  # under two labels
    for i in range(2, 5):
        shutil.copy(root / "a" / "1.mp4", root / "a" / f"{i}.mp4")  # under one
    prepared = prepare(root)
    assert "1 videos appear under two labels" in prepared.notes[1]
    assert "a/0.mp4 = b/0.mp4" in prepared.notes[1]
    # What is the same stays on one side.
    same = {f"a/{i}.mp4" for i in range(1, 5)}
    places = {split for split in prepared.splits if same & set(sources(prepared, split))}
    assert len(places) == 1


def test_broken_files_are_quarantined_and_originals_are_untouched(make_files) -> None:
    root = make_files(
        *(f"{split}/{c}/{i}.mp4" for split in ("train", "val") for c in "ab" for i in (1, 2))
    )
    whole = (root / "train" / "a" / "1.mp4").read_bytes()
    (root / "train" / "a" / "empty.mp4").touch()
    (root / "train" / "a" / "text.mp4").write_text("no video at all")
    (root / "train" / "b" / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (root / "val" / "a" / "gone.mp4").symlink_to(root / "nowhere.mp4")
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in root.rglob("*.mp4") if p.exists()}
    prepared = prepare(root)
    assert prepared.counts["train"] == (2, 2)
    assert [entry.source for entry in prepared.quarantine] == [
        *("train/a/empty.mp4", "train/a/text.mp4", "train/b/cut.mp4", "val/a/gone.mp4")
    ]
    reasons = [entry.reason for entry in prepared.quarantine]
    assert reasons[0] == "it is empty"
    assert reasons[3] == "No such file or directory"
    assert all(reasons)
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before}


def test_the_key_covers_the_files_and_the_settings(make_files) -> None:
    root = make_files(*(f"{c}/{i}.mp4" for c in "ab" for i in range(3)))
    folder = plan(root).folder
    assert plan(root).folder == folder
    assert video_folder_plan(str(root), Shrinking(20, 4, 28), SPLITTING).folder != folder
    assert video_folder_plan(str(root), SHRINKING, Splitting(0.2, 0.2, 1)).folder != folder
    os.utime(root / "a" / "1.mp4", (1, 1))
    touched = plan(root).folder
    assert touched != folder
    (root / "a" / "1.mp4").rename(root / "a" / "9.mp4")
    assert plan(root).folder not in (touched, folder)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], r"data has no folders: put the videos"),
        (["1.mp4"], r"data has no folders"),
        (["a/1.mp4"], r"data has only the class 'a': .* two or more"),
        (["train/a/1.mp4", "train/b/1.txt"], r"train/b holds no video: .* or remove the folder"),
        (["a/1.mp4", "b/readme"], r"/b holds no video"),
        (["val/a/1.mp4", "val/b/1.mp4"], r"data has val but no train: add .*/train"),
        (["train/a/1.mp4", "train/b/1.mp4", "val/c/1.mp4"], r"no training videos of 'c'"),
    ],
)
def test_folders_that_cannot_be_used(make_files, names, message) -> None:
    root = make_files(*names)
    root.mkdir(exist_ok=True)
    with pytest.raises(DataError, match=message):
        plan(root)


def test_roots_that_are_not_there(tmp_path) -> None:
    with pytest.raises(DataError, match=r"There is no folder or file .*nowhere: set data.root"):
        plan(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"data.root is empty: set it"):
        video_folder_plan("", SHRINKING, SPLITTING)


def write_csv(root: pathlib.Path, *lines: str, encoding: str = "utf-8") -> pathlib.Path:
    path = root / "list.csv"
    path.write_text("\n".join(lines) + "\n", encoding)
    return path


def test_csv_rows(make_files, tmp_path) -> None:
    root = make_files("v/1.mp4", "v/2, b.mp4", "ä.mp4")
    path = write_csv(
        root, "v/1.mp4,ja", "", '"v/2, b.mp4", nein , 0.1,', f"{root / 'ä.mp4'},ja,,0.4", "x.mp4,ja"
    )
    found = list_csv(path)
    assert [(s.name, s.label, s.split, s.start, s.end) for s in found] == [
        ("v/1.mp4", "ja", "", None, None),
        ("v/2, b.mp4", "nein", "", 0.1, None),
        (str(root / "ä.mp4"), "ja", "", None, 0.4),
        ("x.mp4", "ja", "", None, None),
    ]
    assert [source.path.exists() for source in found] == [True, True, True, False]


def test_csv_with_a_header_and_parts_of_videos(make_files) -> None:
    root = make_files(*(f"{i}.mp4" for i in range(4)))
    rows = [
        f"{c},{i}.mp4,{split},x,{i / 10},0.5"
        for i, (c, split) in enumerate(
            [("b", "train"), ("a", "train"), ("b", "Val"), ("a", "test")]
        )
    ]
    path = write_csv(root, "Label,PATH,split,other,start,end", *rows, encoding="utf-8-sig")
    prepared = prepare(path)
    assert prepared.classes == ("a", "b")
    assert sources(prepared, "train") == ["0.mp4", "1.mp4"]
    assert [prepared.record("train", i).frames for i in (0, 1)] == [5, 4]
    assert prepared.record("val", 0).label == 1
    assert prepared.record("test", 0).frames == 2


def test_parts_of_one_video_stay_together(make_files) -> None:
    root = make_files(*(f"{i}.mp4" for i in range(10)))
    rows = [f"{i}.mp4,{'ab'[i % 2]},{s},{s + 0.2}" for i in range(10) for s in (0, 0.2, 0.4)]
    path = write_csv(root, *rows)
    prepared = prepare(path)
    where = {s: set(sources(prepared, s)) for s in prepared.splits}
    assert sum(map(len, where.values())) == 10
    assert all(where.values())
    assert prepared.frames == {s: 2 * prepared.size(s) for s in where}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1.mp4", r"list.csv, line 2: '1.mp4' has no path or no label"),
        (",a", r"line 2: ',a' has no path or no label"),
        ("1.mp4,a,soon", r"line 2: start is 'soon'; write seconds"),
        ("1.mp4,a,2,1", r"line 2: start 2.0 and end 1.0 are no part"),
        ("1.mp4,a,-1,1", r"line 2: start -1.0 and end 1.0"),
        ("1.mp4,a,nan,1", r"line 2: start nan"),
        ("1.mp4,a,0,1,dev", r"line 2: the split is 'dev'; write train, val or test"),
    ],
)
def test_csv_rows_that_cannot_be_used(make_files, line, message) -> None:
    path = write_csv(make_files("1.mp4"), "1.mp4,b", line)
    with pytest.raises(DataError, match=message):
        plan(path)


def test_csv_files_that_cannot_be_used(make_files) -> None:
    root = make_files("1.mp4")
    with pytest.raises(DataError, match=r"list.csv has no rows"):
        plan(write_csv(root, "path,label"))
    with pytest.raises(DataError, match=r"1.mp4 is not a CSV file in UTF-8"):
        plan(root / "1.mp4")
    with pytest.raises(DataError, match="only the class 'a'"):
        plan(write_csv(root, "1.mp4,a", "2.mp4,a"))


def test_numbers_as_labels_are_in_the_order_of_numbers(make_files) -> None:
    root = make_files(*(f"{i}.mp4" for i in range(12)))
    rows = [f"{i}.mp4,{i % 11},,,{'train' if i < 11 else 'val'}" for i in range(12)]
    prepared = prepare(write_csv(root, *rows))
    assert prepared.classes == tuple(str(i) for i in range(11))


def test_the_fight_set_keeps_its_splits(shared) -> None:
    root = shared / "data" / "fight"
    found, notes = list_folder(root)
    assert {split: sum(s.split == split for s in found) for split in ("train", "val")} == {
        "train": 184,
        "val": 54,
    }
    assert {source.label for source in found} == {"fight", "noFight"}
    assert notes == []


def test_real_clips_are_shrunk(shared, tmp_path) -> None:
    root = tmp_path / "data"
    for split, name in (
        ("train", "fi005"),
        ("train", "nofi007"),
        ("val", "fi018"),
        ("val", "nofi006"),
    ):
        label = "noFight" if name.startswith("no") else "fight"
        (root / split / label).mkdir(parents=True, exist_ok=True)
        (root / split / label / f"{name}.mp4").symlink_to(
            shared / "data" / "fight" / split / label / f"{name}.mp4"
        )
    prepared = prepare(root)
    for split in ("train", "val"):
        for i in range(2):
            record = prepared.record(split, i)
            original = video.probe(root / record.source)
            assert record.frames == original.frames
            assert min(record.height, record.width) == 16
            assert len(record.video) < (root / record.source).stat().st_size / 4
