"""python -m zoo list, python -m zoo info NAME (of a model, of weights, or a compressed file)."""

import argparse
import pathlib
from typing import Any

from zoo import registry
from zoo.commands import codec
from zoo.weights import spec as specs
from zoo.weights.published import PUBLISHED, Published


def add_commands(commands: Any) -> None:
    """Adds them to a parser."""
    listing = commands.add_parser("list", help="names of models and of trained weights")
    listing.add_argument("pattern", nargs="?", default="*", help='such as "cnn*"; default: all')
    listing.set_defaults(run=_list)
    info = commands.add_parser(
        "info", help="what a model, trained weights or a compressed file are"
    )
    info.add_argument(
        "name", help="a name that list shows, or a compressed file (.zvc, .mp4 with a filter)"
    )
    info.set_defaults(run=_info)


def _list(chosen: argparse.Namespace) -> None:
    models, weights = registry.list_models(chosen.pattern), registry.list_weights(chosen.pattern)
    if not models and not weights:
        raise ValueError(f"nothing matches {chosen.pattern!r}; python -m zoo list shows all names")
    width = max(20, *map(len, models)) if models else 20
    for name in models:
        print(f"{name:{width}}  weights: {', '.join(registry.weights_of(name)) or 'none'}")
    for name in weights:
        if registry.weights_model(name) not in models:
            print(name)


def _info(chosen: argparse.Namespace) -> None:
    name = chosen.name
    if name.endswith((".zvc", ".mp4")):
        codec.describe(pathlib.Path(name))
        return
    registry.require_name("name", name, [*registry.MODELS, *registry.list_weights()])
    if name in registry.WEIGHTS:
        from zoo.weights import load

        print((load.FILES / f"{name}.md").read_text("utf-8"), end="")
    elif name in registry.MODELS:
        _model(name)
    else:
        _weights(name, PUBLISHED[name])


def _model(name: str) -> None:
    from zoo import cost

    family = registry.MODELS[name]()
    config = family.presets[name]
    weights = registry.weights_of(name)
    published = [PUBLISHED[key] for key in weights if key in PUBLISHED]
    classes = len(published[0].spec().classes) if published else family.num_classes or 10
    model = registry.create_model(name, num_classes=classes)
    height, width = (config.size, config.size) if isinstance(config.size, int) else config.size
    clip = (config.frames, height, width, 3)
    layers = cost.layers(model, clip)
    parameters = cost.parameters(model, clip)
    largest = max(layer.output_bytes for layer in layers)
    print(name)
    pixels = "RGB, " + ("uint8" if cost.input_dtype(model) == "uint8" else "normalised")
    print(f"  input       {config.frames} frames of {height}x{width}, {pixels}")
    print(f"  parameters  {parameters:,} with {classes} classes")
    print(f"  arithmetic  {cost.flops(model, clip) / 1e9:.2f} GFLOP for one clip")
    print(
        f"  memory      {4 * parameters / 1e6:.1f} MB of parameters in float32; the largest "
        f"layer's output has {largest / 1e6:.1f} MB for one clip"
    )
    print(f"  weights     {', '.join(weights) or 'none'}")
    for key in weights:
        print(f"              {licence(key)}")
    print(f"  {config}")
    rows = [("layer", "kind", "output", "parameters")]
    rows += [(a.name, a.kind, "x".join(map(str, a.output)), f"{a.parameters:,}") for a in layers]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for a, b, c, d in rows:
        print(f"  {a:{widths[0]}}  {b:{widths[1]}}  {c:{widths[2]}}  {d:>{widths[3]}}")


def licence(name: str) -> str:
    """The licence of weights, and what is published about their accuracy, in a line."""
    if name not in PUBLISHED:
        return f"{name}: {registry.WEIGHTS[name].licence}"
    record = PUBLISHED[name]
    use = "" if record.commercial else ", not for commercial use"
    return f"{name}: {record.licence}{use}{_accuracy(record)}"


def _accuracy(record: Published) -> str:
    if "val/top1" not in record.results:
        return ""
    views = f" ({record.views})" if record.views else ""
    return f", top-1 {100 * record.results['val/top1']:.1f} on {record.labels}{views}"


def _weights(name: str, record: Published) -> None:
    from zoo.weights import originals

    spec = record.spec()
    rate = f" at {record.fps:g} frames per second" if record.fps else ""
    apart = f", {record.stride} apart" if record.stride > 1 else ""
    known = f"sha256 {record.sha256}..." if record.sha256 else ""
    known = known or (
        f"git blob {record.git_blob}" if record.git_blob else "none; pinned at first use"
    )
    here = originals.folder(name)
    print(f"{name}: published weights of {record.model}")
    print(f"  file        {record.url or 'more than one; see the note'}")
    print(f"  digest      {known}")
    print(f"  here        {here if here.exists() else 'not yet'}")
    print(f"  licence     {licence(name).split(': ', 1)[1]}")
    print(f"  data        {spec.data}, {len(spec.classes)} classes")
    print(f"  input       {record.frames} frames{apart}{rate}")
    print(f"  frames      scaled to {specs.scaling(spec)}, center crop {record.size}x{record.size}")
    mean, std = (" ".join(f"{v:g}" for v in values) for values in (record.mean, record.std))
    print(f"  pixels      in [0, 1], minus {mean}, divided by {std}")
    if record.note:
        print(f"  note        {record.note}")
