"""What an experiment is: frozen dataclasses of plain values, and nothing else.

Every value is a number, a string, a boolean or a tuple of them, so that a configuration can be
written to JSON, compared, hashed and changed from the command line. Choices are checked when a
configuration is made: a wrong value is an error before any work starts.
"""

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from zoo.video.policy import Augmentation

T = TypeVar("T")


class ConfigError(ValueError):
    """A name or value of a configuration that cannot be used; the message says what to do."""


def nearest(name: str, known: Iterable[str], what: str) -> ConfigError:
    """The error for a name that does not exist, naming the one that was probably meant."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}?" if close else f"known are: {', '.join(known)}."
    return ConfigError(f"There is no {what} {name!r}; {hint}")


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True)
class Model:
    """Which network is trained."""

    name: str = "cnn_small"
    """A name of `python -m zoo list`."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation; parameters and the loss stay in float32."""
    dropout: float = 0.0
    """Probability that a feature before the last layer is set to zero in training."""
    drop_path: float = 0.0
    """Probability that the residual branch of the last block is left out in training (stochastic
    depth), falling to 0 at the first; of networks that have such branches."""
    remat: bool = False
    """Compute the blocks again in the backward pass instead of keeping what they computed: less
    memory, more time."""
    activation: Literal["relu", "sigmoid"] = "relu"
    """Non-linearity of the `cnn` networks."""
    pretrained: str = ""
    """Start from these weights, e.g. `cnn_small.moving_shapes`; the last layer is new if the
    classes differ. Empty: random initialisation."""


@dataclass(frozen=True)
class Data:
    """Which clips are seen, and how they are read."""

    dataset: str = "moving_shapes"
    """`moving_shapes`, `video_folder`, or `tfds:NAME` for a TFDS video set like `tfds:ucf101`."""
    task: Literal["shapes", "motions"] = "shapes"
    """What is labelled in `moving_shapes`: what moves, or how it moves."""
    root: str = ""
    """For `video_folder`: a folder ROOT/{train,val,test}/CLASS/*, ROOT/CLASS/*, or a CSV file with
    path,label[,start,end]. For `tfds:NAME`: the TFDS data directory."""
    frames: int = 8
    """Frames of a clip that the model sees."""
    sampling: Literal["segments", "uniform", "dense"] = "segments"
    """Which frames training sees. `segments`: a random one from each of equal parts of the clip
    (TSN); `uniform`: the middle one of each; `dense`: consecutive ones, `stride` apart."""
    stride: int = 2
    """Distance in frames for dense sampling."""
    size: int = 64
    """Height and width that the model sees, in pixels."""
    decode_size: int = 72
    """Height and width to which frames are decoded; training crops `size` out of it."""
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    """How a frame of another shape becomes square."""
    short_side: int = 0
    """Short side in pixels to which clips are shrunk when shards are prepared; 0: `decode_size`."""
    keyframe_interval: int = 8
    """Frames between key frames in the prepared shards: short is quick to enter, long is small."""
    crf: int = 20
    """H.264 quality of the prepared shards, 0 (lossless) to 51."""
    train_clips: int = 1000
    """Size of the training split of `moving_shapes`."""
    val_clips: int = 200
    """Size of the validation split of `moving_shapes`."""
    test_clips: int = 400
    """Size of the test split of `moving_shapes`."""
    val_fraction: float = 0.15
    """Share of the training clips that becomes the validation split where the data has none."""
    test_fraction: float = 0.15
    """Share of the training clips that becomes the test split where the data has none."""
    folds: int = 0
    """Equal parts of the training split for cross-validation; 0: none. With them one part, `fold`,
    validates and the others train; the validation split is not used."""
    fold: int = 0
    """Which of the folds validates, counted from 0."""
    max_broken: float = 0.1
    """Largest share of broken files that is tolerated; more is an error before training starts."""
    seed: int = 0
    """Seed of the generated clips and of the splits."""
    workers: int = 0
    """Decoding processes of Python; 0: threads, each with an ffmpeg process of its own."""
    threads: int = 2
    """ffmpeg processes that decode at the same time (in each worker)."""
    memory: int = 512
    """Megabytes: a split whose decoded frames take no more is decoded once and then kept."""
    timeout: float = 120.0
    """Seconds without a batch after which the input pipeline is declared dead."""

    def __post_init__(self) -> None:
        known = ("moving_shapes", "video_folder")
        if self.dataset not in known and not self.dataset.startswith("tfds:"):
            raise nearest(self.dataset, (*known, "tfds:NAME"), "dataset")
        for name in ("frames", "stride", "size", "decode_size", "threads", "keyframe_interval"):
            _check(
                getattr(self, name) >= 1, f"data.{name} is {getattr(self, name)}: set 1 or more."
            )
        for name in ("train_clips", "val_clips", "test_clips"):
            _check(
                getattr(self, name) >= 1, f"data.{name} is {getattr(self, name)}: set 1 or more."
            )
        for name in ("val_fraction", "test_fraction", "max_broken"):
            value = getattr(self, name)
            _check(0 <= value < 1, f"data.{name} is {value}: set a share from 0 to below 1.")
        _check(
            self.decode_size >= self.size,
            f"data.decode_size {self.decode_size} is smaller than data.size {self.size}: crops of "
            f"{self.size} need frames at least as large.",
        )
        for name in ("workers", "memory"):
            _check(
                getattr(self, name) >= 0, f"data.{name} is {getattr(self, name)}: set 0 or more."
            )
        _check(
            self.folds == 0 or self.folds >= 2,
            f"data.folds is {self.folds}: set 2 or more, or 0 for none.",
        )
        _check(
            0 <= self.fold < max(self.folds, 1),
            f"data.fold is {self.fold}: set a number from 0 to below data.folds ({self.folds}).",
        )
        _check(self.timeout > 0, f"data.timeout is {self.timeout}: set seconds above 0.")
        _check(0 <= self.crf <= 51, f"data.crf is {self.crf}: H.264 knows 0 to 51.")


