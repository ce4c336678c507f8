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
}
_PLAIN = {"width": 32, "depth": 2, "heads": 2, "hidden": 64}
# The same networks with few blocks and channels, for clips of 4 frames of 32x32.
SMALL = {
    "videomae_b": _PLAIN,
}
WIDTHS = {"videomae_b": 32}

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
]


# Those whose training is compiled in the default tests.
QUICK = ("videomae_b",)
SMALL_NAMES = [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in SMALL]


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
    KNOWN,
    ids=lambda value: "x".join(map(str, value[1:4])) if isinstance(value, tuple) else None,
)
def test_small_networks_give_the_originals_logits(name, seed, shape, made_for, logits, rebuilt):
    model = create(name)
    variables, clips = rebuilt(model, name, shape, seed, made_for)
    np.testing.assert_allclose(run(model)(variables, clips), logits, rtol=0, atol=3e-5)


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_preset_is_as_large_as_the_original(name):
    config = registry.MODELS[name]().presets[name]
    model = zoo.create_model(name, num_classes=400)
    assert cost.parameters(model, (config.frames, config.size, config.size, 3)) == PARAMETERS[name]


@pytest.mark.parametrize("name", SMALL)
def test_features_feed_the_head(name, rebuilt):
    variables, x = rebuilt(create(name), name, (2, 4, 32, 32, 3), 3)
    params = dict(variables["params"])
    head = params.pop("head")
    features = run(create(name, num_classes=0))({"params": params}, x)
    assert features.shape == (2, WIDTHS[name]) and features.dtype == jnp.float32
    logits = run(create(name))(variables, x)
    np.testing.assert_allclose(features @ head["kernel"] + head["bias"], logits, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_half_precision(name, rebuilt):
    variables, x = rebuilt(create(name), name, (2, 4, 32, 32, 3), 3)
    logits = run(create(name, dtype="bfloat16"))(variables, x)
    assert logits.dtype == jnp.float32
    exact = run(create(name))(variables, x)
    assert 0 < np.linalg.norm(logits - exact) / np.linalg.norm(exact) < 0.05


@pytest.mark.parametrize("name", SMALL_NAMES)
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
@pytest.mark.parametrize("name", SMALL_NAMES)
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
@pytest.mark.parametrize(("name", "frames", "side"), [("videomae_b", 2, 16)])
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
    [("videomae_b", "dropout", 1.0), ("videomae_b", "drop_path", -0.1), ("videomae_b", "heads", 5)],
)
def test_impossible_configs(name, field, value):
    with pytest.raises(ValueError, match=rf"Config.* is {value}|Config has {value} {field}"):
        zoo.create_model(name, num_classes=5, **{field: value})
