"""The names: one explicit table of models, one of weights.

Importing this module loads no jax. A model's family is imported when it is created.
"""

import dataclasses
import difflib
import fnmatch
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from zoo.weights.published import PUBLISHED
from zoo.weights.spec import WeightsSpec

if TYPE_CHECKING:
    import flax.linen as nn

    from zoo.weights.convert import Table


@dataclasses.dataclass(frozen=True)
class Family:
    """The configs of one file of `zoo.models` and the module that they configure.

    table: the names of published weights for a config (`zoo.weights.maps`), where there are any.
    tf_table: those in TensorFlow's checkpoints, where there are any.
    num_classes: of a network whose logits are not classes of the user's.
    """

    presets: Mapping[str, Any]
    module: Callable[..., Any]
    table: Callable[[Any], "Table"] | None = None
    num_classes: int | None = None
    tf_table: Callable[[Any], "Table"] | None = None


def _cnn() -> Family:
    from zoo.models import cnn

    return Family(cnn.PRESETS, cnn.CNN)


def _resnet3d() -> Family:
    from zoo.models import resnet3d
    from zoo.weights.maps.resnet3d import table

    return Family(resnet3d.PRESETS, resnet3d.ResNet3D, table)


def _resnet50() -> Family:
    from zoo.models import resnet50
    from zoo.weights.maps.resnet50 import table

    return Family(resnet50.PRESETS, resnet50.ResNet50, table)


def _slowfast() -> Family:
    from zoo.models import slowfast
    from zoo.weights.maps.slowfast import table

    return Family(slowfast.PRESETS, slowfast.SlowFast, table)


def _x3d() -> Family:
    from zoo.models import x3d
    from zoo.weights.maps.x3d import table

    return Family(x3d.PRESETS, x3d.X3D, table)


def _mvit() -> Family:
    from zoo.models import mvit
    from zoo.weights.maps.mvit import table

    return Family(mvit.PRESETS, mvit.MViT, table)


def _swin3d() -> Family:
    from zoo.models import swin3d
    from zoo.weights.maps.swin3d import table

    return Family(swin3d.PRESETS, swin3d.Swin3D, table)


def _videomae() -> Family:
    from zoo.models import videomae
    from zoo.weights.maps.videomae import table

    return Family(videomae.PRESETS, videomae.VideoMAE, table)


def _vivit() -> Family:
    from zoo.models import vivit
    from zoo.weights.maps.vivit import table

    return Family(vivit.PRESETS, vivit.ViViT, table)


def _timesformer() -> Family:
    from zoo.models import timesformer
    from zoo.weights.maps.timesformer import table

    return Family(timesformer.PRESETS, timesformer.TimeSformer, table)


def _movinet() -> Family:
    from zoo.models import movinet
    from zoo.weights.maps import movinet_tf
    from zoo.weights.maps.movinet import table

    return Family(movinet.PRESETS, movinet.MoViNet, table, tf_table=movinet_tf.table)


def _inception() -> Family:
    from zoo.models import inception
    from zoo.weights.maps import inception_tf
    from zoo.weights.maps.inception import table

    return Family(inception.PRESETS, inception.Inception, table, tf_table=inception_tf.table)


def _transnetv2() -> Family:
    from zoo.models import transnetv2
    from zoo.weights.maps import transnetv2_tf
    from zoo.weights.maps.transnetv2 import table

    return Family(
        transnetv2.PRESETS,
        transnetv2.TransNetV2,
        table,
        num_classes=2,
        tf_table=transnetv2_tf.table,
    )


MODELS: Mapping[str, Callable[[], Family]] = {
    "cnn_base": _cnn,
    "cnn_small": _cnn,
    "cnn_small_shift": _cnn,
    "r3d_18": _resnet3d,
    "mc3_18": _resnet3d,
    "r2plus1d_18": _resnet3d,
    "c2d_r50": _resnet50,
    "i3d_r50": _resnet50,
    "slow_r50": _resnet50,
    "slow_r50_4x16": _resnet50,
    "r2plus1d_r50": _resnet50,
    "csn_r101": _resnet50,
    "slowfast_r50": _slowfast,
    "slowfast_r50_4x16": _slowfast,
    "slowfast_r101": _slowfast,
    "slowfast_16x8_r101_50_50": _slowfast,
    "x3d_xs": _x3d,
    "x3d_s": _x3d,
    "x3d_m": _x3d,
    "x3d_l": _x3d,
    "mvit_v1_b": _mvit,
    "mvit_v2_s": _mvit,
    "swin3d_t": _swin3d,
    "swin3d_s": _swin3d,
    "swin3d_b": _swin3d,
    "videomae_b": _videomae,
    "vivit_b": _vivit,
    "timesformer_b": _timesformer,
    "movinet_a0_base": _movinet,
    "movinet_a1_base": _movinet,
    "movinet_a2_base": _movinet,
    "movinet_a3_base": _movinet,
    "movinet_a4_base": _movinet,
    "movinet_a5_base": _movinet,
    "movinet_a0_stream": _movinet,
    "movinet_a1_stream": _movinet,
    "movinet_a2_stream": _movinet,
    "i3d_inception": _inception,
    "s3d": _inception,
    "transnetv2": _transnetv2,
}


