"""python -m zoo recognize: an index of videos, likeness, and names taught by examples."""

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from zoo.commands.classify import DEFAULT

if TYPE_CHECKING:
    from zoo.tasks.embed import Embedding
    from zoo.tasks.index import Index
    from zoo.video.files import Found


def add_commands(commands: Any) -> None:
    """Adds them to a parser."""
    parent = commands.add_parser("recognize", help="index, search, name and compare videos")
    actions = parent.add_subparsers(dest="action", required=True, metavar="ACTION")

    add = _action(actions, "add", _add, "add videos to an index; makes it where there is none")
    _inputs(add)
    label = add.add_mutually_exclusive_group()
    label.add_argument("--label", default="", metavar="NAME", help="the name of what they show")
    label.add_argument(
        "--label-folders", action="store_true", help="the name of each is its folder's"
    )
    add.add_argument("--model", help=f"of a new index: trained weights (default: {DEFAULT})")
    add.add_argument("--crops", type=int, choices=(1, 3), help="of a new index: places in a frame")
    add.add_argument("--seconds", type=float, help="of a new index: a window's, as for classify")
    add.add_argument("--every", type=float, help="of a new index: seconds from window to window")

    remove = _action(actions, "remove", _remove, "remove videos from an index")
    remove.add_argument("videos", nargs="+", metavar="VIDEO", help="as list shows them")
    listing = _action(actions, "list", _list, "the videos of an index")
    listing.add_argument("--json", action="store_true", help="print a line of JSON for each")

    search = _action(actions, "search", _search, "videos of an index that are like these")
    _inputs(search)
    search.add_argument("--top", type=int, default=5, help="videos to find")
    search.add_argument("--start", type=float, default=0.0, help="search for a part: from here")
    search.add_argument("--end", type=float, help="search for a part: to here")

    name = _action(actions, "name", _name, "which of the index's names fits these videos, if any")
    _inputs(name)
    name.add_argument("--method", choices=("mean", "probe"), default="mean")

    copies = _action(actions, "duplicates", _duplicates, "videos of an index that share a part")
    copies.add_argument("--threshold", type=float, default=0.95, help="likeness of copied windows")
    copies.add_argument("--shortest", type=float, default=0.0, help="seconds a part has to last")
    copies.add_argument("--json", action="store_true", help="print a line of JSON for each")


