"""Models and weights on the command line: python -m zoo list | info | import | export | bench."""

import argparse
import sys

from zoo.commands import bench, files, show


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit code, 2 for a wrong name, file or setting."""
    parser = argparse.ArgumentParser(prog="python -m zoo", description="Video models and weights.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (show, files, bench):
        module.add_commands(commands)
    chosen = parser.parse_args(arguments)
    try:
        chosen.run(chosen)
    except ValueError as error:
        print(f"python -m zoo: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
