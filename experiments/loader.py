"""Batches by Grain: which clips make which batch, their decoding, and an iterator over them.

The order is Grain's: positions in a split are shuffled anew in each epoch by a seed and put
together to batches, of which each host gets some rows. These are decoded together by a few ffmpeg
processes. Which frames of a clip are seen depends on the seed, the epoch and the clip alone, so
neither threads nor worker processes nor hosts nor an interruption change the stream.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import math
import multiprocessing
import pathlib
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from experiments.datasets.plan import end_with_parent
from experiments.datasets.records import DataError, Record, Shards
from zoo import video
from zoo.video import sample

if TYPE_CHECKING:
    import grain

Batch = dict[str, np.ndarray]
Sampling = Literal["segments", "dense", "uniform"]

# Clips that one ffmpeg process should decode at least, so that its start does not dominate.
CLIPS_PER_PROCESS = 8
# A closed stream first finishes the batch that it is decoding; after this long, it does so alone.
CLOSE_SECONDS = 2.0


@dataclass(frozen=True)
class Stream:
    """Which clips make which batch.

    A batch is padded to a multiple of `parts`, of which each host gets equally many: its rows.
    `subset`: the positions of the clips in the split, where not all of them take part.
    """

    clips: int
    batch_size: int
    train: bool
    seed: int
    epochs: int | None
    host_index: int = 0
    host_count: int = 1
    parts: int = 1
    subset: tuple[int, ...] | None = None

    @property
    def batches_per_epoch(self) -> int:
        if self.train:
            return self.clips // self.batch_size
        return math.ceil(self.clips / self.batch_size)

    @property
    def rows(self) -> int:
        """Places of this host in a batch."""
        return math.ceil(self.batch_size / self.parts) * self.parts // self.host_count

    def positions(self) -> "grain.MapDataset":
        """Positions in the split, int [rows], of each batch of all epochs; -1 is padding."""
        import grain

        if not self.train:
            padded = np.full(self.batches_per_epoch * self.batch_size, -1)
            padded[: self.clips] = np.arange(self.clips)
            order = grain.MapDataset.source(padded.tolist())
        else:
            # Grain adds the number of the epoch to the seed; mixed, seeds 0 and 1 share no order.
            mixed = int(np.random.SeedSequence(self.seed).generate_state(1)[0])
            order = grain.MapDataset.range(self.clips).shuffle(seed=mixed)
        order = order.batch(self.batch_size, drop_remainder=True, batch_fn=self._own_rows)
        return order[: self.batches_per_epoch].repeat(self.epochs)

    def _own_rows(self, batch: Sequence[int]) -> np.ndarray:
        first = self.host_index * self.rows
        padded = np.full(self.rows * self.host_count, -1)
        padded[: len(batch)] = batch
        if self.subset is not None:
            padded = np.where(padded < 0, -1, np.asarray(self.subset)[padded])
        return padded[first : first + self.rows]


@dataclass
class Decoder:
    """Reads and decodes one batch: called with its number and its positions.

    With `kept`, clips are decoded whole when they are first needed and kept there; several
    decoders of the same split may share it.
    """

    shards: Shards
    frames: int
    size: tuple[int, int]
    fit: Literal["stretch", "crop", "pad"]
    sampling: Sampling
    stride: int
    views: int
    train: bool
    seed: int
    batch_size: int
    batches_per_epoch: int
    threads: int
    timeout: float
    kept: dict[int, tuple[Record, np.ndarray]] | None

    def __post_init__(self) -> None:
        # One chunk of a batch for each process, unless its start would dominate.
        self.chunks = min(self.threads, max(1, self.batch_size // CLIPS_PER_PROCESS))
        self._pool = concurrent.futures.ThreadPoolExecutor(self.threads, "decode")

    def __reduce__(self) -> tuple[Any, ...]:  # threads do not cross to another process
        return Decoder, tuple(getattr(self, field.name) for field in dataclasses.fields(self))

    def close(self) -> None:
        """Ends the threads once they have finished what they are doing."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def __call__(self, number: int, positions: np.ndarray) -> tuple[Batch, dict[str, float]]:
        """The batch, and the seconds that its stages took."""
        started = time.perf_counter()
        real = [int(position) for position in positions if position >= 0]
        kept = {} if self.kept is None else self.kept
        records = [kept[p][0] if p in kept else self.shards[p] for p in real]
        read = time.perf_counter()
        epoch = number // self.batches_per_epoch
        chosen = [self._choose(epoch, p, r) for p, r in zip(real, records, strict=True)]
        views = 1 if self.train else self.views
        clip = np.zeros((len(positions), views * self.frames, *self.size, 3), np.uint8)
        missing = [i for i, position in enumerate(real) if position not in kept]
        per_chunk = max(1, math.ceil(len(missing) / self.chunks))
        decode = functools.partial(self._decode, real, records, chosen, clip)
        chunks = (missing[i : i + per_chunk] for i in range(0, len(missing), per_chunk))
        jobs = [self._pool.submit(decode, chunk) for chunk in chunks]
        for i in set(range(len(real))).difference(missing):
            clip[i] = kept[real[i]][1][chosen[i].ravel()]
        for job in jobs:
            job.result()
        if not self.train:
            clip = clip.reshape(len(positions), views, self.frames, *self.size, 3)
        label = np.zeros(len(positions), np.int32)
        label[: len(real)] = [record.label for record in records]
        batch = {
            "clip": clip,
            "label": label,
            "index": np.maximum(positions, 0).astype(np.int32),
            "weight": (positions >= 0).astype(np.float32),
        }
        return batch, {"read": read - started, "decode": time.perf_counter() - read}

    def _choose(self, epoch: int, position: int, record: Record) -> np.ndarray:
        """Frame numbers [v t] of a clip."""
        if not self.train:
            stride = self.stride if self.sampling == "dense" else None
            return sample.temporal_views(record.frames, self.frames, self.views, stride)
        rng = np.random.default_rng([self.seed, epoch, position])
        match self.sampling:
            case "segments":
                return sample.jittered_segments(record.frames, self.frames, rng)[None]
            case "dense":
                return sample.dense_clip(record.frames, self.frames, self.stride, rng)[None]
            case "uniform":
                return sample.uniform_segments(record.frames, self.frames)[None]

    def _decode(
        self,
        positions: Sequence[int],
        records: Sequence[Record],
        chosen: Sequence[np.ndarray],
        out: np.ndarray,
        members: Sequence[int],
    ) -> None:
        """Decodes some members of a batch into `out` [b (v t) h w c]."""
        needed, requests = [], []
        for i in members:
            record = records[i]
            whole = self.kept is not None
            needed.append(np.arange(record.frames) if whole else np.unique(chosen[i]))
            requests.append(_request(record, needed[-1]))
        # Several tries of ffmpeg must fail within the time after which no one waits any more.
        found = video.decode_many(
            requests, size=self.size, fit=self.fit, timeout=0.4 * self.timeout
        )
        for i, numbers, clip in zip(members, needed, found, strict=True):
            if isinstance(clip, video.VideoError):
                raise DataError(
                    f"{records[i].source} (clip {positions[i]} of {self.shards.split}) cannot be "
                    f"decoded: {clip.reason}; if the machine is overloaded raise data.timeout, "
                    "else delete the prepared dataset to have it prepared anew."
                ) from clip
            out[i] = clip.frames[np.searchsorted(numbers, chosen[i].ravel())]
            if self.kept is not None:
                record = dataclasses.replace(records[i], video=b"")
                self.kept[positions[i]] = record, clip.frames