@dataclass(frozen=True)
class Optim:
    """How parameters are updated."""

    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    """`adam` (with L2 in the gradient if weight decay is set), `adamw` (decoupled), or `sgd`
    with Nesterov momentum 0.9."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate after the warm-up: as it is, or falling to zero along a half cosine."""
    warmup_epochs: float = 0.0
    """Epochs over which the learning rate rises from zero."""
    weight_decay: float = 0.0
    """Weight decay of kernels; biases and scales are never decayed."""
    clip_norm: float = 0.0
    """Largest global norm of the gradient; 0: not clipped."""
    label_smoothing: float = 0.0
    """Share of the target spread evenly over all classes."""
    ema_decay: float = 0.0
    """Decay of the moving average of the parameters that is evaluated; 0: none."""
    accumulate: int = 1
    """Batches whose gradients are averaged before one update."""
    trained_blocks: int = -1
    """How many of the model's last blocks (`python -m zoo info NAME` lists them) are trained beside
    its last layer: -1 all of them, 0 none (a linear probe). If not all are, batch statistics are
    not updated either."""
    layer_decay: float = 1.0
    """Factor of the learning rate from each block to the one before it (discriminative learning
    rates, as in BEiT); 1: all blocks learn alike."""

    def __post_init__(self) -> None:
        _check(
            self.learning_rate > 0,
            f"optim.learning_rate is {self.learning_rate}: set a number above 0.",
        )
        for name in ("label_smoothing", "ema_decay"):
            value = getattr(self, name)
            _check(0 <= value < 1, f"optim.{name} is {value}: set a number from 0 to below 1.")
        for name in ("warmup_epochs", "weight_decay", "clip_norm"):
            value = getattr(self, name)
            _check(value >= 0, f"optim.{name} is {value}: set 0 or more.")
        _check(
            self.trained_blocks >= -1,
            f"optim.trained_blocks is {self.trained_blocks}: set -1 (all), 0 or more.",
        )
        _check(
            0 < self.layer_decay <= 1,
            f"optim.layer_decay is {self.layer_decay}: set a number above 0 and up to 1.",
        )
        _check(self.accumulate >= 1, f"optim.accumulate is {self.accumulate}: set 1 or more.")