# One for each file in zoo/weights/files; zoo.weights.load.publish writes a file and its record.
WEIGHTS: Mapping[str, WeightsSpec] = {
    "cnn_small.moving_shapes": WeightsSpec(
        model="cnn_small",
        classes=(
            "disc",
            "ring",
            "bar",
            "triangle",
            "star",
            "cross",
            "heart",
            "crescent",
            "arrow",
            "hourglass",
        ),
        frames=2,
        size=64,
        decode_size=72,
        mean=(0.45, 0.45, 0.45),
        std=(0.225, 0.225, 0.225),
        licence="Apache-2.0",
        data="moving_shapes/shapes, seed 0; clips: 2000 train, 200 val, 500 test",
        command="python -m experiments.run --config cnn_small",
        results={
            "test/ece": 0.0336522724444775,
            "test/macro_f1": 0.9819369809730073,
            "test/top1": 0.982,
            "test/top5": 0.998,
            "val/top1": 0.985,
        },
        sha256="1ed310dc101f248560e5eccc6394d8f2fde2c15210d86ca285680ae2ff0a380e",
    ),
    "cnn_small_shift.moving_shapes": WeightsSpec(
        model="cnn_small_shift",
        classes=(
            "right",
            "left",
            "down",
            "up",
            "grow",
            "shrink",
            "spin_clockwise",
            "spin_counterclockwise",
            "orbit_clockwise",
            "orbit_counterclockwise",
        ),
        frames=8,
        size=64,
        decode_size=72,
        mean=(0.45, 0.45, 0.45),
        std=(0.225, 0.225, 0.225),
        licence="Apache-2.0",
        data="moving_shapes/motions, seed 0; clips: 2000 train, 200 val, 500 test",
        command="python -m experiments.run --config cnn_small_shift",
        results={
            "test/ece": 0.02571942314980412,
            "test/macro_f1": 0.9223288996486587,
            "test/top1": 0.922,
            "test/top5": 0.998,
            "val/top1": 0.95,
        },
        sha256="2b509dfc20cee8b3bc87b00e59604c3fe3fc6f5ebca185ef62e189c0baa5ab2b",
    ),
}


def list_models(pattern: str = "*") -> list[str]:
    """The names of the models that match a shell pattern such as "cnn*", sorted."""
    return sorted(fnmatch.filter(MODELS, pattern))


def list_weights(pattern: str = "*") -> list[str]:
    """The names of the trained weights that match a shell pattern such as "cnn*", sorted.

    Those inside the package, and those that others published for models of `list_models`.
    """
    published = (name for name, record in PUBLISHED.items() if record.model in MODELS)
    return sorted(fnmatch.filter((*WEIGHTS, *published), pattern))


def weights_of(model: str) -> list[str]:
    """The names of the trained weights of a model, sorted."""
    return [name for name in list_weights() if weights_model(name) == model]


def weights_model(name: str) -> str:
    """The name of the model that trained weights are of."""
    return (WEIGHTS[name] if name in WEIGHTS else PUBLISHED[name]).model


def weights_spec(name: str) -> WeightsSpec:
    """The record of trained weights, without loading them.

    Raises ValueError for an unknown name (the message names the nearest).
    """
    require_name("weights", name, list_weights())
    return WEIGHTS[name] if name in WEIGHTS else PUBLISHED[name].spec()


def create_model(
    name: str, *, num_classes: int, dtype: str = "float32", **overrides: object
) -> "nn.Module":
    """The Flax module of a model, without parameters.

    Args:
      name: one of `list_models()`.
      num_classes: units of the last layer; 0 leaves it out, and the model returns features.
      dtype: what it computes in, "float32" or "bfloat16". Parameters and logits are float32.
      **overrides: fields of the model's config to change, such as hidden=256.

    Returns:
      A module: `module.init(key, clips)` gives variables, `module.apply(variables, clips)` logits.

    Raises:
      ValueError: an unknown name, field or dtype (the message names the nearest known one).
    """
    require_name("model", name, MODELS)
    require_name("dtype", dtype, ("float32", "bfloat16"))
    if num_classes < 0:
        raise ValueError(f"num_classes is {num_classes}; give 0 for features or at least 1")
    import jax.numpy as jnp

    family = MODELS[name]()
    config = family.presets[name]
    fields = [field.name for field in dataclasses.fields(config)]
    for field in overrides:
        require_name(f"field of {type(config).__name__}", field, fields)
    config = dataclasses.replace(config, **overrides)
    return family.module(config=config, num_classes=num_classes, dtype=jnp.dtype(dtype))


def require_name(kind: str, name: str, known: Iterable[str]) -> None:
    """Raises ValueError, naming the nearest known name, where `name` is not one of them."""
    known = list(known)
    if name in known:
        return
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"there is {', '.join(known) or 'none'}"
    raise ValueError(f"unknown {kind} {name!r}; {hint}")
