"""`python -m experiments.report RUN_DIR...`: writes the report of runs again."""

import argparse
import pathlib
import sys

from experiments import report


def main() -> int:
    """Writes each report and prints its path; the status is 1 if a folder is missing."""
    parser = argparse.ArgumentParser(prog="python -m experiments.report", description=__doc__)
    parser.add_argument("run_dir", nargs="+", type=pathlib.Path, help="folder of a run")
    status = 0
    for run_dir in parser.parse_args().run_dir:
        try:
            print(report.write(run_dir))
        except OSError as error:
            print(f"error: {error}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    raise SystemExit(main())
