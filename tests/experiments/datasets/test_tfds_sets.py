"""Sets of tensorflow-datasets: stored as images, generated from files, and UCF101 itself."""

import io
import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from experiments.datasets import builder, tensorflow_stand_in
from experiments.datasets.records import DataError, Prepared
from experiments.datasets.shrinking import Shrinking
from experiments.datasets.splits import Splitting
from experiments.datasets.tfds_sets import tfds_plan
from zoo import video
from zoo.video import ffmpeg

SHRINKING = Shrinking(short_side=16, keyframe_interval=4, crf=20)
SPLITTING = Splitting(val_fraction=0.25, test_fraction=0.25, seed=0)


@pytest.fixture(scope="session", autouse=True)
def stand_in() -> None:
    tensorflow_stand_in.install()


def moving_bar(position: int, frames: int = 5) -> np.ndarray:
    clip = np.zeros((frames, 32, 40, 3), np.uint8)
    clip[:, :, 6 * position + 2 : 6 * position + 6] = 255
    return clip


class TinyVideoSet(tfds.core.GeneratorBasedBuilder):
    """Six clips a split; a set for the tests says what it yields as a video."""

    VERSION = tfds.core.Version("1.0.0")
    SPLITS = ("train", "test")
    encoding = "png"

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "video": tfds.features.Video(shape=(None, 32, 40, 3), encoding_format=self.encoding),
            "label": tfds.features.ClassLabel(names=["left", "right"]),
            "weather": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self, description="tiny", features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, downloads) -> dict:
        return {split: self._generate_examples() for split in self.SPLITS}

    def _generate_examples(self):
        for i in range(6):
            label = "left" if i < 3 else "right"
            yield f"{i}.avi", {"video": self.value(i), "label": label, "weather": "fine"}

    def value(self, i: int):
        return moving_bar(i)


class TinyFileSet(TinyVideoSet):
    folder = ""

    def value(self, i: int) -> str:
        path = pathlib.Path(self.folder) / f"{i}.avi"
        if i == 3:
            path.write_text("broken")
        else:
            path.write_bytes(video.encode(moving_bar(i), fps=10, crf=10))
        return str(path)


class TinyBytesSet(TinyVideoSet):
    SPLITS = ("train", "validation", "extra")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "video": tfds.features.Scalar(np.object_),
            "label": tfds.features.ClassLabel(names=["left", "right"]),
            "weather": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self, description="tiny", features=tfds.features.FeaturesDict(features)
        )

    def value(self, i: int) -> bytes:
        return video.encode(moving_bar(i), fps=10, crf=10)


class TinyImageSet(TinyVideoSet):
    def value(self, i: int) -> list[bytes]:
        return images(moving_bar(i), self.encoding)


class TinyJpegSet(TinyImageSet):
    encoding = "jpeg"


class TinyTextSet(TinyVideoSet):
    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
        return tfds.core.DatasetInfo(builder=self, description="tiny", features=features)


class TinyGraphSet(TinyVideoSet):
    def value(self, i: int):
        from tensorflow_datasets.core.utils.lazy_imports_utils import tensorflow as tf

        return tf.image.decode_png(b"")


