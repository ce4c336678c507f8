"""The page: a headline, then one section per question that a person has about a run."""

import base64
from collections.abc import Iterable

from experiments.readable import duration, number
from experiments.report import results, timing, training
from experiments.report.document import document
from experiments.report.markup import count, name, plural, share, text
from experiments.report.run_folder import Example, Run


def render(run: Run) -> str:
    """The report of a run as a whole HTML document."""
    sections = [
        ("Learning curves", training.curves(run)),
        ("Example clips", _examples(run)),
        ("Which classes are taken for which", results.confusion(run)),
        ("Each class", results.per_class(run)),
        ("Can its confidence be trusted?", results.calibration(run)),
        ("Where the time went", timing.stages(run)),
        ("Configuration", configuration(run)),
    ]
    return document(
        run,
        title=training.headline(run),
        what=what(run),
        lead=training.lead(run),
        figures=_figures(run),
        sections=sections,
    )


def what(run: Run) -> str:
    """Model and data, above the headline."""
    data, task = run.setting("data.dataset"), run.setting("data.task")
    what = [run.setting("model.name"), f"{data}, {task}" if data == "moving_shapes" else data]
    return " on ".join(name(part) for part in what if part) or name(run.name)


def _figures(run: Run) -> str:
    """The run's numbers, as a row of tiles."""
    tiles: list[tuple[str, str, str]] = []
    top1, clips = run.number("test/top1"), run.number("test/count")
    if top1 is not None:
        note = ""
        if clips:
            low, high = results.interval(top1, clips)
            note = f"95% interval {share(low)} to {share(high)}"
        tiles.append(("top-1 accuracy", share(top1), note))
    k = int(run.number("test/top5_k") or 5)
    if run.number("test/top5") is not None and len(run.classes) > k:
        tiles.append((f"top-{k} accuracy", share(run.number("test/top5")), ""))
    for key, label, note in (
        ("test/macro_f1", "macro F1", "mean over the classes"),
        ("test/ece", "calibration error", "confidence against accuracy"),
    ):
        if (value := run.number(key)) is not None:
            tiles.append((label, share(value), note))
    if (loss := run.number("test/loss")) is not None:
        tiles.append(("cross-entropy", number(loss), "nats per clip"))
    if (seconds := training.seconds(run)) is not None:
        rate = training.clips_per_second(run)
        note = f"{number(rate)} clips/s in training" if rate is not None else ""
        tiles.append(("time", duration(seconds), note))
    if (parameters := run.number("parameters")) is not None:
        tiles.append(("parameters", count(parameters), ""))
    return (
        '<dl class="figures">'
        + "".join(
            f"<div><dt>{label}</dt><dd>{value}</dd><dd class='note'>{note}</dd></div>"
            for label, value, note in tiles
        )
        + "</dl>"
        if tiles
        else ""
    )


def _examples(run: Run) -> str:
    """The clips, playing, with what the model said."""
    if not run.examples:
        return ""
    right = sum(example.label == example.prediction for example in run.examples)
    return (
        f"<p>{plural(len(run.examples), 'test clip')} and what the model said of them: {right} "
        f"right, {len(run.examples) - right} wrong. They were picked to show mistakes as well, so "
        "their share is not the accuracy.</p>"
        '<p class="tools"><button type="button" id="playing" hidden>Pause all clips</button></p>'
        f'<ul class="clips">{"".join(_example(example) for example in run.examples)}</ul>'
    )


def _example(example: Example) -> str:
    right = example.label == example.prediction
    if example.video is None:
        film = f'<p class="film missing">no clip: {text(example.missing)}</p>'
    else:
        content = base64.b64encode(example.video).decode()
        film = (
            f'<video class="film" autoplay muted loop playsinline preload="auto" '
            f'aria-label="clip of {text(example.label)}" src="data:video/mp4;base64,{content}">'
            "</video>"
        )
    guesses = "".join(
        f"<li{_same(guess == example.label)}><span>{name(guess)}</span>"
        f'<span class="meter"><i style="width:{100 * min(max(part, 0), 1):.1f}%"></i></span>'
        f"<span>{share(part)}</span></li>"
        for guess, part in example.probabilities[:3]
    )
    verdict = "✓ right" if right else "✗ wrong"
    return (
        f'<li class="{"right" if right else "wrong"}">{film}<div class="about">'
        f'<p class="verdict">{verdict}</p>'
        f"<dl><dt>true</dt><dd>{name(example.label)}</dd>"
        f"<dt>predicted</dt><dd>{name(example.prediction)}</dd></dl>"
        f'<ol class="guesses">{guesses}</ol>'
        f'<p class="source" title="{text(example.source)}">{name(example.source)}</p></div></li>'
    )


def _same(yes: bool) -> str:
    return ' class="truth"' if yes else ""


def configuration(run: Run) -> str:
    """Every value, in groups, under the names that the command line takes."""
    if not run.config:
        return ""
    single = {key: value for key, value in run.config.items() if not isinstance(value, dict)}
    groups = [("run", "", single)] if single else []
    groups += [(k, f"{k}.", v) for k, v in run.config.items() if isinstance(v, dict)]
    return (
        '<div class="settings">'
        + "".join(
            f"<div><h3>{text(title)}</h3><dl>{_settings(prefix, values.items())}</dl></div>"
            for title, prefix, values in groups
        )
        + "</div>"
    )


def _settings(prefix: str, values: Iterable[tuple[str, object]]) -> str:
    return "".join(
        f'<div><dt title="--{text(prefix + key)}">{name(key)}</dt><dd>{_setting(value)}</dd></div>'
        for key, value in values
    )


def _setting(value: object) -> str:
    match value:
        case None | "" | [] | {}:
            return '<span class="none">none</span>'
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(_setting(part) for part in value)
        case float():
            return f"{value:g}"
        case _:
            return name(value)
