"""What a video is made of: shots, transitions, a picture for each shot, motion, a summary."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from zoo.tasks.engine import Part
from zoo.tasks.shots import boundaries
from zoo.tasks.shots.model import FRAMES, MARGIN, Seen, ShotModel
from zoo.tasks.shots.signals import HEIGHT, WIDTH
from zoo.tasks.timecode import frame_rate
from zoo.tasks.windows import Cut, Window
from zoo.video.stream import View

# Frames of a shot that are compared to choose the one that stands for it.
_COMPARED = 64
# Levels by which colours of shots differ that are nothing alike; the share of time that a summary
# stands for; and how many shots it chooses from.
_UNLIKE = 51.0
_COVERED = 0.9
_CANDIDATES = 500
# Widths or heights of the picture, or its growth, a second: a camera that moves less stands still.
_MOVES = 0.05


@dataclasses.dataclass(frozen=True)
class Transition:
    """A boundary between shots.

    Attributes:
      kind: "cut" or "gradual".
      start, end: seconds; of a cut, both are when the new shot begins.
      first_frame, last_frame: numbers of the frames in transition; of a cut, of the new shot's
        first frame.
      score: probability of its surest frame.
    """

    kind: str
    start: float
    end: float
    first_frame: int
    last_frame: int
    score: float


@dataclasses.dataclass(frozen=True)
class Shot:
    """What a camera saw without interruption. Shots follow each other without gaps.

    Where a transition is gradual, one shot ends and the next begins in its middle.

    Attributes:
      start, end: seconds by the time stamps of its first frame and of the one after its last.
      first_frame, last_frame: their numbers, the video's first being 0.
      key_time, key_frame: of the frame that is most like the others, among the sharper ones.
      motion: mean of `shots.model.Seen.motion`, in [0, 1].
      luma: mean brightness in [0, 1].
      pan, tilt: the camera's mean motion to the right in widths of the picture a second, and down
        in heights.
      zoom: by what share things grow in a second; negative where the camera draws back.
      flow: how far blocks of the picture move in a second, in its widths, on average.
    """

    start: float
    end: float
    first_frame: int
    last_frame: int
    key_time: float
    key_frame: int
    motion: float
    luma: float
    pan: float
    tilt: float
    zoom: float
    flow: float


@dataclasses.dataclass(frozen=True)
class Analysis:
    """Of a video.

    Attributes:
      frames: number of frames.
      duration: seconds from the first frame to the end of the last.
      rate: frames per second as a fraction "30000/1001"; of a variable rate, the mean.
      variable_rate: whether frames are not evenly spaced; times are exact all the same.
      shots, transitions: in the order of time.
      summary: numbers of the few shots, counted from 1, whose key frames stand for all.
    """

    frames: int
    duration: float
    rate: str
    variable_rate: bool
    shots: tuple[Shot, ...]
    transitions: tuple[Transition, ...]
    summary: tuple[int, ...]

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Analysis":
        """From the plain values that a JSON file of results holds under "analyze"."""
        shots = tuple(Shot(**shot) for shot in record["shots"])
        transitions = tuple(Transition(**item) for item in record["transitions"])
        summary = tuple(record["summary"])
        return cls(**{**record, "shots": shots, "transitions": transitions, "summary": summary})


class _Found(NamedTuple):
    """Of a window: the number of its first frame, and for each of its frames time and values."""

    first: int
    times: np.ndarray
    seen: Seen


class Analyze:
    """The task: `engine.run(paths, [Analyze()])` gives an `Analysis` under "analyze"."""

    name = "analyze"
    batch = 1
    view = View((HEIGHT, WIDTH))
    cut = Cut(FRAMES, overlap=2 * MARGIN)

    def __init__(self, model: ShotModel | None = None) -> None:
        """Loads the shipped network, unless `model` is given."""
        self._model = model or ShotModel()

    def compute(self, windows: Sequence[Window]) -> Sequence["_Found"]:
        """What is seen of the frames of each window."""
        seen = self._model([window.frames for window in windows])
        # A video shorter than a window was filled up with its last frame.
        return [
            _Found(window.first, window.times, Seen(*(rows[: len(window.times)] for rows in found)))
            for window, found in zip(windows, seen, strict=True)
        ]

    def result(self, parts: Sequence[Part["_Found"]]) -> Analysis:
        """Joins the windows of a video, finds its boundaries and describes its shots."""
        times, seen = _joined([part.value for part in parts])
        return analysis(times, seen, self._model.thresholds)


def analysis(times: np.ndarray, seen: Seen, thresholds: dict[str, float]) -> Analysis:
    """The analysis of frames [t] of which times and everything else are known."""
    found = boundaries.find(seen.probabilities, thresholds["cut"], thresholds["gradual"])
    rate = frame_rate(times)
    end = float(times[-1]) + 1 / float(rate.exact)
    ends = np.append(times, end)
    transitions = tuple(
        Transition(
            boundary.kind,
            float(times[boundary.first]),
            float(times[boundary.first] if boundary.kind == "cut" else ends[boundary.last + 1]),
            boundary.first,
            boundary.last,
            boundary.score,
        )
        for boundary in found
    )
    # A gradual transition belongs to both shots; they meet in its middle.
    starts = [0, *((b.first + b.last + 1) // 2 for b in found)]
    starts = sorted({start for start in starts if start < len(times)})
    shots = tuple(
        _shot(first, last, ends, seen, transitions)
        for first, last in zip(starts, [*(s - 1 for s in starts[1:]), len(times) - 1], strict=True)
    )
    chosen = summary(
        seen.colours[[shot.key_frame for shot in shots]],
        np.array([shot.last_frame - shot.first_frame + 1 for shot in shots]),
    )
    return Analysis(
        len(times), end, str(rate.exact), rate.variable, shots, transitions,
        tuple(number + 1 for number in chosen),
    )  # fmt: skip


def summary(colours: np.ndarray, lengths: np.ndarray) -> list[int]:
    """The fewest shots, chosen one by one, that are like nine tenths of all time; in order.

    The next is always the one that adds most (greedy facility location). How well a shot stands
    for another is 1 where their key frames are equal and 0 where their colours differ by a fifth
    of the scale.

    Args:
      colours: uint8 [n d], of the shots' key frames.
      lengths: [n], of the shots.
    """
    some = colours.astype(np.float32)
    # Of a long film, the longest shots are enough to choose from.
    longest = np.sort(np.argsort(-lengths, kind="stable")[:_CANDIDATES])
    alike = np.empty((len(longest), len(some)), np.float32)
    for row, number in zip(alike, longest, strict=True):
        row[:] = np.maximum(1 - np.abs(some - some[number]).mean(1) / _UNLIKE, 0)
    weights = (lengths / lengths.sum()).astype(np.float32)
    covered = np.zeros(len(some), np.float32)
    chosen: list[int] = []
    while covered @ weights < _COVERED and len(chosen) < len(longest):
        gains = [float(np.maximum(row, covered) @ weights) for row in alike]
        best = int(np.argmax(gains))
        chosen.append(int(longest[best]))
        covered = np.maximum(covered, alike[best])
    return sorted(chosen)


def _joined(parts: Sequence["_Found"]) -> tuple[np.ndarray, Seen]:
    """Windows that overlap as one row of frames; each frame from the window it is deeper inside."""
    kept: list[tuple[np.ndarray, ...]] = []
    end = 0  # The number of the frame after the last one so far.
    for part in parts:
        rows = (part.times, *part.seen)
        shared = end - part.first
        if half := shared // 2:
            kept[-1] = tuple(column[: len(column) - half] for column in kept[-1])
        kept.append(tuple(column[shared - half :] for column in rows))
        end = part.first + len(part.times)
    columns = [np.concatenate(column) for column in zip(*kept, strict=True)]
    return columns[0], Seen(*columns[1:])


def _shot(
    first: int, last: int, ends: np.ndarray, seen: Seen, transitions: Sequence[Transition]
) -> Shot:
    # Frames in transition show two shots; none of them stands for either, if it can be helped.
    begin, end = first, last
    for transition in transitions:
        if transition.kind == "gradual":
            if first <= transition.last_frame < last:
                begin = max(begin, transition.last_frame + 1)
            if first < transition.first_frame <= last:
                end = min(end, transition.first_frame - 1)
    if begin > end:
        begin, end = first, last
    inside = slice(first, last + 1)
    key = begin + _medoid(seen.colours[begin : end + 1], seen.sharpness[begin : end + 1])
    # The first frame differs from another shot's, not from one of its own.
    own = slice(begin + 1, end + 1)
    motion, pan, tilt, zoom, flow = 0.0, 0.0, 0.0, 0.0, 0.0
    if end > begin:
        seconds = max(float(ends[end] - ends[begin]), 1e-9)
        motion = float(seen.motion[own].mean())
        pan, tilt, zoom = (float(value) / seconds for value in seen.camera[own].sum(0))
        flow = float(seen.flow[own].sum()) / seconds
    return Shot(
        float(ends[first]), float(ends[last + 1]), first, last, float(ends[key]), key,
        motion, float(seen.luma[inside].mean()), pan, tilt, zoom, flow,
    )  # fmt: skip


def _medoid(colours: np.ndarray, sharpness: np.ndarray) -> int:
    """The frame nearest to all others, among the sharper half."""
    places = np.unique(np.linspace(0, len(colours) - 1, _COMPARED).round().astype(int))
    some = colours[places].astype(np.float32)
    distances = np.abs(some[:, None] - some[None]).mean(-1).sum(1)
    blurred = sharpness[places] < np.median(sharpness[places])
    return int(places[np.argmin(np.where(blurred, np.inf, distances))])


def camera(pan: float, tilt: float, zoom: float) -> str:
    """What the camera does, in words; nothing where it hardly moves."""
    moves = ((pan, "pans right", "pans left"), (tilt, "tilts down", "tilts up"),
             (zoom, "zooms in", "zooms out"))  # fmt: skip
    return ", ".join(up if value > 0 else down for value, up, down in moves if abs(value) >= _MOVES)
