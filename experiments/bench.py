"""`python -m experiments.bench input`: how fast clips are decoded, and what training waits for.

(`bench step`, `bench search` and `bench inference` are in modules named after them.)

First, clips at random starts are decoded by this library, by PyAV and by decord, each from a newly
opened file, as in a training set of many files; and by this library from a shard record, that is
the same video as the preparation of a dataset shrinks it. zoo.video remembers when the streams of
a file start, which makes opening it again cheaper, as from the second epoch on.

Every library may use all workers, in its best setting: threads, processes, or threads of its own.
Rounds alternate, so that a change of the machine's load meets all alike; compared are medians, and
processor time, which load hardly changes.

Then, with --config, the stages of training are timed one by one.
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import importlib.util
import multiprocessing
import os
import pathlib
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from experiments import bench_inference, bench_search, bench_step
from zoo import video

Source = str | bytes
# Decodes clips that start at the given seconds; returns frames and the seconds of processor time
# that other processes spent.
Run = Callable[[Sequence[float]], tuple[list[np.ndarray], float]]


@dataclasses.dataclass(frozen=True)
class Clips:
    """What is decoded: `frames` frames of size x size from each of many starts in one video."""

    source: Source
    rate: float
    frames: int
    size: int

    def with_pyav(self, start: float, threads: int = 1) -> np.ndarray:
        """One clip by PyAV, uint8 [t h w 3]."""
        import av

        assert isinstance(self.source, str)
        found = []
        with av.open(self.source) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = threads
            stream.codec_context.thread_type = "SLICE" if threads == 1 else "AUTO"
            assert stream.time_base is not None
            container.seek(int(start / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                if frame.time is not None and frame.time >= start - 1e-6:
                    found.append(frame.reformat(self.size, self.size, "rgb24").to_ndarray())
                    if len(found) == self.frames:
                        break
        return np.stack(found)

    def with_decord(self, start: float, threads: int = 1) -> np.ndarray:
        """One clip by decord, uint8 [t h w 3]."""
        import decord  # pyright: ignore[reportMissingImports]

        reader = decord.VideoReader(
            self.source, width=self.size, height=self.size, num_threads=threads
        )
        first = int(np.ceil(start * self.rate - 1e-6))
        last = min(first + self.frames, len(reader))
        return reader.get_batch(range(first, last)).asnumpy()

    def with_zoo(self, starts: Sequence[float]) -> list[np.ndarray]:
        """Clips by zoo.video, uint8 [t h w 3] each, in shared processes."""
        requests = [video.ClipRequest(self.source, start=s, frames=self.frames) for s in starts]
        found = video.decode_many(requests, size=(self.size, self.size))
        for clip in found:
            if isinstance(clip, video.VideoError):
                raise clip
        return [clip.frames for clip in found if isinstance(clip, video.Clip)]

    def with_zoo_alone(self, start: float) -> np.ndarray:
        """One clip by zoo.video in a process of its own."""
        size = (self.size, self.size)
        return video.decode(self.source, start=start, frames=self.frames, size=size).frames


def methods(
    clips: Clips, record: Clips, workers: int, stack: contextlib.ExitStack
) -> dict[str, Run]:
    """Every way to decode, by its label; labels of other libraries begin with their names."""
    threads = stack.enter_context(concurrent.futures.ThreadPoolExecutor(workers))

    def in_threads(one: Callable[[float], np.ndarray]) -> Run:
        return lambda starts: (list(threads.map(one, starts)), 0.0)

    def in_turn(one: Callable[[float], np.ndarray]) -> Run:
        return lambda starts: ([one(start) for start in starts], 0.0)

    def together(what: Clips) -> Run:
        def run(starts: Sequence[float]) -> tuple[list[np.ndarray], float]:
            each = -(-len(starts) // workers)
            parts = [starts[first : first + each] for first in range(0, len(starts), each)]
            return [clip for part in threads.map(what.with_zoo, parts) for clip in part], 0.0

        return run

    found: dict[str, Run] = {
        "zoo.video": together(clips),
        "zoo.video, a process per clip": in_threads(clips.with_zoo_alone),
        "zoo.video, shard records": together(record),
    }
    others = {"PyAV": ("av", clips.with_pyav), "decord": ("decord", clips.with_decord)}
    for name, (module, one) in others.items():
        if importlib.util.find_spec(module) is None:
            print(f"{name} is not installed (pip install {module}): left out.")
            continue
        context = multiprocessing.get_context("spawn")
        pool = stack.enter_context(context.Pool(workers))

        def in_processes(starts: Sequence[float], pool: Any = pool, one: Any = one) -> Any:
            parts = pool.map(_timed, [(one, start) for start in starts], chunksize=1)
            return [clip for clip, _ in parts], sum(seconds for _, seconds in parts)

        found[f"{name}, {workers} threads"] = in_threads(one)
        found[f"{name}, {workers} processes"] = in_processes
        found[f"{name}, {workers} decoder threads"] = in_turn(
            lambda start, one=one: one(start, workers)
        )
    return found


def _timed(work: tuple[Callable[[float], np.ndarray], float]) -> tuple[np.ndarray, float]:
    began = time.process_time()
    clip = work[0](work[1])
    return clip, time.process_time() - began


def compare(sources: Sequence[str], count: int, rounds: int, workers: int, size: int) -> None:
    """Prints clips per second of every method, and the ratios between libraries."""
    for source in sources:
        info = video.probe(source)
        frames = min(16, info.frames)
        room = float(info.duration) - (frames + 1) / float(info.frame_rate)
        starts = [random.Random(n).uniform(0, max(room, 0)) for n in range(count)]
        small = video.shrink(source, short_side=min(size, info.width, info.height))
        rate = float(info.frame_rate)
        print(
            f"{pathlib.Path(source).name}: {info.width}x{info.height} {info.codec}, {rate:g} "
            f"frames/s, {len(small)} bytes as a record; {count} clips of {frames} frames at "
            f"{size}x{size}, {rounds} rounds, {workers} workers, {os.cpu_count()} processors"
        )
        with contextlib.ExitStack() as stack:
            clips = Clips(source, rate, frames, size)
            record = dataclasses.replace(clips, source=small)
            runs = methods(clips, record, workers, stack)
            _check_agreement(runs, starts[:4], frames)
            seconds: dict[str, list[float]] = {label: [] for label in runs}
            work: dict[str, list[float]] = {label: [] for label in runs}
            for number in range(rounds):
                order = list(runs.items())
                for label, run in order if number % 2 else reversed(order):
                    began, spent = time.perf_counter(), _processor_seconds()
                    _, elsewhere = run(starts)
                    seconds[label].append(time.perf_counter() - began)
                    work[label].append(_processor_seconds() - spent + elsewhere)
        _print_table(seconds, work, count)


def _check_agreement(runs: dict[str, Run], starts: Sequence[float], frames: int) -> None:
    """Warms every method up, and makes sure that all decode the same frames.

    Libraries convert colours and scale with small differences; a neighbouring frame, or a record's
    loss, differs by more than 1 but by less than another scene.
    """
    expected = runs["zoo.video"](starts)[0]
    assert all(len(clip) == frames for clip in expected)
    for label, run in runs.items():
        for mine, other in zip(expected, run(starts)[0], strict=True):
            if mine.shape != other.shape:
                raise SystemExit(f"{label} gives {other.shape}, zoo.video {mine.shape}.")
            difference = float(np.abs(mine.astype(float) - other).mean())
            if difference > 12:
                raise SystemExit(f"{label} gives other frames: {difference:.1f} levels apart.")


def _print_table(seconds: dict[str, list[float]], work: dict[str, list[float]], count: int) -> None:
    rates = {label: count / statistics.median(times) for label, times in seconds.items()}
    costs = {label: statistics.median(times) / count for label, times in work.items()}
    width = max(map(len, rates))
    print(f"{'':{width}}  clips/s  processor ms/clip")
    for label, rate in rates.items():
        print(f"{label:{width}}  {rate:7.1f}  {1e3 * costs[label]:17.1f}")
    own, shards = "zoo.video", "zoo.video, shard records"
    for name in ("PyAV", "decord"):
        settings = [label for label in rates if label.startswith(name)]
        if settings:
            best = max(settings, key=rates.__getitem__)
            least = min(settings, key=costs.__getitem__)
            print(
                f"zoo.video decodes {rates[own] / rates[best]:.2f} times as fast as {best}, and "
                f"{rates[shards] / rates[best]:.2f} times from shard records; it needs "
                f"{costs[own] / costs[least]:.2f} and {costs[shards] / costs[least]:.2f} of the "
                f"processor time of {least}."
            )


def _processor_seconds() -> float:
    """Of this process and its finished children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def stages(name: str, steps: int) -> None:
    """Prints how long each stage of a training step takes alone, and which one bounds the rate."""
    import jax

    from experiments import configs, data, train

    config = configs.load(name)
    d = config.data
    prepared = data.prepare(d)
    batch_size = config.batch_size
    times: dict[str, list[float]] = {"decode": [], "transfer": [], "step": []}
    # Without `memory`: the cost of decoding, also where a run would keep the decoded split.
    batches = data.batches(
        prepared,
        "train",
        batch_size=batch_size,
        frames=d.frames,
        size=(d.decode_size, d.decode_size),
        fit=d.fit,
        sampling=d.sampling,
        stride=d.stride,
        train=True,
        seed=config.seed,
        workers=d.workers,
        threads=d.threads,
        timeout=d.timeout,
    )
    with contextlib.closing(batches):
        batch = next(batches)
        for _, seconds in zip(range(steps), _timed_iteration(batches), strict=False):
            times["decode"].append(seconds)
    classes = len(prepared.classes)
    model = train.make_model(config, classes)
    per_epoch = prepared.size("train") // batch_size
    given = train.numbers(config, per_epoch)
    state = jax.jit(lambda: train.init_state(model, config, given))()
    step = jax.jit(
        lambda state, batch: train.train_step(model, config, classes, given, state, batch),
        donate_argnums=0,
    )
    host = {"clip": batch["clip"], "label": batch["label"]}
    state, _ = jax.block_until_ready(step(state, jax.device_put(host)))
    for _ in range(steps):
        began = time.perf_counter()
        arrays = jax.block_until_ready(jax.device_put(host))
        sent = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, arrays))
        times["transfer"].append(sent - began)
        times["step"].append(time.perf_counter() - sent)
    device = jax.devices()[0]
    print(
        f"{name}: batches of {batch_size} clips of {d.frames} frames at "
        f"{d.decode_size}x{d.decode_size}, {batch['clip'].nbytes} bytes, on {device.device_kind}"
    )
    medians = {stage: statistics.median(values) for stage, values in times.items()}
    for stage, seconds in medians.items():
        print(f"{stage:9} {1e3 * seconds:8.2f} ms/batch {batch_size / seconds:10.0f} clips/s alone")
    # Decoding runs beside training; transfer and step follow one another.
    training = medians["transfer"] + medians["step"]
    if medians["decode"] > training:
        slowest = "decode"
    else:
        slowest = max(("transfer", "step"), key=medians.__getitem__)
    print(f"The bottleneck is {slowest}.")
    if prepared.frames["train"] * d.decode_size**2 * 3 <= d.memory * 2**20:
        print("This split is kept in memory once it is decoded: decoding counts in one epoch only.")