def _request(record: Record, frames: np.ndarray) -> video.ClipRequest:
    """Asks for some frames of a clip, entering it near the first of them."""
    first = int(frames[0]) if record.constant_rate else 0
    # Half a frame early, where rounding decides nothing.
    start = float((first - Fraction(1, 2)) / record.fps) if first else 0.0
    return video.ClipRequest(
        record.video, name=record.source, start=start, indices=tuple((frames - first).tolist())
    )


class BatchIterator:
    """Batches in a fixed order, decoded ahead of use; can be saved and continued at any batch."""

    def __init__(
        self,
        stream: Stream,
        decoder: Decoder,
        workers: int,
        timeout: float,
        identity: Mapping[str, Any],
    ) -> None:
        self._stream, self._decoder = stream, decoder
        self._workers, self._timeout = workers, timeout
        self._identity = dict(identity)
        self._position = 0
        self._seconds = {"read": 0.0, "decode": 0.0, "wait": 0.0}
        # Now, and not with the first batch: decoding runs while the model is compiled.
        self._pump = self._start()

    @property
    def batches_per_epoch(self) -> int:
        return self._stream.batches_per_epoch

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
            DataError: a clip cannot be read, a worker died, or nothing came within the timeout.
        """
        started = time.perf_counter()
        batch, seconds = self._pump.get(self._timeout)
        self._position += 1
        for name, value in seconds.items():
            self._seconds[name] += value
        self._seconds["wait"] += time.perf_counter() - started
        return batch

    def get_state(self) -> dict[str, Any]:
        """How many batches were taken, and from what: plain values, for JSON."""
        return {"position": self._position, **self._identity}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on where `get_state` was called, exactly; the number of workers may differ.

        Raises:
            DataError: the state belongs to other data or another order.
        """
        for name, value in self._identity.items():
            if state.get(name) != value:
                raise DataError(
                    f"The saved input position has {name} {state.get(name)!r}, not {value!r}: go "
                    "on with the data and settings of the run that was saved, or start anew."
                )
        self._pump.close()
        self._position = int(state["position"])
        self._pump = self._start()

    def rewind(self) -> None:
        """Goes back to the first batch; decoded clips that are in memory stay there."""
        self.set_state({**self.get_state(), "position": 0})

    def stage_seconds(self) -> dict[str, float]:
        """Seconds so far: reading and decoding, summed over batches, of which some are made at
        the same time, and waiting for them here."""
        return dict(self._seconds)

    def close(self) -> None:
        """Stops decoding. The iterator cannot be used any more."""
        self._pump.close()
        self._decoder.close()

    def _start(self) -> "_Pump":
        # Not in the pump's thread: while Grain is imported, every other import of the process is
        # lazy (etils.epy.lazy_imports replaces `__import__`), also those that jax makes late.
        import grain as grain

        return _Pump(
            functools.partial(_iterate, self._stream, self._decoder, self._workers, self._position),
            self._decoder.shards.split,
        )


