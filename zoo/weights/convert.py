"""Applies a name table: published state dicts to variables, and back, strict both ways.

A table is a list of rules. In the names of a rule `{i}`, `{j}`, `{k}` and `{l}` stand for a number
and `{path}` for any dotted prefix; what stood for them on one side goes to the other. Every entry
that is missing, unknown or of another shape is collected and named in one error.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from zoo.weights.paths import flatten, unflatten

StateDict = Mapping[str, np.ndarray]


class ConversionError(ValueError):
    """A state dict that does not fit the model; the message lists every entry that differs."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """One kind of entry. source: name in the publisher's file; target: path in the variables.

    transform: one of TRANSFORMS, which says how the axes are laid out.
    """

    source: str
    target: str
    transform: str = "same"


@dataclasses.dataclass(frozen=True)
class Derived:
    """An entry of the file that follows from others and has no counterpart here.

    Accepted and dropped on import. On export there is one beside each entry whose name fits
    `beside`, with the value that `make` gives.
    """

    source: str
    beside: str
    make: Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Table:
    """How one model's published weights are named.

    aliases: other names that files were seen to use, as pairs (name in the file, name in the
      rules).
    filled: paths in the variables that the publisher's network does not have, and the number that
      makes them change nothing.
    ignored: entries of the file that only its training needed, such as an optimiser's.
    own_names: whether the names of a TensorFlow checkpoint are those that the program gave its
      variables, and not those of the checkpoint (`zoo.weights.tf_checkpoint.read`).
    """

    rules: tuple[Rule, ...]
    derived: tuple[Derived, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    filled: tuple[tuple[str, float], ...] = ()
    ignored: tuple[str, ...] = ()
    own_names: bool = False


def _pointwise(a: np.ndarray) -> np.ndarray:
    return a.reshape(a.shape[:2]).T  # a ValueError where the window has more than one element


def _inner_pointwise(a: np.ndarray) -> np.ndarray:
    return a.reshape(a.shape[-2:])  # a ValueError where the window has more than one element


def _last_axis(a: np.ndarray) -> np.ndarray:
    return a.reshape(a.shape[-1:])  # likewise


def _last_two_first(a: np.ndarray) -> np.ndarray:
    return np.moveaxis(a, (-1, -2), (0, 1))


def _first_of_one(a: np.ndarray) -> np.ndarray:
    if a.shape[:1] != (1,):
        raise ValueError(f"shape {a.shape} does not begin with 1")
    return a[0]


# name: (from the file's layout, back to it).
TRANSFORMS: Mapping[str, tuple[Callable[..., np.ndarray], Callable[..., np.ndarray]]] = {
    "same": (lambda a: a, lambda a: a),
    # [out, in / groups, *window] to [*window, in / groups, out]
    "conv": (lambda a: np.moveaxis(a, (0, 1), (-1, -2)), _last_two_first),
    # [out, in] to [in, out]
    "linear": (np.transpose, np.transpose),
    # [out, in, 1, 1, 1], a 3D convolution of one element, to [in, out]
    "pointwise": (_pointwise, lambda a: a.T[:, :, None, None, None]),
    # [1, n, c] to [n, c]
    "without_batch": (_first_of_one, lambda a: a[None]),
    # [1, 1, c] to [c]
    "vector": (lambda a: _first_of_one(_first_of_one(a)), lambda a: a[None, None]),
    # the same for a 2D convolution
    "pointwise2d": (_pointwise, lambda a: a.T[:, :, None, None]),
    # TensorFlow's: [1, 1, 1, in, out] to [in, out]; the same for a 2D convolution
    "inner_pointwise": (_inner_pointwise, lambda a: a[None, None, None]),
    "inner_pointwise2d": (_inner_pointwise, lambda a: a[None, None]),
    # its depthwise windows, [*window, channels, 1] to [*window, 1, channels]
    "depthwise": (lambda a: np.swapaxes(a, -1, -2), lambda a: np.swapaxes(a, -1, -2)),
    # [c], possibly with axes of 1 before it, to [c]
    "channels": (_last_axis, lambda a: a),
}


def conv(source: str, target: str, bias: bool = False) -> tuple[Rule, ...]:
    """The rules of a convolution, grouped ones included."""
    rules = (Rule(f"{source}.weight", f"params/{target}/kernel", "conv"),)
    return (*rules, Rule(f"{source}.bias", f"params/{target}/bias")) if bias else rules


def linear(source: str, target: str, bias: bool = True) -> tuple[Rule, ...]:
    """The rules of a dense layer."""
    rules = (Rule(f"{source}.weight", f"params/{target}/kernel", "linear"),)
    return (*rules, Rule(f"{source}.bias", f"params/{target}/bias")) if bias else rules


def norm(source: str, target: str) -> tuple[Rule, ...]:
    """The rules of a layer normalisation."""
    return (
        Rule(f"{source}.weight", f"params/{target}/scale"),
        Rule(f"{source}.bias", f"params/{target}/bias"),
    )


def batch_norm(source: str, target: str) -> tuple[Rule, ...]:
    """The rules of a batch normalisation; see also `BATCHES_TRACKED`."""
    return (
        *norm(source, target),
        Rule(f"{source}.running_mean", f"batch_stats/{target}/mean"),
        Rule(f"{source}.running_var", f"batch_stats/{target}/var"),
    )


def conv_norm(conv_source: str, norm_source: str, target: str) -> tuple[Rule, ...]:
    """The rules of `zoo.layers.ConvNorm`."""
    return (*conv(conv_source, f"{target}/conv"), *batch_norm(norm_source, f"{target}/norm"))


def pointwise(source: str, target: str, transform: str = "pointwise") -> tuple[Rule, ...]:
    """The rules of a convolution of one element with bias that is a dense layer here."""
    return (
        Rule(f"{source}.weight", f"params/{target}/kernel", transform),
        Rule(f"{source}.bias", f"params/{target}/bias"),
    )


# PyTorch's counter beside each batch normalisation, read by its cumulative mode alone.
BATCHES_TRACKED = Derived(
    "{path}.num_batches_tracked", "{path}.running_mean", lambda: np.zeros((), np.int64)
)


def to_variables(
    table: Table, state: StateDict, shapes: Mapping[str, Any], what: str
) -> dict[str, Any]:
    """The variables of a model from a published state dict.

    Args:
      table: the names.
      state: name to array.
      shapes: the model's variables under `jax.eval_shape`, as nested dicts.
      what: the file or model, for the message.

    Returns:
      Nested dicts of numpy arrays in the dtypes of `shapes`, contiguous.

    Raises:
      ConversionError: lists every missing, unknown or misshapen entry.
    """
    wanted = flatten(shapes)
    rename, rename_back = _renamer(table.rules, True), _renamer(table.rules, False)
    dropped = (*(derived.source for derived in table.derived), *table.ignored)
    given: dict[str, tuple[str, np.ndarray]] = {}
    problems = []
    for name, array in state.items():
        known = name
        for old, new in table.aliases:
            known = _substitute(known, old, new) or known
        if any(_pattern(template).fullmatch(known) for template in dropped):
            continue
        found = rename(known)
        if found is None or found[0] not in wanted:
            problems.append(f"{name} is unknown")
            continue
        path, transform = found
        if path in given:
            problems.append(f"{name} is there twice")
            continue
        try:
            array = TRANSFORMS[transform][0](np.asarray(array))
        except ValueError:  # an array of too few axes, or of a first axis that is not 1
            problems.append(f"{name} has shape {np.shape(array)}")
            continue
        if array.shape != wanted[path].shape:
            expected = TRANSFORMS[transform][1](np.empty(wanted[path].shape, np.bool_)).shape
            problems.append(f"{name} has shape {np.shape(state[name])}, not {expected}")
        given[path] = (name, array)
    filled = {}
    for path in wanted.keys() - given.keys():
        value = next((v for p, v in table.filled if _pattern(p).fullmatch(path)), None)
        if value is None:
            source = rename_back(path)
            problems.append(f"{source[0] if source else path} is missing")
        else:
            filled[path] = np.full(wanted[path].shape, value, wanted[path].dtype)
    if problems:
        raise ConversionError(
            f"{what}: the weights do not fit the model: {'; '.join(sorted(problems))}; give the "
            "file of this model, or create the model with the settings it was trained with"
        )
    arrays = {p: np.asarray(a, wanted[p].dtype, order="C") for p, (_, a) in given.items()}
    return unflatten(arrays | filled)


def to_state_dict(table: Table, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The published names and layouts for variables: the inverse of `to_variables`.

    Raises ConversionError for variables that the table has no name for.
    """
    state: dict[str, np.ndarray] = {}
    unknown = []
    rename_back = _renamer(table.rules, False)
    for path, array in flatten(variables).items():
        found = rename_back(path)
        if found is None:
            unknown.append(path)
            continue
        name, transform = found
        state[name] = np.asarray(TRANSFORMS[transform][1](np.asarray(array)), order="C")
        for derived in table.derived:
            beside = _substitute(name, derived.beside, derived.source)
            if beside is not None:
                state[beside] = derived.make()
    if unknown:
        raise ConversionError(f"there is no published name for {', '.join(sorted(unknown))}")
    return state