def _action(actions: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    action = actions.add_parser(name, help=text, description=text)
    action.add_argument("index", type=pathlib.Path, metavar="INDEX", help="the index's folder")
    action.set_defaults(run=run)
    return action


def _inputs(action: argparse.ArgumentParser) -> None:
    action.add_argument("inputs", nargs="+", metavar="INPUT", help="video files and folders")
    action.add_argument("--batch", type=int, default=8, help="windows of one call of the model")
    action.add_argument("--threads", type=int, default=2, help="of one file's decoder")
    action.add_argument("--json", action="store_true", help="print a line of JSON for each video")


def _open(path: pathlib.Path) -> "Index":
    from zoo.tasks.index import Index

    return Index(path)


class _Embedder:
    """Embeds the inputs of a command with the model of an index, and counts what fails."""

    def __init__(self, chosen: argparse.Namespace, about: dict[str, Any]) -> None:
        from zoo.tasks.embed import Embed
        from zoo.weights.pretrained import load_pretrained

        options = {key: about[key] for key in ("crops", "seconds", "every")}
        self._pretrained = load_pretrained(about["model"], num_classes=0)
        self._task = Embed(self._pretrained, batch=chosen.batch, **options)
        self._chosen = chosen
        self.failures = 0

    @property
    def dimensions(self) -> int:
        """Length of its vectors."""
        import jax
        import jax.numpy as jnp

        spec = self._pretrained.spec
        clip = jnp.zeros((1, spec.frames, spec.size, spec.size, spec.channels), jnp.float32)
        run: Any = self._pretrained.model.apply
        return jax.eval_shape(run, self._pretrained.variables, clip).shape[-1]

    def __call__(self, found: "list[Found]") -> "Iterator[tuple[Found, Embedding]]":
        """The embedding of each video that can be read, in order."""
        from zoo.tasks import engine

        paths = [video.path for video in found]
        outcomes = engine.run(paths, [self._task], threads=self._chosen.threads)
        for video, outcome in zip(found, outcomes, strict=True):
            if outcome.error is None:
                yield video, outcome.results["embed"]
            else:
                self.failures += 1
                print(f"passed over: {outcome.error}", file=sys.stderr, flush=True)

    @property
    def status(self) -> int:
        """Of the command."""
        return 3 if self.failures else 0


def _add(chosen: argparse.Namespace) -> int:
    from zoo.tasks.index import Index, IndexDamage
    from zoo.video import files
    from zoo.weights.pretrained import require_weights

    defaults = {"model": DEFAULT, "crops": 1, "seconds": 2.0, "every": None}
    if (chosen.index / "index.json").exists():
        defaults = _open(chosen.index).about
    given = {key: getattr(chosen, key) for key in ("model", "crops", "seconds", "every")}
    about = {**defaults, **{key: value for key, value in given.items() if value is not None}}
    require_weights(about["model"])
    if about != defaults and (chosen.index / "index.json").exists():
        raise IndexDamage(f"{chosen.index} was made with {defaults}; leave these options out")
    found = files.find(chosen.inputs)
    embedder = _Embedder(chosen, about)
    index = Index.create(chosen.index, embedder.dimensions, about)
    left = [video for video in found if video.key not in index.entries]
    if len(left) < len(found):
        print(f"{len(found) - len(left)} are in the index already", file=sys.stderr)
    for video, embedding in embedder(left):
        label = video.path.absolute().parent.name if chosen.label_folders else chosen.label
        index.add(video.key, embedding, label)
        record = {"video": video.key, "windows": len(embedding.vectors), "label": label}
        _print(chosen, record, f"added {video.key}, {len(embedding.vectors)} windows")
    return embedder.status


def _remove(chosen: argparse.Namespace) -> int:
    index = _open(chosen.index)
    absent = [video for video in chosen.videos if video not in index.entries]
    if absent:
        raise ValueError(f"{chosen.index} holds no {', '.join(absent)}; list shows what it holds")
    for video in chosen.videos:
        index.remove(video)
    return 0


def _list(chosen: argparse.Namespace) -> int:
    for entry in _open(chosen.index).entries.values():
        record = {"video": entry.video, "windows": entry.count, "label": entry.label}
        label = f", {entry.label}" if entry.label else ""
        _print(chosen, record, f"{entry.video}: {entry.count} windows{label}")
    return 0


def _search(chosen: argparse.Namespace) -> int:
    from zoo.tasks.embed import unit
    from zoo.video import files

    if chosen.top < 1:
        raise ValueError(f"--top is {chosen.top}; find at least 1 video")
    index = _open(chosen.index)
    embedder = _Embedder(chosen, index.about)
    for video, embedding in embedder(files.find(chosen.inputs)):
        end = float("inf") if chosen.end is None else chosen.end
        inside = (embedding.times[:, 0] < end) & (embedding.times[:, 1] > chosen.start)
        if not inside.any():
            raise ValueError(
                f"{video.path} has nothing from {chosen.start:g} to {end:g} s; it ends at "
                f"{embedding.times[-1, 1]:.3f} s"
            )
        (hits,) = index.search(unit(embedding.vectors[inside].mean(axis=0)), chosen.top)
        record = {"video": video.key, "hits": [dataclasses.asdict(hit) for hit in hits]}
        lines = [f"{video.key}:"]
        for hit in hits:
            label = f", {hit.label}" if hit.label else ""
            lines.append(f"  {hit.score:6.3f}  {hit.video} {hit.start:.1f}-{hit.end:.1f} s{label}")
        _print(chosen, record, "\n".join(lines))
    return embedder.status


def _name(chosen: argparse.Namespace) -> int:
    import numpy as np

    from zoo.tasks import fewshot
    from zoo.tasks.embed import unit
    from zoo.video import files

    index = _open(chosen.index)
    taught = [entry for entry in index.entries.values() if entry.label]
    means = [unit(index.vectors(entry.video).mean(axis=0)) for entry in taught]
    examples = np.stack(means) if means else np.zeros((0, index.dimensions), np.float32)
    names = fewshot.teach(examples, [entry.label for entry in taught], chosen.method)
    embedder = _Embedder(chosen, index.about)
    for video, embedding in embedder(files.find(chosen.inputs)):
        ((name, score),) = names.best(embedding.mean[None])
        record = {"video": video.key, "name": name, "score": round(score, 6)}
        _print(chosen, record, f"{video.key}: {name or 'none of them'} ({score:.3f})")
    return embedder.status


def _duplicates(chosen: argparse.Namespace) -> int:
    from zoo.tasks import duplicates

    for copy in duplicates.find(_open(chosen.index), chosen.threshold, chosen.shortest):
        end = copy.end + copy.offset
        text = (
            f"{copy.first} {copy.start:.1f}-{copy.end:.1f} s = {copy.second} "
            f"{copy.start + copy.offset:.1f}-{end:.1f} s ({copy.score:.3f})"
        )
        _print(chosen, dataclasses.asdict(copy), text)
    return 0


def _print(chosen: argparse.Namespace, record: dict[str, Any], text: str) -> None:
    print(json.dumps(record, ensure_ascii=False) if chosen.json else text, flush=True)
