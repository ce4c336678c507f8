"""Source videos made small: the clips of the user's own data."""

import os
from dataclasses import dataclass

from experiments.datasets.plan import Item, Rejected
from experiments.datasets.records import Record
from zoo import video

# A video takes no longer than this, or counts as broken: hours of video should be cut first.
SECONDS = 3600.0


@dataclass(frozen=True)
class Shrinking:
    """How a source video is made small, see `zoo.video.shrink`."""

    short_side: int
    keyframe_interval: int
    crf: int


def shrink(
    item: Item,
    source: str | os.PathLike | bytes,
    shrinking: Shrinking,
    start: float | None = None,
    end: float | None = None,
) -> Record | Rejected:
    """The item's clip as a small video, or why it cannot be used. `source` is only read."""
    try:
        data = video.shrink(
            source,
            short_side=shrinking.short_side,
            keyframe_interval=shrinking.keyframe_interval,
            crf=shrinking.crf,
            start=start,
            end=end,
            name=item.source,
            timeout=SECONDS,
        )
        info = video.probe(data, name=item.source)
    except video.VideoError as error:
        return Rejected(item, error.reason)
    except (FileNotFoundError, PermissionError) as error:
        return Rejected(item, error.strerror or str(error))
    return Record(
        video=data,
        label=item.label,
        source=item.source,
        frames=info.frames,
        fps=info.frame_rate,
        constant_rate=not info.variable_frame_rate,
        height=info.height,
        width=info.width,
    )