_PATTERNS: dict[str, re.Pattern[str]] = {}


def _pattern(template: str) -> re.Pattern[str]:
    """A template as a regular expression with a group for each placeholder."""
    if template not in _PATTERNS:
        parts = re.split(r"\{(\w+)\}", template)
        text, seen = "", set()
        for number, part in enumerate(parts):
            if number % 2 == 0:
                text += re.escape(part)
            elif part in seen:
                text += f"(?P={part})"
            else:
                seen.add(part)
                text += f"(?P<{part}>.+)" if part == "path" else rf"(?P<{part}>\d+)"
        _PATTERNS[template] = re.compile(text)
    return _PATTERNS[template]


def _substitute(name: str, template: str, other: str) -> str | None:
    match = _pattern(template).fullmatch(name)
    return other.format(**match.groupdict()) if match else None


def _renamer(rules: tuple[Rule, ...], forward: bool) -> Callable[[str], tuple[str, str] | None]:
    """Gives for a name that on the other side and the transform, or None where no rule fits."""
    exact: dict[str, tuple[str, str]] = {}
    patterns = []
    for rule in rules:
        name, other = (rule.source, rule.target) if forward else (rule.target, rule.source)
        if "{" in name:
            patterns.append((name, other, rule.transform))
        else:  # tables without placeholders have thousands of rules
            exact.setdefault(name, (other, rule.transform))

    def rename(name: str) -> tuple[str, str] | None:
        if name in exact:
            return exact[name]
        for template, other, transform in patterns:
            found = _substitute(name, template, other)
            if found is not None:
                return found, transform
        return None

    return rename
