"""An analysis as other programs take it: scene list, EDL, OpenTimelineIO, chapters."""

import csv
import io
import json
import pathlib
from collections.abc import Callable, Mapping
from fractions import Fraction

from zoo.tasks.analyze import Analysis
from zoo.tasks.timecode import Rate, clock, timecode

_COLUMNS = (
    "Scene Number", "Start Frame", "Start Timecode", "Start Time (seconds)", "End Frame",
    "End Timecode", "End Time (seconds)", "Length (frames)", "Length (timecode)",
    "Length (seconds)",
)  # fmt: skip


def scene_list(analysis: Analysis, video: str) -> str:
    """A table with the columns of PySceneDetect's scene lists; its frame numbers begin at 1."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    for number, shot in enumerate(analysis.shots, start=1):
        length = shot.end - shot.start
        table.writerow(
            (
                number, shot.first_frame + 1, clock(shot.start), f"{shot.start:.3f}",
                shot.last_frame + 1, clock(shot.end), f"{shot.end:.3f}",
                shot.last_frame - shot.first_frame + 1, clock(length), f"{length:.3f}",
            )
        )  # fmt: skip
    return text.getvalue()


def edl(analysis: Analysis, video: str) -> str:
    """An edit decision list (CMX 3600): every shot as an event of one reel, in its own place."""
    rate = rate_of(analysis)
    mode = "DROP FRAME" if rate.drop else "NON-DROP FRAME"
    lines = [f"TITLE: {_one_line(video)}", f"FCM: {mode}", ""]
    for number, shot in enumerate(analysis.shots, start=1):
        span = f"{timecode(shot.start, rate)} {timecode(shot.end, rate)}"
        lines.append(f"{number:03}  AX       V     C        {span} {span}")
        lines.append(f"* FROM CLIP NAME: {_one_line(video)}")
    return "\n".join(lines) + "\n"


def opentimelineio(analysis: Analysis, video: str) -> str:
    """A timeline for OpenTimelineIO: one track, a clip for each shot, markers on transitions."""
    rate = float(rate_of(analysis).exact)

    def span(start: float, end: float) -> dict:
        def point(seconds: float) -> dict:
            value = round(seconds * rate)
            return {"OTIO_SCHEMA": "RationalTime.1", "rate": rate, "value": float(value)}

        length = point(0.0) | {"value": point(end)["value"] - point(start)["value"]}
        return {"OTIO_SCHEMA": "TimeRange.1", "start_time": point(start), "duration": length}

    reference = {
        "OTIO_SCHEMA": "ExternalReference.1",
        "name": video,
        "target_url": video,
        "available_range": span(0.0, analysis.duration),
        "metadata": {},
    }
    clips = [
        {
            "OTIO_SCHEMA": "Clip.2",
            "name": f"Shot {number}",
            "source_range": span(shot.start, shot.end),
            "media_references": {"DEFAULT_MEDIA": reference},
            "active_media_reference_key": "DEFAULT_MEDIA",
            "effects": [],
            "markers": [],
            "enabled": True,
            "metadata": {"key_time": shot.key_time},
        }
        for number, shot in enumerate(analysis.shots, start=1)
    ]
    markers = [
        {
            "OTIO_SCHEMA": "Marker.2",
            "name": transition.kind,
            "color": "RED",
            "marked_range": span(transition.start, transition.end),
            "metadata": {"score": round(transition.score, 6)},
        }
        for transition in analysis.transitions
    ]
    track = {
        "OTIO_SCHEMA": "Track.1", "name": "Shots", "kind": "Video", "source_range": None,
        "children": clips, "effects": [], "markers": markers, "enabled": True, "metadata": {},
    }  # fmt: skip
    stack = {
        "OTIO_SCHEMA": "Stack.1", "name": "tracks", "source_range": None, "children": [track],
        "effects": [], "markers": [], "enabled": True, "metadata": {},
    }  # fmt: skip
    timeline = {
        "OTIO_SCHEMA": "Timeline.1", "name": video, "global_start_time": None, "tracks": stack,
        "metadata": {},
    }  # fmt: skip
    return json.dumps(timeline, indent=1, ensure_ascii=False) + "\n"


def chapters(analysis: Analysis, video: str) -> str:
    """Chapters in WebVTT, one for each shot."""
    parts = [
        f"{number}\n{clock(shot.start)} --> {clock(shot.end)}\nShot {number}\n"
        for number, shot in enumerate(analysis.shots, start=1)
    ]
    return "\n".join(["WEBVTT\n", *parts])


def rate_of(analysis: Analysis) -> Rate:
    """As `frame_rate` found it."""
    return Rate(Fraction(analysis.rate), analysis.variable_rate)


def _one_line(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name)


# By the ending of the file that they are written to.
FORMATS: Mapping[str, Callable[[Analysis, str], str]] = {
    ".csv": scene_list,
    ".edl": edl,
    ".otio": opentimelineio,
    ".vtt": chapters,
}


def write(analysis: Analysis, video: str, path: pathlib.Path) -> None:
    """Writes one of FORMATS.

    Raises ValueError where the name of the file does not end like one of them.
    """
    from zoo.tasks.records import write_text

    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: the name must end with {', '.join(FORMATS)}")
    write_text(path, FORMATS[path.suffix](analysis, video))
