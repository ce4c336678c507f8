"""A task on many videos: names them, goes on after a stop, reports failures."""

import argparse
import csv
import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Row = tuple[Any, ...]


def add_inputs(command: argparse.ArgumentParser) -> None:
    """The options that every task on videos has."""
    command.add_argument("inputs", nargs="+", metavar="INPUT", help="video files and folders")
    form = command.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a line of JSON for each video")
    form.add_argument("--csv", action="store_true", help="print a table")
    command.add_argument(
        "--out", type=pathlib.Path, metavar="DIR", help="keep a JSON file for each video, and go on"
    )
    command.add_argument(
        "--parquet", type=pathlib.Path, metavar="FILE", help="write the table as Apache Parquet"
    )
    command.add_argument(
        "--partial", action="store_true", help="also keep what a broken file still gives"
    )
    command.add_argument(
        "--shard", type=_shard, default=(0, 1), metavar="K/N",
        help="do every N-th video only, from the K-th on (0/4 to 3/4 on four hosts)",
    )  # fmt: skip
    command.add_argument("--threads", type=int, default=2, help="of one file's decoder")


def _shard(text: str) -> tuple[int, int]:
    k, n = (int(part) for part in text.split("/"))
    if not 0 <= k < n:
        raise argparse.ArgumentTypeError(f"{text}; give K/N with K from 0 to N - 1")
    return k, n


class Report:
    """Prints results in the form that was chosen, a video at a time."""

    def __init__(
        self,
        chosen: argparse.Namespace,
        columns: Sequence[str],
        rows: Callable[[Mapping[str, Any]], Iterator[Row]],
        lines: Callable[[Mapping[str, Any]], Iterator[str]],
    ) -> None:
        """`rows` and `lines` make the table's rows and the words for a person from a record."""
        self._chosen, self._columns, self._rows, self._lines = chosen, columns, rows, lines
        self._table: list[Row] = []
        if chosen.csv:
            self._csv = csv.writer(sys.stdout, lineterminator="\n")
            self._csv.writerow(columns)

    def add(self, record: Mapping[str, Any]) -> None:
        """Prints one video's record."""
        if self._chosen.json:
            print(json.dumps(record, ensure_ascii=False))
        elif self._chosen.csv:
            self._csv.writerows(self._rows(record))
        else:
            for line in self._lines(record):
                print(line)
        sys.stdout.flush()
        if self._chosen.parquet is not None:
            self._table += self._rows(record)

    def close(self) -> None:
        """Writes the table."""
        if (path := self._chosen.parquet) is None:
            return
        import pyarrow
        import pyarrow.parquet

        columns = zip(*self._table, strict=True) if self._table else [()] * len(self._columns)
        table = pyarrow.table(
            {name: list(column) for name, column in zip(self._columns, columns, strict=True)}
        )
        unfinished = path.with_name(f".{path.name}.unfinished")
        pyarrow.parquet.write_table(table, unfinished)
        unfinished.replace(path)


def run(
    chosen: argparse.Namespace,
    make_tasks: Callable[[], Sequence[Any]],
    settings: Mapping[str, Any],
    report: Report,
    also: Callable[[Any, Mapping[str, Any]], None] | None = None,
) -> int:
    """Does tasks on the inputs of a command line; returns its exit status.

    Args:
      chosen: what `add_inputs` added, parsed.
      make_tasks: called once where there is something left to do.
      settings: what results depend on.
      report: gets a record for each video that is not a failure.
      also: called with each video that has results and its record.
    """
    from zoo.tasks import engine, records
    from zoo.video import files

    k, n = chosen.shard
    found = files.find(chosen.inputs)[k::n]
    folder = None if chosen.out is None else records.Folder(chosen.out, settings)
    kept = {video: folder.done(video) for video in found} if folder else {}
    left = [video for video in found if kept.get(video) is None]
    failures: list[dict[str, Any]] = []
    count = 0
    try:
        for video, record in kept.items():
            if record is not None:
                report.add(record)
                count += 1
                if also is not None:
                    also(video, record)
        if left:
            outcomes = engine.run(
                [video.path for video in left], make_tasks(),
                partial=chosen.partial, threads=chosen.threads,
            )  # fmt: skip
            for video, outcome in zip(left, outcomes, strict=True):
                record = records.to_json(video.key, outcome)
                if outcome.error is not None:
                    failures.append(record)
                    kind = "a part of it was read" if outcome.results else "passed over"
                    print(f"{kind}: {outcome.error}", file=sys.stderr, flush=True)
                if outcome.results:
                    report.add(record)
                    count += 1
                    if also is not None:
                        also(video, record)
                if folder and outcome.error is None:
                    folder.write(video, record)
                elif folder:
                    folder.forget(video)
    finally:
        # Also after Ctrl-C: what is done is whole.
        report.close()
        if folder:
            part = "" if n == 1 else f"-{k}-of-{n}"
            lines = [json.dumps(failure, ensure_ascii=False) + "\n" for failure in failures]
            records.write_text(folder.path / f"failures{part}.jsonl", "".join(lines))
        if count + len(failures) < len(found) or failures:
            again = "; the same command goes on" if folder else ""
            print(
                f"{count} of {len(found)} videos have results, {len(failures)} failed"
                f"{again if count + len(failures) < len(found) else ''}",
                file=sys.stderr,
            )
    return 3 if failures else 0
