"""What the video transformers promise alike: the originals' logits at several sizes, training,
features, precision, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo import cost, registry

# With 400 classes, counted from the published state dicts, or as torchvision states them.
PARAMETERS = {
    "videomae_b": 86534800,
    "vivit_b": 88954000,
    "timesformer_b": 121566352,
    "swin3d_t": 28158070,
    "swin3d_s": 49816678,
    "swin3d_b": 88048984,
    "mvit_v1_b": 36610672,
    "mvit_v2_s": 34537744,
}
_PLAIN = {"width": 32, "depth": 2, "heads": 2, "hidden": 64}
# The same networks with few blocks and channels, for clips of 4 frames of 32x32.
SMALL = {
    "videomae_b": _PLAIN,
    "vivit_b": _PLAIN,
    "timesformer_b": _PLAIN,
    "swin3d_t": {"width": 16, "depths": (2, 2), "heads": 2, "window": (2, 3, 3)},
    "mvit_v1_b": {"width": 16, "depths": (1, 2, 1)},
    "mvit_v2_s": {"width": 16, "depths": (1, 2, 1)},
}
WIDTHS = {"swin3d_t": 32, "mvit_v1_b": 64, "mvit_v2_s": 64}

# Logits of two clips from those small networks, built with the originals' code (transformers
# 5.23.0, torchvision 0.28.0, torch 2.13.0) on rebuildable weights: name, seed, shape of the clips,
# shape of the clip that the weights are for where it is another, logits.
KNOWN = [
    (
        "videomae_b",
        0,
        (2, 4, 32, 32, 3),
        None,
        [
            [0.33456, -0.09176, -0.806, 0.31695, -0.11635],
            [-0.03535, 0.94411, 0.44738, 0.38218, 0.83321],
        ],
    ),
    (
        "videomae_b",
        1,
        (2, 5, 32, 48, 3),
        None,
        [
            [0.08749, 0.10246, 0.04299, -0.11652, 0.19849],
            [-0.01273, -0.36283, 0.87543, 0.26375, -0.1019],
        ],
    ),
    (
        "vivit_b",
        0,
        (2, 4, 32, 32, 3),
        None,
        [
            [1.88597, 0.00801, -0.49601, 0.62096, 0.76778],
            [2.21574, -0.33657, -0.48909, 1.48928, -0.44511],
        ],
    ),
    (
        "vivit_b",
        1,
        (2, 6, 32, 48, 3),
        None,
        [
            [-0.60124, 0.28991, -0.1979, 0.93821, 0.23009],
            [-0.61334, 0.6462, -1.51361, -0.22148, -0.75234],
        ],
    ),
    (
        "timesformer_b",
        0,
        (2, 4, 32, 32, 3),
        None,
        [
            [0.13098, -0.4161, -1.16531, -2.46268, -2.36334],
            [0.32781, -0.70695, -1.03869, -2.046, -2.20686],
        ],
    ),
    (
        "timesformer_b",
        1,
        (2, 5, 48, 48, 3),
        (1, 3, 32, 32, 3),
        [
            [-0.05588, -0.86519, 0.86274, -0.11121, -1.12069],
            [0.41539, -0.95798, 1.31532, -0.69963, -0.56531],
        ],
    ),
    (
        "swin3d_t",
        0,
        (2, 4, 32, 32, 3),
        None,
        [
            [0.4401, -1.30386, -0.30035, -0.68635, -0.87131],
            [0.32262, -1.16904, -0.13474, -0.32672, -1.11872],
        ],
    ),
    (
        "swin3d_t",
        1,
        (2, 7, 37, 50, 3),
        None,
        [
            [-0.39046, 0.73781, -0.41208, 0.31702, -0.28689],
            [-0.31448, 0.77111, -0.33178, 0.14316, -0.49967],
        ],
    ),
    (
        "swin3d_t",
        2,
        (2, 2, 20, 9, 3),
        None,
        [
            [1.13999, -0.01106, -0.36914, -0.56071, 0.23049],
            [-0.13467, -0.33223, -1.43821, -0.00058, -0.39935],
        ],
    ),
    (
        "mvit_v1_b",
        0,
        (2, 4, 32, 32, 3),
        None,
        [
            [0.86244, 0.40176, 0.34331, 0.62007, 1.94192],
            [-0.56774, 1.24816, 0.65976, 0.4566, 0.87134],
        ],
    ),
    (
        "mvit_v1_b",
        1,
        (2, 6, 32, 64, 3),
        None,
        [
            [-0.78271, 0.25497, 0.84165, 0.35895, 0.84189],
            [0.06324, -0.62305, 1.09877, -0.63239, -0.23864],
        ],
    ),
    (
        "mvit_v2_s",
        0,
        (2, 4, 32, 32, 3),
        None,
        [
            [-0.7599, -0.53743, 0.18618, -0.43321, 1.21467],
            [0.19887, 0.29166, 1.24361, -0.17791, 0.77293],
        ],
    ),
    (
        "mvit_v2_s",
        1,
        (2, 6, 36, 64, 3),
        None,
        [
            [0.28955, -2.05047, 0.53748, 0.74574, 0.05728],
            [0.4744, -1.64766, 1.36058, 0.75157, 0.93599],
        ],
    ),
    (
        "mvit_v2_s",
        2,
        (2, 8, 48, 32, 3),
        (1, 4, 32, 32, 3),
        [
            [-0.12338, -0.76008, 1.07757, -0.70491, -1.21851],
            [0.36228, 0.30251, 0.61763, -0.38666, -0.52636],
        ],
    ),
]


# Those of them that take long to compile and add least.
SLOW = [("swin3d_t", 0), ("swin3d_t", 2), ("mvit_v1_b", 0), ("mvit_v2_s", 0), ("mvit_v2_s", 1)]


def names(*quick, by_hand=()):
    """The small networks, of which all but those named are left to the slow tests."""
    marks = dict.fromkeys(SMALL, pytest.mark.slow)
    marks |= dict.fromkeys(quick, ()) | dict.fromkeys(by_hand, pytest.mark.by_hand)
    return [pytest.param(name, marks=marks[name]) for name in SMALL]


def key(seed):
    """A key of the generator that compiles in half the time that the default one takes."""
    return jax.random.key(seed, impl="rbg")


def create(name, num_classes=5, **overrides):
    settings = {"frames": 4, "size": 32, **SMALL[name], **overrides}
    return zoo.create_model(name, num_classes=num_classes, **settings)


@functools.cache
def run(model):
    return jax.jit(model.apply)


@pytest.mark.parametrize(
    ("name", "seed", "shape", "made_for", "logits"),
    [
        pytest.param(
            *known,
            id=f"{known[0]}-{known[1]}",
            marks=pytest.mark.slow if known[:2] in SLOW else (),
        )
        for known in KNOWN
    ],
)
def test_small_networks_give_the_originals_logits(name, seed, shape, made_for, logits, rebuilt):
    model = create(name)
    variables, clips = rebuilt(model, name, shape, seed, made_for)
    np.testing.assert_allclose(run(model)(variables, clips), logits, rtol=0, atol=3e-5)


DEEP = ("swin3d_s", "swin3d_b", "mvit_v1_b", "mvit_v2_s")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in DEEP else ()) for n in PARAMETERS]
)
def test_every_preset_is_as_large_as_the_original(name):
    config = registry.MODELS[name]().presets[name]
    model = zoo.create_model(name, num_classes=400)
    assert cost.parameters(model, (config.frames, config.size, config.size, 3)) == PARAMETERS[name]


@pytest.mark.parametrize("name", names("timesformer_b"))
def test_features_feed_the_head(name, rebuilt):
    variables, x = rebuilt(create(name), name, (2, 4, 32, 32, 3), 3)
    params = dict(variables["params"])
    head = params.pop("head")
    features = run(create(name, num_classes=0))({"params": params}, x)
    assert features.shape == (2, WIDTHS.get(name, 32)) and features.dtype == jnp.float32
    logits = run(create(name))(variables, x)
    np.testing.assert_allclose(features @ head["kernel"] + head["bias"], logits, atol=1e-5)


@pytest.mark.parametrize("name", names("vivit_b", "swin3d_t"))
def test_half_precision(name, rebuilt):
    variables, x = rebuilt(create(name), name, (2, 4, 32, 32, 3), 3)
    logits = run(create(name, dtype="bfloat16"))(variables, x)
    assert logits.dtype == jnp.float32
    exact = run(create(name))(variables, x)
    assert 0 < np.linalg.norm(logits - exact) / np.linalg.norm(exact) < 0.05


@pytest.mark.parametrize("name", names("videomae_b", by_hand=("mvit_v1_b", "mvit_v2_s")))
def test_training_recomputed_and_not(name, rebuilt):
    variables, x = rebuilt(create(name), name, (2, 4, 32, 32, 3), 3)
    results = []
    for remat in (False, True):
        model = create(name, remat=remat, dropout=0.3, drop_path=0.3)

        def loss(params, seed, model=model):
            logits = model.apply({"params": params}, x, True, rngs={"dropout": seed})
            return (logits**2).mean()

        step = jax.jit(jax.value_and_grad(loss))
        value, grads = step(variables["params"], key(3))
        assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(grads))
        assert value != step(variables["params"], key(4))[0]
        results.append((value, grads))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-3, 1e-4), *results)


@pytest.mark.parametrize("rate", ["dropout", "drop_path"])
@pytest.mark.parametrize("name", names("timesformer_b"))
def test_each_rate_alone_changes_training(name, rate, rebuilt):
    model = create(name, **{"dropout": 0.0, "drop_path": 0.0, rate: 0.5})
    variables, x = rebuilt(model, name, (2, 4, 32, 32, 3), 3)

    @jax.jit
    def train(seed):
        return model.apply(variables, x, True, rngs={"dropout": seed})

    assert (train(key(0)) != train(key(1))).any()


def shape_of(model, *shape, dtype=jnp.float32):
    x = jax.ShapeDtypeStruct(shape, dtype)
    return jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], x).shape


# frames and side of the smallest clip
@pytest.mark.parametrize(
    ("name", "frames", "side"),
    [
        ("videomae_b", 2, 16),
        ("vivit_b", 2, 16),
        ("timesformer_b", 1, 16),
        ("swin3d_t", 1, 1),
        ("mvit_v1_b", 2, 4),
        ("mvit_v2_s", 2, 4),
    ],
)
def test_smallest_clip(name, frames, side):
    model = create(name)
    assert shape_of(model, 1, frames, side, side + 4, 3) == (1, 5)
    with pytest.raises(ValueError, match="normalised floats"):
        shape_of(model, 1, frames, side, side, 3, dtype=jnp.uint8)
    with pytest.raises(ValueError, match="normalised floats"):
        shape_of(model, frames, side, side, 3)
    for t, edge in ((frames - 1, side), (frames, side - 1)):
        if t and edge:
            with pytest.raises(ValueError, match=f"give at least {frames} of {side}x{side}"):
                shape_of(model, 1, t, edge, edge, 3)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("videomae_b", "dropout", 1.0),
        ("timesformer_b", "drop_path", -0.1),
        ("vivit_b", "heads", 5),
        ("swin3d_b", "heads", 3),
        ("mvit_v2_s", "heads", 0),
    ],
)
def test_impossible_configs(name, field, value):
    with pytest.raises(ValueError, match=rf"Config.* is {value}|Config has {value} {field}"):
        zoo.create_model(name, num_classes=5, **{field: value})
