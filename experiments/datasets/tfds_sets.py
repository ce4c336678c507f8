"""Video sets of tensorflow-datasets (TFDS), such as `tfds:ucf101`, without TensorFlow.

A set that TFDS has prepared in a format with random access (`array_record`) is read from there. Any
other is downloaded by TFDS, and the videos that its own code yields are shrunk one by one: TFDS
would store each frame as an image first, many times the size.

The code of TFDS asks TensorFlow for file functions and for names of types. Where TensorFlow is not
installed, `tensorflow_stand_in` answers, and answers TFDS alone.
"""

import dataclasses
import difflib
import functools
import importlib.metadata
import importlib.util
import os
import pathlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.datasets import tensorflow_stand_in
from experiments.datasets.plan import Contents, Item, Plan, Rejected
from experiments.datasets.records import DataError, Record
from experiments.datasets.shrinking import Shrinking, shrink
from experiments.datasets.splits import SPLIT_NAMES, Splitting, divide, recording
from zoo import video

FPS = 25  # of sets that are stored as images: TFDS does not keep the rate


@dataclass(frozen=True)
class _Clip:
    """One example: `value` is a path, a file's bytes, frames, or a function that reads one."""

    source: str
    label: int
    split: str
    value: Any


def tfds_plan(name: str, root: str, shrinking: Shrinking, splitting: Splitting) -> Plan:
    """The videos of a TFDS set, shrunk.

    Args:
        name: as for `tfds.builder`: "NAME", "NAME/CONFIG" or "NAME/CONFIG:VERSION".
        root: TFDS data directory; empty for the default of TFDS.
        shrinking, splitting: how clips are shrunk, and divided where the set has no val or test.
    """
    if root:
        root = os.fspath(pathlib.Path(root).expanduser().absolute())
    recipe = {
        "set": name,
        "root": root,
        # Newer versions of TFDS may contain newer versions of the set.
        "tfds": importlib.metadata.version("tensorflow-datasets"),
        "shrinking": dataclasses.asdict(shrinking),
        "splitting": dataclasses.asdict(splitting),
    }
    contents = functools.partial(_contents, name, root, shrinking, splitting)
    return Plan(f"tfds-{name}", recipe, contents)


def _contents(name: str, root: str, shrinking: Shrinking, splitting: Splitting) -> Contents:
    import tensorflow_datasets as tfds

    if importlib.util.find_spec("tensorflow") is None:
        tensorflow_stand_in.install()
    builder = _builder(name, root)
    video_key, label_key = _keys(builder.info.features, name)
    labels = builder.info.features[label_key]
    try:
        if builder.data_path.exists():
            found = list(_stored_clips(builder, video_key, label_key))
        else:
            found = list(_generated_clips(builder, video_key, label_key))
    except (OSError, AssertionError, tfds.download.DownloadError) as error:
        raise DataError(
            f"tfds:{name} is not in {builder.data_path} and cannot be downloaded: {error}; connect "
            "to the network, or set data.root to a TFDS data directory that has it."
        ) from error
    except (NotImplementedError, tensorflow_stand_in.NeedsTensorFlow) as error:
        raise DataError(
            f"tfds:{name} cannot be read in {builder.data_path}: {' '.join(str(error).split())}; "
            f"where TensorFlow is installed, run `tfds build {name} --file_format=array_record`, "
            "and set data.root to its data directory."
        ) from error
    clips = [
        dataclasses.replace(clip, split=SPLIT_NAMES[clip.split])
        for clip in found
        if clip.split in SPLIT_NAMES
    ]
    if not clips:
        splits = sorted({clip.split for clip in found})
        raise DataError(
            f"tfds:{name} has no clips in a split called train; its splits with clips are "
            f"{', '.join(splits) or 'none'}: choose another set."
        )
    splits, aliases, notes = divide(
        clips, lambda clip: recording(clip.source) or clip.source, splitting
    )
    if others := sorted({clip.split for clip in found} - set(SPLIT_NAMES)):
        notes = [*notes, f"Ignored the splits {', '.join(others)} of tfds:{name}."]
    items = {
        split: [Item(clip.source, clip.label, clip.value) for clip in of_split]
        for split, of_split in splits.items()
    }
    encode = functools.partial(_shrink_all, shrinking=shrinking)
    return Contents(tuple(labels.names), items, encode, notes=tuple(notes), aliases=aliases)


def _builder(name: str, root: str) -> Any:
    """The builder of a set.

    Raises:
        DataError: TFDS does not know the set or its configuration.
    """
    import tensorflow_datasets as tfds
    import tensorflow_datasets.video  # registers the video sets
    from tensorflow_datasets.core.registered import DatasetNotFoundError

    arguments: dict[str, Any] = {"data_dir": root} if root else {}
    try:
        return tfds.builder(name, **arguments)
    except DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        close = difflib.get_close_matches(name.partition("/")[0], known, n=1, cutoff=0.4)
        hint = f"did you mean tfds:{close[0]}?" if close else "tensorflow.org/datasets lists them."
        raise DataError(f"There is no TFDS set {name!r}; {hint}") from error
    except ValueError as error:
        base, _, rest = name.partition("/")
        known = list(tfds.builder_cls(base).builder_configs)
        close = difflib.get_close_matches(rest, known, n=1, cutoff=0.4)
        hint = f"did you mean tfds:{base}/{close[0]}?" if close else f"known are {known}."
        raise DataError(f"TFDS set {base!r} has no configuration {rest!r}; {hint}") from error