def _timed_iteration(batches: Iterator[Any]) -> Iterator[float]:
    began = time.perf_counter()
    for _ in batches:
        now = time.perf_counter()
        yield now - began
        began = now


def generated_video() -> bytes:
    """Ten seconds of moving waves, 426x240, with a key frame every five seconds."""
    y, x = np.mgrid[:240, :426].astype(np.float32) / 30
    frames = np.empty((300, 240, 426, 3), np.uint8)
    for number, t in enumerate(np.arange(300, dtype=np.float32) / 30):
        still = np.sin(x + 2 * t) + np.sin(x * y / 4 - t)
        for k in range(3):
            frames[number, ..., k] = 127 + 42 * (still + np.sin(2 * y + k * t))
    return video.encode(frames, fps=30, crf=18, keyframe_interval=150)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("input", help="decoding, transfer and step")
    command.add_argument("--video", nargs="+", default=[], help="files; default: a made one")
    command.add_argument("--clips", type=int, default=64, help="clips in a round")
    command.add_argument("--rounds", type=int, default=7)
    command.add_argument("--workers", type=int, default=2, help="threads or processes of each")
    command.add_argument("--size", type=int, default=112, help="height and width of the clips")
    command.add_argument("--config", help="also time the stages of this configuration")
    command.add_argument("--steps", type=int, default=30, help="batches to time of --config")
    command.set_defaults(run=_input)
    bench_inference.add_command(commands)
    step = commands.add_parser(
        "step", help="the train step against PyTorch and Keras", description=bench_step.__doc__
    )
    bench_step.add_arguments(step)
    step.set_defaults(run=bench_step.run)
    search = commands.add_parser(
        "search", help="a search against single runs and Keras", description=bench_search.__doc__
    )
    bench_search.add_arguments(search)
    search.set_defaults(run=bench_search.run)
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None


def _input(options: argparse.Namespace) -> int:
    """`input`: the methods on each file, then the stages of a configuration."""
    with contextlib.ExitStack() as stack:
        sources = options.video
        if not sources and not options.config:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            made = pathlib.Path(folder, "made.mp4")
            made.write_bytes(generated_video())
            sources = [str(made)]
        compare(sources, options.clips, options.rounds, options.workers, options.size)
    if options.config:
        stages(options.config, options.steps)
    return 0


if __name__ == "__main__":
    sys.exit(main())