def _iterate(stream: Stream, decoder: Decoder, workers: int, position: int) -> Any:
    """Grain's iterator over decoded batches from number `position` on."""
    import grain

    loaded = stream.positions().map_with_index(decoder)[position:]
    # One batch more than the ffmpeg processes have work for: they never wait for the consumer.
    ahead = math.ceil(decoder.threads / decoder.chunks) + 1
    iterable = loaded.to_iter_dataset(
        grain.ReadOptions(num_threads=ahead, prefetch_buffer_size=ahead)
    )
    if workers:
        from absl import flags

        # Grain reads its flags, which only a command line made with absl would have parsed.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        # Through pipes and not shared memory, which is small in many containers and is left
        # behind when a process is killed.
        options = grain.experimental.DatasetOptions(min_shm_size=2**62)
        iterable = grain.experimental.WithOptionsIterDataset(iterable, options)
        iterable = iterable.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers),
            worker_init_fn=lambda index, count: end_with_parent(),
        )
    return iter(iterable)


class _Pump:
    """A thread that takes batches from Grain, which itself would wait for ever."""

    def __init__(self, make: Callable[[], Any], split: str) -> None:
        self._make, self._split = make, split
        self._queue: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(1)
        self._stop = threading.Event()
        self._ended: BaseException | None = None
        self._before = set(multiprocessing.active_children())
        self._thread = threading.Thread(target=self._run, name="input", daemon=True)
        self._thread.start()

    def get(self, timeout: float) -> Any:
        """The next batch; the error that ended the stream, or StopIteration."""
        if self._ended is not None:
            raise self._ended
        try:
            batch, error = self._queue.get(timeout=timeout)
        except queue.Empty:
            found = _unusual_children()
            error = DataError(
                f"No batch of {self._split} came within {timeout:g} s"
                + (f"; {', '.join(found)}" if found else "")
                + "; look for stopped processes and slow disks, or raise data.timeout."
            )
            # Grain would wait for them. Those of a younger stream die too: it is as good as over.
            for process in set(multiprocessing.active_children()) - self._before:
                if process.name.startswith("grain-process-prefetch"):
                    process.kill()
            self.close(wait=0.0)
        if error is None:
            return batch
        if not isinstance(error, DataError | StopIteration):
            cause, error = error, DataError(f"The batches of {self._split} ended: {error!r}.")
            error.__cause__ = cause
        self._ended = error
        raise error

    def close(self, wait: float = CLOSE_SECONDS) -> None:
        """Ends the thread, and with it Grain and its worker processes."""
        self._stop.set()
        self._ended = DataError(f"The batches of {self._split} were closed; make them anew.")
        self._thread.join(wait)

    def _run(self) -> None:
        try:
            with contextlib.closing(self._make()) as iterator:
                for batch in iterator:
                    self._put(batch, None)
                    if self._stop.is_set():
                        return
            self._put(None, StopIteration())
        except BaseException as error:  # raised again in the thread that waits for a batch
            self._put(None, error)

    def _put(self, batch: Any, error: BaseException | None) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                return self._queue.put((batch, error), timeout=0.1)


def _unusual_children() -> list[str]:
    """Child processes, decoders or workers, that the system does not let run."""
    unusual = {"T": "stopped", "t": "stopped", "D": "waiting for a disk", "Z": "dead"}
    found = []
    for listing in pathlib.Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in listing.read_text().split():
                _, name, rest = re.split(
                    r"[()]", pathlib.Path(f"/proc/{child}/stat").read_text(), maxsplit=2
                )
                if state := unusual.get(rest.split()[0]):
                    found.append(f"process {child} ({name}) is {state}")
    return found