def _keys(features: Any, name: str) -> tuple[str, str]:
    """Names of the video and of the label among the features of a set.

    Raises:
        DataError: it is not a set of labelled videos.
    """
    import tensorflow_datasets as tfds

    of_video, of_label = [], []
    for key, feature in features.items():
        is_bytes = type(feature) in (tfds.features.Scalar, tfds.features.Tensor) and (
            feature.shape == () and feature.np_dtype == np.object_
        )
        if isinstance(feature, tfds.features.Video) or (is_bytes and "video" in key):
            of_video.append(key)
        elif isinstance(feature, tfds.features.ClassLabel):
            of_label.append(key)
    if not of_video or not of_label:
        raise DataError(
            f"tfds:{name} is not a set of videos with a label each: its features are "
            f"{', '.join(f'{key} ({type(f).__name__})' for key, f in features.items())}; choose "
            "one with a Video and a ClassLabel, such as tfds:ucf101."
        )
    label = "label" if "label" in of_label else of_label[0]
    return of_video[0], label


def _stored_clips(builder: Any, video_key: str, label_key: str) -> Iterator[_Clip]:
    """The clips of a set that TFDS has prepared; their bytes are read again when needed."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.example_parser import ExampleParserNp

    # TFDS decodes images with packages that are not needed otherwise; ffmpeg does it here.
    parser = ExampleParserNp(builder.info.features.get_serialized_info())
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    for split in builder.info.splits:
        source = builder.as_data_source(split, deserialize_method=raw)

        def read(index: int, source: Any = source) -> Any:
            value = parser.parse_example(source[index])[video_key]
            return value if isinstance(value, bytes) else list(value)

        for index in range(len(source)):
            label: Any = parser.parse_example(source[index])[label_key]
            yield _Clip(f"{split}/{index:06d}", int(label), split, functools.partial(read, index))


def _generated_clips(builder: Any, video_key: str, label_key: str) -> Iterator[_Clip]:
    """The clips that the set's own code yields from its downloads."""
    import tensorflow_datasets as tfds

    downloads = builder._make_download_manager(
        download_dir=None, download_config=tfds.download.DownloadConfig()
    )
    generators = builder._split_generators(downloads)
    if not isinstance(generators, Mapping):  # the older way to write it
        generators = {g.name: builder._generate_examples(**g.gen_kwargs) for g in generators}
    labels = builder.info.features[label_key]
    for split, examples in generators.items():
        if not hasattr(examples, "__iter__"):
            raise NotImplementedError(f"{split} is made by Apache Beam")
        for key, example in examples:
            value = example[video_key]
            if hasattr(value, "read"):
                value = value.read()
            label = labels.encode_example(example[label_key])
            yield _Clip(str(key), int(label), str(split), value)


def _shrink_all(items: Sequence[Item], shrinking: Shrinking) -> list[Record | Rejected]:
    return [_shrink(item, shrinking) for item in items]


def _shrink(item: Item, shrinking: Shrinking) -> Record | Rejected:
    value: Any = item.job() if callable(item.job) else item.job
    source: Any = value
    try:
        if isinstance(value, str | os.PathLike | bytes):
            pass
        elif isinstance(value[0], str | os.PathLike):
            source = _images_to_video([pathlib.Path(path).read_bytes() for path in value])
        elif isinstance(value[0], bytes):
            source = _images_to_video(value)
        else:
            source = video.encode(np.asarray(value), fps=FPS, crf=8)
    except (OSError, ValueError, IndexError) as error:
        return Rejected(item, str(error))
    return shrink(item, source, shrinking)


def _images_to_video(images: Sequence[bytes]) -> bytes:
    """Encoded PNG or JPEG images as the frames of an AVI file, which ffmpeg decodes."""
    codec = b"MPNG" if images[0].startswith(b"\x89PNG") else b"MJPG"

    def chunk(tag: bytes, data: bytes) -> bytes:
        return tag + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)

    count, largest = len(images), max(map(len, images))
    # Width and height stay 0: every image says its own.
    main = struct.pack("<14I", 10**6 // FPS, 0, 0, 0, count, 0, 1, largest, 0, 0, 0, 0, 0, 0)
    stream = struct.pack(
        "<4s4sIHH8I4H", b"vids", codec, *[0] * 4, 1, FPS, 0, count, largest, *[0] * 6
    )
    picture = struct.pack("<IiiHH4sIiiII", 40, 0, 0, 1, 24, codec, *[0] * 5)
    header = chunk(b"avih", main) + chunk(
        b"LIST", b"strl" + chunk(b"strh", stream) + chunk(b"strf", picture)
    )
    frames = b"".join(chunk(b"00dc", image) for image in images)
    body = chunk(b"LIST", b"hdrl" + header) + chunk(b"LIST", b"movi" + frames)
    return chunk(b"RIFF", b"AVI " + body)