def images(clip: np.ndarray, encoding: str) -> list[bytes]:
    """Each frame as a PNG or JPEG file."""
    codec = {"png": "png", "jpeg": "mjpeg"}[encoding]
    arguments = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "40x32", "-i", "-", "-c:v", codec]
    found = subprocess.run(
        [
            ffmpeg.executable(),
            "-loglevel",
            "error",
            *arguments,
            "-q:v",
            "1",
            "-f",
            "image2pipe",
            "-",
        ],
        input=clip.tobytes(),
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    start = b"\x89PNG" if encoding == "png" else b"\xff\xd8\xff"
    return [start + piece for piece in found.split(start)[1:]]


def prepare(name: str, tmp_path: pathlib.Path) -> Prepared:
    plan = tfds_plan(name, str(tmp_path / "tfds"), SHRINKING, SPLITTING)
    return builder.build(plan, tmp_path / "cache", print)


def check_clips(prepared: Prepared, splits: dict[str, int]) -> None:
    """The bar of each clip is where its label says."""
    assert prepared.classes == ("left", "right")
    assert {split: prepared.size(split) for split in prepared.splits} == splits
    for split in prepared.splits:
        for i in range(prepared.size(split)):
            record = prepared.record(split, i)
            assert (record.frames, record.height, record.width) == (5, 16, 20)
            frame = video.decode(record.video).frames[0].mean((0, 2))
            assert np.argmax(frame) // 10 == record.label


SIZES = {"train": 4, "val": 2, "test": 6}


def test_arrays_are_encoded(tmp_path) -> None:
    prepared = prepare("tiny_video_set", tmp_path)
    check_clips(prepared, SIZES)
    assert prepared.counts["val"] == (1, 1)
    assert prepared.source_name("test", 3) == "3.avi"
    assert not (tmp_path / "tfds" / "tiny_video_set" / "1.0.0").exists()


def test_files_are_shrunk_and_broken_ones_listed(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(TinyFileSet, "folder", str(tmp_path))
    prepared = prepare("tiny_file_set", tmp_path)
    check_clips(prepared, {"train": 3, "val": 2, "test": 5})
    broken = [(entry.split, entry.source, entry.label) for entry in prepared.quarantine]
    assert broken == [("train", "3.avi", "right"), ("test", "3.avi", "right")]
    assert prepared.record("train", 0).fps == 10


def test_bytes_are_shrunk_and_splits_mapped(tmp_path) -> None:
    prepared = prepare("tiny_bytes_set", tmp_path)
    check_clips(prepared, {"train": 6, "val": 6, "test": 6})
    assert prepared.aliases == {"test": "val"}
    assert "Ignored the splits extra of tfds:tiny_bytes_set." in prepared.notes


@pytest.mark.parametrize("name", ["tiny_image_set", "tiny_jpeg_set", "tiny_bytes_set"])
def test_a_set_that_tfds_prepared_is_read_from_there(tmp_path, name) -> None:
    stored = tfds.builder(name, data_dir=tmp_path / "tfds", file_format="array_record")
    stored.download_and_prepare()
    splits = {"train": 6, "val": 6, "test": 6} if "bytes" in name else SIZES
    prepared = prepare(name, tmp_path)
    check_clips(prepared, splits)
    assert prepared.source_name("test", 0) in ("test/000000", "validation/000000")
    assert "tensorflow" not in sys.modules


def test_a_set_stored_without_random_access_says_what_to_do(tmp_path) -> None:
    stored = tfds.builder("tiny_bytes_set", data_dir=tmp_path / "tfds", file_format="array_record")
    stored.download_and_prepare()
    info = stored.data_path / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(
        DataError, match=r"tiny_bytes_set cannot be read .*file_format=array_record"
    ):
        prepare("tiny_bytes_set", tmp_path)


def test_code_that_needs_tensorflow_says_so(tmp_path) -> None:
    with pytest.raises(DataError, match=r"it uses tf.image of TensorFlow; where TensorFlow is"):
        prepare("tiny_graph_set", tmp_path)


def test_wrong_names_are_answered_with_the_nearest(tmp_path) -> None:
    with pytest.raises(DataError, match=r"no TFDS set 'ucf110'; did you mean tfds:ucf101\?"):
        prepare("ucf110", tmp_path)
    with pytest.raises(DataError, match=r"no configuration 'ucf_1'; did you mean tfds:ucf101/ucf"):
        prepare("ucf101/ucf_1", tmp_path)


def test_a_set_without_labelled_videos_is_refused(tmp_path) -> None:
    with pytest.raises(DataError, match=r"tiny_text_set is not a set of videos .*text \(Text\)"):
        prepare("tiny_text_set", tmp_path)


def ucf101_downloads(tmp_path: pathlib.Path) -> dict[str, pathlib.Path]:
    """The two archives of UCF101 in small, extracted."""
    names = [
        f"{c}/v_{c}_g{g:02d}_c{i:02d}.avi"
        for c in ("Archery", "HandstandPushups")
        for g in (1, 2, 3)
        for i in (1, 2)
    ]
    for number, name in enumerate(names):
        path = tmp_path / "videos" / "UCF101" / pathlib.Path(name).name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(video.encode(moving_bar(number % 6), fps=25))
    lists = tmp_path / "splits" / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    # The lists spell the files of one class in another way than the archive.
    names = [name.replace("v_HandstandPushups", "v_HandStandPushups") for name in names]
    test = [name for name in names if "_g01" in name]
    lists.joinpath("testlist01.txt").write_text("\n".join(test) + "\n")
    train = [f"{name} {1 + ('Hand' in name)}" for name in names if "_g01" not in name]
    lists.joinpath("trainlist01.txt").write_text("\n".join(train) + "\n")
    return {"videos": tmp_path / "videos", "splits": tmp_path / "splits"}


def test_ucf101(tmp_path, monkeypatch) -> None:
    downloads = ucf101_downloads(tmp_path)

    def download_and_extract(self, urls: dict[str, str]) -> dict[str, pathlib.Path]:
        assert set(urls) == {"videos", "splits"}
        return downloads

    manager = tfds.download.DownloadManager
    monkeypatch.setattr(manager, "download_and_extract", download_and_extract)
    prepared = prepare("ucf101", tmp_path)
    assert len(prepared.classes) == 101
    assert {s: prepared.size(s) for s in prepared.splits} == {"train": 4, "val": 4, "test": 4}
    groups = {
        split: {prepared.source_name(split, i)[-11:-8] for i in range(prepared.size(split))}
        for split in prepared.splits
    }
    assert groups["test"] == {"g01"}
    for label in ("Archery", "HandstandPushups"):
        of_class = {
            split: {
                prepared.source_name(split, i)[:-8]
                for i in range(prepared.size(split))
                if prepared.classes[prepared.record(split, i).label] == label
            }
            for split in ("train", "val")
        }
        assert len(of_class["train"]) == len(of_class["val"]) == 1
        assert of_class["train"] != of_class["val"]  # both clips of a recording are together


def test_archives_are_extracted_without_tensorflow(tmp_path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("folder/ä.txt", "content")
    path = tmp_path / "archive.zip"
    path.write_bytes(archive.getvalue())
    manager = tfds.download.DownloadManager(download_dir=tmp_path / "downloads")
    assert (manager.extract(path) / "folder" / "ä.txt").read_text() == "content"


def test_no_network_says_what_to_do(tmp_path, monkeypatch) -> None:
    def fail(self, urls):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", fail)
    message = r"tfds:ucf101 is not in .* cannot be downloaded: Name or service .*set data.root"
    with pytest.raises(DataError, match=message):
        prepare("ucf101", tmp_path)


def test_the_key_covers_name_root_and_settings(tmp_path) -> None:
    plans = [
        tfds_plan("ucf101", "", SHRINKING, SPLITTING),
        tfds_plan("ucf101/ucf101_2", "", SHRINKING, SPLITTING),
        tfds_plan("ucf101", str(tmp_path), SHRINKING, SPLITTING),
        tfds_plan("ucf101", "", Shrinking(17, 4, 20), SPLITTING),
        tfds_plan("ucf101", "", SHRINKING, Splitting(0.25, 0.25, 1)),
    ]
    assert len({plan.folder for plan in plans}) == len(plans)
    assert tfds_plan("ucf101", "", SHRINKING, SPLITTING).folder == plans[0].folder
