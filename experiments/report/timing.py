"""Where the time went: the stages of the training loop and of the input pipeline."""

from typing import Any

from experiments.readable import duration, percent
from experiments.report import training
from experiments.report.markup import name
from experiments.report.run_folder import Run, as_number

LOOP = {
    "wait for input": "waiting for input",
    "transfer": "copying clips to the device",
    "step": "training steps, with compilation",
    "val": "validation",
    "test": "test",
    "checkpoint": "saving checkpoints",
}
PIPELINE = {"read": "reading records", "decode": "decoding", "wait": "waiting for the loop"}
LOOP_WAIT, PIPELINE_WAIT = "wait for input", "wait"
OTHER = "everything else"


def stages(run: Run) -> str:
    """Sentences and bars, as HTML; empty where nothing was measured."""
    seconds = _stage_seconds(run)
    loop = {k.removeprefix("stage/"): v for k, v in seconds.items() if k.startswith("stage/")}
    # Time in which the pipeline has nothing to do is none of its work.
    pipeline = {k.removeprefix("input/"): v for k, v in seconds.items() if k.startswith("input/")}
    if not loop and not pipeline:
        return ""
    sentences, groups = [], []
    if loop:
        slowest = max(loop, key=lambda stage: loop[stage])
        total = max(training.seconds(run) or 0.0, sum(loop.values()))
        sentences.append(
            f"Most of the time went into {_name(LOOP, slowest)}: {duration(loop[slowest])} of "
            f"{duration(total)} ({percent(loop[slowest] / (total or 1))})."
        )
        rest = total - sum(loop.values())
        shown = loop | ({OTHER: rest} if rest > 0.005 * total else {})
        groups.append(_bars("The training loop, stage after stage", LOOP, shown, slowest))
    work = {stage: value for stage, value in pipeline.items() if stage != PIPELINE_WAIT}
    if sum(work.values()) > 0:
        slowest = max(work, key=lambda stage: work[stage])
        sentences.append(
            f"The slowest stage of the input pipeline is {_name(PIPELINE, slowest)}, with "
            f"{duration(work[slowest])}, {percent(work[slowest] / sum(work.values()))} of its work."
        )
        title = "The input pipeline, beside the loop, all threads"
        groups.append(_bars(title, PIPELINE, work, slowest))
    if (waited := loop.get(LOOP_WAIT)) is not None:
        fed = waited + loop.get("step", 0.0) + loop.get("transfer", 0.0)
        sentences.append(_verdict(waited, waited / (fed or 1)))
    return f'<p>{" ".join(sentences)}</p><div class="pair">{"".join(groups)}</div>'


def _stage_seconds(run: Run) -> dict[str, float]:
    """Seconds per stage/NAME and input/NAME: the final ones, else those of the lines so far."""
    final = run.metrics.get("stages")
    if isinstance(final, dict) and final:
        return _usable(final)
    total: dict[str, float] = {}
    before: dict[str, float] = {}
    for line in run.lines:
        for key, value in _usable(line).items():
            # The sums begin at zero again in a resumed run.
            total[key] = (
                total.get(key, 0.0)
                + value
                - (before[key] if value >= before.get(key, 0.0) and key in before else 0.0)
            )
            before[key] = value
    return total


def _usable(values: dict[str, Any]) -> dict[str, float]:
    known = {key: as_number(value) for key, value in values.items() if "/" in key}
    return {
        key: value
        for key, value in known.items()
        if value is not None and value >= 0 and key.startswith(("stage/", "input/"))
    }


def _verdict(waited: float, part: float) -> str:
    """Whether the input pipeline kept up with the training steps."""
    spent = (
        f"training waited {duration(waited)} for clips, {percent(part)} of the time of its steps"
    )
    if part < 0.05:
        return f"The input kept up: {spent}."
    if part < 0.25:
        return f"The input nearly kept up: {spent}."
    return (
        f"The input held the training up: {spent}; more <code>--data.threads</code> or "
        "<code>--data.workers</code>, or smaller clips, would help."
    )


def _name(names: dict[str, str], stage: str) -> str:
    return names[stage] if stage in names else name(stage)


def _bars(title: str, names: dict[str, str], seconds: dict[str, float], slowest: str) -> str:
    """A horizontal bar per stage, in the order of `names`."""
    order = [*(s for s in names if s in seconds), *(s for s in seconds if s not in names)]
    most = max(seconds.values()) or 1.0
    rows = "".join(
        f"<li{' class=slowest' if stage == slowest else ''}><span>{_name(names, stage)}"
        f"{' <em>slowest</em>' if stage == slowest else ''}</span>"
        f'<span class="meter"><i style="width:{100 * seconds[stage] / most:.1f}%"></i></span>'
        f"<span>{duration(seconds[stage])}</span></li>"
        for stage in order
    )
    return (
        f'<figure><figcaption><h3>{title}</h3></figcaption><ol class="stages">{rows}</ol></figure>'
    )