@dataclass(frozen=True)
class Eval:
    """How validation and test look at a clip."""

    batch_size: int = 32
    """Clips in one evaluation batch."""
    views: int = 2
    """Temporal views of the test; their probabilities are averaged. Validation uses one."""
    crops: int = 1
    """Spatial crops of the test: 1 (centre) or 3 (left, centre, right). Validation uses one."""

    def __post_init__(self) -> None:
        _check(self.batch_size >= 1, f"eval.batch_size is {self.batch_size}: set 1 or more.")
        _check(self.views >= 1, f"eval.views is {self.views}: set 1 or more.")
        _check(self.crops in (1, 3), f"eval.crops is {self.crops}: set 1 or 3.")


@dataclass(frozen=True)
class Search:
    """Axes of a hyperparameter search; without any value the experiment is a single run.

    An axis without values keeps the value of the experiment.
    """

    learning_rate: tuple[float, ...] = ()
    """Values of `optim.learning_rate`."""
    weight_decay: tuple[float, ...] = ()
    """Values of `optim.weight_decay`."""
    dropout: tuple[float, ...] = ()
    """Values of `model.dropout`."""
    label_smoothing: tuple[float, ...] = ()
    """Values of `optim.label_smoothing`."""
    mixup: tuple[float, ...] = ()
    """Values of `augment.mixup`."""
    strength: tuple[float, ...] = ()
    """Values of `augment.strength`."""
    batch_size: tuple[int, ...] = ()
    """Values of `batch_size`."""
    epochs: tuple[int, ...] = ()
    """Values of `epochs`."""
    model: tuple[str, ...] = ()
    """Values of `model.name`; each is compiled anew."""
    frames: tuple[int, ...] = ()
    """Values of `data.frames`; each is compiled anew."""
    seed: tuple[int, ...] = ()
    """Seeds; each combination is trained with each, and its results are averaged."""
    folds: int = 0
    """Folds of a cross-validation; each combination is trained on each, and its results are
    averaged. 0: none."""
    sampling: Literal["grid", "random"] = "grid"
    """`grid`: all combinations of the values. `random`: `samples` combinations, drawn between the
    smallest and the largest value, learning rate and weight decay log-uniformly; whole numbers and
    names are drawn from the values."""
    samples: int = 16
    """Combinations that are drawn."""
    sampling_seed: int = 0
    """Seed of the drawing."""
    halving: int = 0
    """Successive halving: only the best 1/halving of the combinations goes on after
    `first_epochs` epochs, and again each time that the epochs have grown `halving` times; 0: all
    train to the end."""
    first_epochs: int = 1
    """Epochs after which successive halving drops combinations for the first time."""
    together: int = 0
    """Most members that are trained in one program; 0: as many as memory allows."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "epochs", "frames"):
            for value in getattr(self, name):
                _check(value >= 1, f"search.{name} has {value}: set 1 or more.")
        for name in SEARCHED:
            values = getattr(self, name)
            _check(
                len(set(values)) == len(values),
                f"search.{name} has a value twice: {', '.join(map(str, values))}.",
            )
        _check(
            self.folds == 0 or self.folds >= 2,
            f"search.folds is {self.folds}: set 2 or more, or 0 for none.",
        )
        _check(
            self.halving == 0 or self.halving >= 2,
            f"search.halving is {self.halving}: set 2 or more, or 0 for none.",
        )
        _check(
            not (self.halving and self.epochs),
            "search.halving chooses how long combinations are trained: leave search.epochs empty.",
        )
        for name in ("samples", "first_epochs"):
            _check(
                getattr(self, name) >= 1, f"search.{name} is {getattr(self, name)}: set 1 or more."
            )
        _check(self.together >= 0, f"search.together is {self.together}: set 0 or more.")

    @property
    def wanted(self) -> bool:
        """Whether there is anything to search."""
        return bool(self.folds or self.seed or any(getattr(self, name) for name in SEARCHED))


SEARCHED: Mapping[str, str] = {
    "learning_rate": "optim.learning_rate",
    "weight_decay": "optim.weight_decay",
    "dropout": "model.dropout",
    "label_smoothing": "optim.label_smoothing",
    "mixup": "augment.mixup",
    "strength": "augment.strength",
    "batch_size": "batch_size",
    "epochs": "epochs",
    "model": "model.name",
    "frames": "data.frames",
    "seed": "seed",
}
"""The axes of a search and the fields of a configuration that they set."""


@dataclass(frozen=True)
class Config:
    """One experiment."""

    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    augment: Augmentation = field(default_factory=Augmentation)
    optim: Optim = field(default_factory=Optim)
    eval: Eval = field(default_factory=Eval)
    search: Search = field(default_factory=Search)
    epochs: int = 10
    """Passes over the training split."""
    batch_size: int = 32
    """Clips in one training batch."""
    seed: int = 0
    """Seed of the initial parameters, the order of the clips and the augmentation."""
    checkpoint_steps: int = 500
    """Steps between checkpoints within an epoch; every epoch also ends with one."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "checkpoint_steps"):
            _check(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}: set 1 or more.")


