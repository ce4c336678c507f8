"""python -m zoo list | info | import | export | bench | compress | decompress and the tasks."""

import argparse
import sys

from zoo import cache
from zoo.commands import analyze, bench, classify, codec, files, recognize, show


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit code.

    2 for a wrong name, file or setting, 3 where some of many videos failed or a part
    of one is missing, 130 after Ctrl-C.
    """
    description = "Video models, their weights, and what they do with videos."
    parser = argparse.ArgumentParser(prog="python -m zoo", description=description)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (show, files, bench, classify, recognize, analyze, codec):
        module.add_commands(commands)
    chosen = parser.parse_args(arguments)
    try:
        return chosen.run(chosen) or 0
    except ValueError as error:
        print(f"python -m zoo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("python -m zoo: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    cache.keep_compiled()
    sys.exit(main())
