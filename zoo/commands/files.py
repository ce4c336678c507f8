"""python -m zoo import NAME FILE, python -m zoo export NAME."""

import argparse
import pathlib
from typing import Any

FORMATS = {"stablehlo": ".stablehlo", "safetensors": ".safetensors", "torch-named": ".safetensors"}


def add_commands(commands: Any) -> None:
    """Adds them to a parser."""
    taking = commands.add_parser("import", help="take published weights from a downloaded file")
    taking.add_argument("name", help="weights that list shows, or a model with one such")
    taking.add_argument(
        "file", type=pathlib.Path, help=".pth, .pyth, .safetensors, .tar.gz or .index"
    )
    taking.set_defaults(run=_import)
    giving = commands.add_parser("export", help="a model with its weights as a file for others")
    giving.add_argument("name", help="weights that list shows")
    giving.add_argument("--format", choices=FORMATS, required=True)
    giving.add_argument("--output", type=pathlib.Path, help="file to write; default NAME.FORMAT")
    giving.add_argument(
        "--frame", type=_frame, metavar="HxW", help="of the frames that a program will be given"
    )
    giving.add_argument(
        "--batch", type=_batch, default=1, help='clips of a call of a program, or "any"'
    )
    giving.set_defaults(run=_export)


def _frame(text: str) -> tuple[int, int]:
    height, width = text.split("x")
    return int(height), int(width)


def _batch(text: str) -> int | None:
    if text == "any":
        return None
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} clips; give at least 1, or any")
    return int(text)


def _import(chosen: argparse.Namespace) -> None:
    from zoo.weights import originals, pretrained

    name = pretrained.default_weights(chosen.name, chosen.file)
    spec = pretrained.import_weights(name, chosen.file).spec
    print(f"{name}: sha256 {spec.sha256}")
    print(f"kept in {originals.folder(name)}; use it as zoo.load_pretrained({name!r})")


def _export(chosen: argparse.Namespace) -> None:
    from zoo import export
    from zoo.weights.pretrained import load_pretrained

    path = chosen.output or pathlib.Path(f"{chosen.name}{FORMATS[chosen.format]}")
    loaded = load_pretrained(chosen.name)
    try:
        if chosen.format == "stablehlo":
            program = export.stablehlo(
                path, chosen.name, loaded, frame=chosen.frame, batch=chosen.batch
            )
            shape = "x".join(
                "any" if n is None else str(n) for n in program.record["input"]["shape"]
            )
            print(f"{path}: uint8 frames {shape} to {len(loaded.spec.classes)} logits")
            print(f"loaded again and compared; its record is in {path}.json")
        elif chosen.format == "torch-named":
            print(f"{path}: {export.torch_named(path, loaded)} entries under the publisher's names")
        else:
            print(f"{path}: {export.safetensors(path, loaded):,} bytes")
    except OSError as error:
        raise ValueError(f"{path}: cannot be written ({error.strerror})") from error
