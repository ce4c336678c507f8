"""Finds shots in spliced videos with this project's network and with other programs.

    python -m experiments.shots.compare --clips ROOT --out DIR [--scenedetect PYTHON]

Joins clips that the network was not trained on to videos of 640x360 in H.264, whose boundaries are
known, and judges every method by the same rule (`scoring`). ffmpeg's scdet comes with the package;
PySceneDetect is run by the Python given, which has it installed.
"""

import argparse
import json
import pathlib
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from experiments.shots import compose, scoring
from zoo import video
from zoo.video import ffmpeg, files

SIZE = (360, 640)
RATE = 25
Found = list[tuple[int, int]]

_SCENEDETECT = """
import json, sys
import scenedetect
name, threshold, paths = sys.argv[1], float(sys.argv[2]), sys.argv[3:]
for path in paths:
    if name == "content":
        detector = scenedetect.ContentDetector(threshold=threshold)
    else:
        detector = scenedetect.AdaptiveDetector(adaptive_threshold=threshold)
    scenes = scenedetect.detect(path, detector)
    print(json.dumps([start.frame_num for start, _ in scenes[1:]]), flush=True)
"""


def spliced(seed: int, clips: Sequence[np.ndarray], seconds: float) -> compose.Composed:
    """One video: every shot is a part of another clip, of half a second at least."""
    rng = np.random.default_rng(seed)

    def shots() -> Iterator[np.ndarray]:
        last = -1
        while True:
            chosen = int(rng.integers(len(clips)))
            if chosen == last:
                continue
            clip, last = clips[chosen], chosen
            length = int(rng.integers(min(len(clip), 25), min(len(clip), 100) + 1))
            start = int(rng.integers(len(clip) - length + 1))
            yield clip[start : start + length]

    return compose.splice(rng, shots(), int(seconds * RATE))


def ours(paths: Sequence[pathlib.Path]) -> list[Found]:
    """This project's network."""
    from zoo.tasks import engine
    from zoo.tasks.analyze import Analyze

    return [
        [(t.first_frame, t.last_frame) for t in outcome.results["analyze"].transitions]
        for outcome in engine.run(paths, [Analyze()])
    ]


def scdet(threshold: float) -> Callable[[Sequence[pathlib.Path]], list[Found]]:
    """ffmpeg's filter of that name."""

    def run(paths: Sequence[pathlib.Path]) -> list[Found]:
        result: list[Found] = []
        for path in paths:
            command = [ffmpeg.executable(), "-hide_banner", "-i", str(path), "-vf"]
            command += [f"scdet=threshold={threshold}", "-an", "-f", "null", "-"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            times = re.findall(r"lavfi\.scd\.time: ([\d.]+)", done.stderr)
            frames = [round(float(t) * RATE) for t in times]
            result.append([(frame, frame) for frame in frames])
        return result

    return run


def scenedetect(
    python: str, detector: str, threshold: float
) -> Callable[[Sequence[pathlib.Path]], list[Found]]:
    """PySceneDetect's detector "content" or "adaptive"."""

    def run(paths: Sequence[pathlib.Path]) -> list[Found]:
        command = [python, "-c", _SCENEDETECT, detector, str(threshold), *map(str, paths)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return [[(f, f) for f in json.loads(line)] for line in done.stdout.splitlines()]

    return run


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.shots.compare")
    parser.add_argument(
        "--clips", nargs="+", required=True, help="videos and folders, one shot each"
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="where the videos go")
    parser.add_argument("--videos", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scenedetect", metavar="PYTHON", help="that has PySceneDetect")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    paths = [found.path for found in files.find(chosen.clips)]
    requests = [video.ClipRequest(path, frames=250) for path in paths]
    read = video.decode_many(requests, size=SIZE, fit="crop")
    clips = [clip.frames for clip in read if isinstance(clip, video.Clip) and len(clip.frames) > 24]
    print(f"{len(clips)} clips", flush=True)
    written: list[pathlib.Path] = []
    truths = []
    for number in range(chosen.videos):
        composed = spliced(1000 * chosen.seed + number, clips, chosen.seconds)
        path = chosen.out / f"spliced{number:02}.mp4"
        video.encode(composed.frames, path, fps=RATE, crf=23)
        written.append(path)
        truths.append(scoring.truth_of(composed.cuts, composed.gradual))
    counts = {k: sum(b[0] == k for t in truths for b in t) for k in ("cut", "gradual")}
    print(f"{len(written)} videos, {counts['cut']} cuts, {counts['gradual']} gradual", flush=True)
    methods: dict[str, Callable[[Sequence[pathlib.Path]], list[Found]]] = {"this project": ours}
    for threshold in (10.0, 6.0, 14.0):
        methods[f"ffmpeg scdet {threshold:g}"] = scdet(threshold)
    if chosen.scenedetect:
        for name, thresholds in (("content", (27.0, 20.0)), ("adaptive", (3.0, 2.0))):
            for threshold in thresholds:
                title = f"PySceneDetect {name} {threshold:g}"
                methods[title] = scenedetect(chosen.scenedetect, name, threshold)
    print("method                         F1 cuts  F1 gradual  F1 both  false  seconds")
    for title, method in methods.items():
        started = time.perf_counter()
        found = method(written)
        seconds = time.perf_counter() - started
        total = scoring.Score({}, {}, 0)
        for truth, answer in zip(truths, found, strict=True):
            total += scoring.score(truth, answer)
        print(
            f"{title:30} {total.f1('cut'):8.3f} {total.f1('gradual'):11.3f} {total.f1():8.3f} "
            f"{total.false:6} {seconds:8.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