def changed(config: Config, values: Mapping[str, Any]) -> Config:
    """`config` with other values of some fields, named with dots.

    Raises:
        ConfigError: a value cannot be used.
    """
    for name, value in values.items():
        group, _, inner = name.rpartition(".")
        try:
            part = dataclasses.replace(getattr(config, group), **{inner: value}) if group else value
            config = dataclasses.replace(config, **{group or inner: part})
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(str(error)) from error
    return config


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as nested dicts of plain values, for JSON."""
    return dataclasses.asdict(config)


def from_dict(values: Mapping[str, Any], kind: type[T] = Config, where: str = "") -> T:
    """The configuration that `to_dict` wrote.

    Missing fields keep their defaults.

    Raises:
        ConfigError: an unknown field, answered with the nearest known one, or a bad value.
    """
    hints = typing.get_type_hints(kind)
    known: dict[str, Any] = {}
    for name, value in values.items():
        if name not in hints:
            raise nearest(where + name, (where + known for known in hints), "field")
        known[name] = _value(value, hints[name], where + name)
    try:
        return kind(**known)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _value(value: Any, hint: Any, where: str) -> Any:
    """`value` read from JSON as the type of the field `where`."""
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} is {value!r}: write its fields as an object.")
        return from_dict(value, typing.cast(type, hint), where + ".")
    if origin is Literal:
        if value not in typing.get_args(hint):
            raise nearest(str(value), map(str, typing.get_args(hint)), f"value of {where}")
        return value
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(hint)
        if value is None and type(None) in options:
            return None
        return _value(value, next(o for o in options if o is not type(None)), where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where} is {value!r}: write a list.")
        inner = typing.get_args(hint)
        inner = (inner[0],) * len(value) if inner[-1] is Ellipsis else inner
        if len(inner) != len(value):
            raise ConfigError(f"{where} has {len(value)} values: {len(inner)} are needed.")
        return tuple(_value(v, h, where) for v, h in zip(value, inner, strict=True))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, bool) != (hint is bool) or not isinstance(value, hint):
        raise ConfigError(f"{where} is {value!r}: a value of type {hint.__name__} is needed.")
    return value


def dumps(config: Config) -> str:
    """A configuration as the text of a JSON file."""
    return json.dumps(to_dict(config), indent=2) + "\n"


def differences(one: Config, other: Config) -> list[str]:
    """Names of the fields, with dots, in which two configurations differ."""

    def walk(a: Any, b: Any, prefix: str) -> list[str]:
        if isinstance(a, dict):
            return [n for k in a for n in walk(a[k], b[k], f"{prefix}.{k}" if prefix else k)]
        return [] if a == b else [prefix]

    return walk(to_dict(one), to_dict(other), "")
