"""What a preparation is to do: clips to encode, their splits, and the key of the result."""

import concurrent.futures
import hashlib
import json
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from experiments.datasets.records import FORMAT, Record

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Item:
    """One clip to be prepared.

    Attributes:
        source: its name in reports and records.
        label: position in the classes.
        job: what `Contents.encode` needs to know, apart from the above; picklable.
    """

    source: str
    label: int
    job: Any


@dataclass(frozen=True)
class Rejected:
    """Why an item could not be encoded."""

    item: Item
    reason: str


@dataclass(frozen=True)
class Contents:
    """The clips of a dataset.

    Attributes:
        classes: names of the labels.
        splits: the items of each split, in their final order.
        encode: encodes a chunk of items, in order. It runs in other processes or threads.
        chunk: items per call of `encode`.
        processes: run `encode` in processes (it computes in Python) and not in threads (it waits
            for ffmpeg, which is a process of its own).
        notes: what a user should know about the splits.
        duplicates: groups of sources with the same content under two labels or in two splits.
        aliases: splits that are another split under a second name, such as {"test": "val"}.
    """

    classes: tuple[str, ...]
    splits: Mapping[str, Sequence[Item]]
    encode: Callable[[Sequence[Item]], list[Record | Rejected]]
    chunk: int = 1
    processes: bool = False
    notes: tuple[str, ...] = ()
    duplicates: tuple[tuple[str, ...], ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A dataset that can be prepared.

    Attributes:
        name: for messages and for the folder's name.
        recipe: all that decides the content, as JSON values: settings, and the sources with
            their sizes and times. Another recipe is another dataset in the cache.
        contents: lists the clips; called only when the dataset is not in the cache.
    """

    name: str
    recipe: Mapping[str, Any]
    contents: Callable[[], Contents]

    @property
    def folder(self) -> str:
        """Name of the folder in the cache."""
        text = json.dumps([FORMAT, self.name, self.recipe], sort_keys=True)
        safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in self.name)
        return f"{safe}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def end_with_parent() -> None:
    """Lets this worker process end when its parent does, however that ends.

    Workers that wait for work hold both ends of their queue and would wait for ever.
    """
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, name="end with parent", daemon=True).start()
    # Ctrl-C reaches all processes of a terminal; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def in_order(
    executor: concurrent.futures.Executor,
    function: Callable[[T], U],
    arguments: Iterable[T],
    ahead: int,
) -> Generator[U, None, None]:
    """Results of `function` in the order of its arguments, with at most `ahead` under way."""
    running: deque[concurrent.futures.Future[U]] = deque()
    try:
        for argument in arguments:
            running.append(executor.submit(function, argument))
            if len(running) >= ahead:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for future in running:
            future.cancel()
