"""`moving_shapes` as a dataset: rendered clips, encoded as real H.264 MP4 files."""

import functools
import hashlib
import inspect
import pathlib
from collections.abc import Sequence
from fractions import Fraction

from experiments.datasets import moving_shapes
from experiments.datasets.plan import Contents, Item, Plan, Rejected
from experiments.datasets.records import Record
from experiments.datasets.splits import SPLITS
from zoo import video

FRAMES = 16
FPS = Fraction(8)  # a clip lasts two seconds, slow enough to be looked at
CHUNK = 25  # clips per call: rendering and encoding of a chunk takes less than a second


def moving_shapes_plan(
    task: str,
    clips: dict[str, int],
    *,
    size: int,
    seed: int,
    crf: int,
    keyframe_interval: int,
) -> Plan:
    """The clips of one task of `moving_shapes`.

    Args:
        task: "shapes" or "motions".
        clips: number of clips of train, val and test.
        size: height and width in pixels.
        seed: the same seed gives the same clips.
        crf, keyframe_interval: as in `zoo.video.encode`.
    """
    # A change of the renderer is a change of the data.
    source = pathlib.Path(inspect.getfile(moving_shapes)).read_bytes()
    recipe = {
        "renderer": hashlib.sha256(source).hexdigest(),
        "clips": clips,
        "size": size,
        "frames": FRAMES,
        "fps": str(FPS),
        "seed": seed,
        "crf": crf,
        "keyframe_interval": keyframe_interval,
    }
    encode = functools.partial(
        _render_and_encode,
        task=task,
        size=size,
        seed=seed,
        crf=crf,
        keyframe_interval=keyframe_interval,
    )

    def contents() -> Contents:
        items = {
            split: [Item(f"{task}/{split}/{i:05d}", 0, (split, i)) for i in range(clips[split])]
            for split in SPLITS
        }
        classes = moving_shapes.CLASSES[task]
        return Contents(classes, items, encode, chunk=CHUNK, processes=True)

    return Plan(f"moving_shapes-{task}", recipe, contents)


def _render_and_encode(
    items: Sequence[Item], *, task: str, size: int, seed: int, crf: int, keyframe_interval: int
) -> list[Record | Rejected]:
    clips, labels = [], []
    for item in items:
        split, index = item.job
        frames, label = moving_shapes.render(
            task, split, index, seed=seed, size=size, frames=FRAMES
        )
        clips.append(frames)
        labels.append(label)
    encoded = video.encode_many(clips, fps=FPS, crf=crf, keyframe_interval=keyframe_interval)
    return [
        Record(data, label, item.source, FRAMES, FPS, True, size, size)
        for data, label, item in zip(encoded, labels, items, strict=True)
    ]
