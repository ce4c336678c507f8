"""Models and weights on the command line: python -m zoo list, python -m zoo info NAME."""

import argparse
import sys

from zoo import registry


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit code, 2 for a name that does not exist."""
    parser = argparse.ArgumentParser(prog="python -m zoo", description="Video models and weights.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="names of models and of trained weights")
    listing.add_argument("pattern", nargs="?", default="*", help='such as "cnn*"; default: all')
    info = commands.add_parser("info", help="what a model or trained weights are and cost")
    info.add_argument("name", help="a name that list shows")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "list":
            _list(chosen.pattern)
        else:
            _info(chosen.name)
    except ValueError as error:
        print(f"python -m zoo: {error}", file=sys.stderr)
        return 2
    return 0


def _list(pattern: str) -> None:
    models, weights = registry.list_models(pattern), registry.list_weights(pattern)
    if not models and not weights:
        raise ValueError(f"nothing matches {pattern!r}; python -m zoo list shows all names")
    for name in models:
        trained = [key for key in registry.WEIGHTS if registry.WEIGHTS[key].model == name]
        print(f"{name:20}  weights: {', '.join(sorted(trained)) or 'none'}")
    for name in weights:
        if registry.WEIGHTS[name].model not in models:
            print(name)


def _info(name: str) -> None:
    registry.require_name("name", name, [*registry.MODELS, *registry.WEIGHTS])
    if name in registry.WEIGHTS:
        from zoo.weights import load

        print((load.FILES / f"{name}.md").read_text("utf-8"), end="")
        return
    from zoo import cost

    config = registry.MODELS[name]().presets[name]
    model = registry.create_model(name, num_classes=10)
    clip = (config.frames, config.size, config.size, 3)
    trained = [key for key in registry.WEIGHTS if registry.WEIGHTS[key].model == name]
    print(name)
    print(f"  input       {config.frames} frames of {config.size}x{config.size}, RGB, normalised")
    print(f"  parameters  {cost.parameters(model, clip):,} with 10 classes")
    print(f"  arithmetic  {cost.flops(model, clip) / 1e9:.2f} GFLOP for one clip")
    print(f"  weights     {', '.join(sorted(trained)) or 'none'}")
    print(f"  {config}")


if __name__ == "__main__":
    sys.exit(main())
