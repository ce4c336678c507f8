"""The report of a run: one HTML file with nothing outside it, made from the run folder alone.

`write(run_dir)` or `python -m experiments.report RUN_DIR...` reads these files, and copes with
any of them missing, cut off or unreadable, since a run may end at any moment:

config.json
    The configuration: nested objects of plain values.
metrics.jsonl
    One object per line, in the order of the steps: `step` (done so far), `epoch` (from 0), then
    numbers. Lines of single steps hold step/loss, step/top1, ...; the line that ends an epoch
    holds train/loss, train/top1, val/loss, val/top1, clips_per_second, seconds (of the run so
    far), and stage/NAME and input/NAME, the seconds spent so far in the stages of the loop and of
    the input pipeline. Any other PREFIX/loss and PREFIX/top1 becomes a curve too. A step that is
    not above the one before it (a resumed run that logs a step again) voids the earlier lines
    from that step on.
metrics.json
    What the whole run came to; missing in a run that has not finished. test/* as
    `experiments.metrics.evaluate` returns it, best/epoch (from 1) and its val/top1 and val/loss,
    classes, clips (number of each split), broken_files, parameters, views, seconds, and stages:
    seconds under the names stage/NAME and input/NAME.
examples/index.json
    A list of clips to show: file (an MP4 beside it), source, label, prediction, probabilities (a
    list of [class, probability], the most probable first).
examples/*.mp4
    The clips, H.264; they go into the report as they are.

search.json
    In the folder of a search, which has no metrics.jsonl and no examples: `runs`, each with seed,
    fold and its curve, the values of each epoch as in metrics.jsonl. metrics.json then holds
    `trials`, the ranking of `experiments.standings`.

The folder also holds `checkpoints/`, `events.out.tfevents.*` (for TensorBoard) and
`model.safetensors`, which the report does not read.
"""

import os
import pathlib

from experiments.report.page import render
from experiments.report.run_folder import read
from experiments.report.search import render as render_search

__all__ = ["write"]


def write(run_dir: pathlib.Path) -> pathlib.Path:
    """Writes `run_dir`/report.html and returns its path.

    A report that is already there is replaced in one step, never left half written.

    Raises:
        FileNotFoundError: there is no such folder.
        OSError: the report cannot be written.
    """
    if not run_dir.is_dir():
        raise FileNotFoundError(f"{run_dir} is not a folder: name the folder of a run")
    path = run_dir / "report.html"
    temporary = run_dir / f".report-{os.getpid()}.html"
    try:
        run = read(run_dir)
        search = (run_dir / "search.json").exists()
        page = render_search(run, run_dir) if search else render(run)
        temporary.write_text(page, "utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
