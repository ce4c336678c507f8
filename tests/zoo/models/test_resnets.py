"""What the residual families promise alike: sizes, clips, training, features, precision, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo import cost, registry

# Counted from the published state dicts; the 4x16 and 101 SlowFasts as their model cards say,
# 34.48, 62.83 and 53.77 million.
PARAMETERS = {
    "r3d_18": 33371472,
    "mc3_18": 11695440,
    "r2plus1d_18": 31505325,
    "c2d_r50": 24327632,
    "i3d_r50": 28043472,
    "slow_r50": 32454096,
    "slow_r50_4x16": 32454096,
    "r2plus1d_r50": 28107600,
    "csn_r101": 22213776,
    "slowfast_r50": 34566488,
    "slowfast_r50_4x16": 34480216,
    "slowfast_r101": 62826968,
    "slowfast_16x8_r101_50_50": 53774808,
    "x3d_xs": 3794274,
    "x3d_s": 3794274,
    "x3d_m": 3794274,
    "x3d_l": 6153384,
}
# The same networks with few blocks and channels, for clips of 32x32.
SMALL = {
    "r2plus1d_18": {"depths": (1, 1), "kinds": ("2plus1d",) * 2, "widths": (8, 16), "frames": 4},
    "i3d_r50": {"depths": (1,) * 4, "width": 8, "frames": 4},
    "slowfast_r50": {"depths": (1,) * 4, "width": 16, "frames": 8},
    "x3d_xs": {"depths": (1, 1), "widths": (8, 16), "head_width": 24, "frames": 4},
}
WIDTHS = {"r2plus1d_18": 16, "i3d_r50": 256, "slowfast_r50": 512 + 64, "x3d_xs": 24}

QUICK = ("r2plus1d_18", "x3d_xs")
# All four, of which the others take long to compile.
SMALL_NAMES = [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in SMALL]


def clips(b=2, t=8, h=32, w=32, seed=0):
    return np.random.default_rng(seed).standard_normal((b, t, h, w, 3), np.float32)


@functools.cache
def make(name, num_classes=5, **overrides):
    """A small network and variables that numpy draws without compiling anything."""
    model = zoo.create_model(name, num_classes=num_classes, **SMALL[name], size=32, **overrides)
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        if leaf.ndim > 1:
            return rng.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape).astype(leaf.dtype)
        offset = path[-1].key in ("scale", "var")
        return (offset + 0.1 * rng.standard_normal(leaf.shape)).astype(leaf.dtype)

    shapes = cost.variable_shapes(model, (8, 32, 32, 3))
    return model, jax.tree_util.tree_map_with_path(draw, shapes)


DEEP = ("csn_r101", "slowfast_r101", "slowfast_16x8_r101_50_50", "x3d_l")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in DEEP else ()) for n in PARAMETERS]
)
def test_every_preset_is_as_large_as_the_original(name):
    config = registry.MODELS[name]().presets[name]
    model = zoo.create_model(name, num_classes=400)
    assert cost.parameters(model, (config.frames, config.size, config.size, 3)) == PARAMETERS[name]


@pytest.mark.parametrize("name", SMALL_NAMES)
def test_features_feed_the_head(name):
    model, variables = make(name)
    x = clips(1)
    params = dict(variables["params"])
    head = params.pop("head")
    features_of = make(name, num_classes=0)[0]
    features = jax.jit(features_of.apply)({**variables, "params": params}, x)
    assert features.shape == (1, WIDTHS[name]) and features.dtype == jnp.float32
    logits = jax.jit(model.apply)(variables, x)
    np.testing.assert_allclose(features @ head["kernel"] + head["bias"], logits, atol=1e-5)


@pytest.mark.parametrize("name", SMALL_NAMES)
def test_other_clips_in_half_precision(name):
    model, variables = make(name, dtype="bfloat16")
    t = 8 if name == "slowfast_r50" else 7  # its two heads fit one number of frames alone
    x = clips(1, t, 40, 70)
    logits = jax.jit(model.apply)(variables, x)
    assert logits.shape == (1, 5) and logits.dtype == jnp.float32
    exact = jax.jit(make(name)[0].apply)(variables, x)
    error = np.linalg.norm(logits - exact) / np.linalg.norm(exact)
    assert 0 < error < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_training_recomputed_and_not(name):
    x, dropped = clips(), {"dropout": jax.random.key(3)}
    results = []
    for remat in (False, True):
        model, variables = make(name, remat=remat, dropout=0.5, drop_path=0.3)

        def loss(params, rngs, model=model, variables=variables):
            logits, updates = model.apply(
                {**variables, "params": params}, x, True, rngs=rngs, mutable=["batch_stats"]
            )
            return (logits**2).mean(), updates["batch_stats"]

        step = jax.jit(jax.value_and_grad(loss, has_aux=True))
        (value, stats), grads = step(variables["params"], dropped)
        moved = jax.tree.map(lambda a, b: bool((a != b).any()), stats, variables["batch_stats"])
        assert all(jax.tree.leaves(moved))
        assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(grads))
        (other, _), _ = step(variables["params"], {"dropout": jax.random.key(4)})
        assert value != other
        results.append((value, grads))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-3, 1e-4), *results)


@pytest.mark.parametrize("name", SMALL_NAMES)
def test_initial_scales_and_kernels(name):
    model = zoo.create_model(name, num_classes=5, **SMALL[name], size=32)
    # This generator compiles in half the time that the default one takes.
    variables = jax.jit(model.init)(jax.random.key(0, impl="rbg"), clips(1))
    params = jax.tree_util.tree_leaves_with_path(variables["params"])
    for path, leaf in params:
        keys = [key.key for key in path]
        if keys[-1] == "scale":
            last = name != "r2plus1d_18" and keys[-3] == "c"  # the last of a bottleneck
            assert (np.asarray(leaf) == (0 if last else 1)).all(), keys
        elif leaf.size > 2000 and keys[-2] == "conv":
            fan_out = leaf.size / leaf.shape[-2]
            assert np.std(leaf) == pytest.approx((2 / fan_out) ** 0.5, rel=0.1), keys
    assert np.std(variables["params"]["head"]["kernel"]) == pytest.approx(0.01, rel=0.4)


# frames and size of the smallest clip: what leaves as many positions as the window of the head.
@pytest.mark.parametrize(
    ("name", "frames", "size"),
    [
        ("r3d_18", 1, 1),
        ("c2d_r50", 8, 193),
        ("slow_r50", 8, 193),
        ("slow_r50_4x16", 4, 193),
        ("r2plus1d_r50", 13, 193),
        pytest.param("csn_r101", 25, 193, marks=pytest.mark.slow),
        ("slowfast_r50", 32, 193),
        ("x3d_xs", 4, 129),
        pytest.param("x3d_l", 16, 289, marks=pytest.mark.slow),
    ],
)
def test_smallest_clip(name, frames, size):
    model = zoo.create_model(name, num_classes=5)

    def shape(t, side, dtype=jnp.float32):
        x = jax.ShapeDtypeStruct((1, t, side, side + 3, 3), dtype)
        return jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], x).shape

    assert shape(frames, size) == (1, 5)
    with pytest.raises(ValueError, match="normalised floats"):
        shape(frames, size, jnp.uint8)
    if size == 1:
        return
    for t, side in ((frames - 1, size), (frames, size - 1)):
        with pytest.raises(ValueError, match=f"give at least {frames} of {size}x{size}"):
            shape(t, side)


def test_frames_that_fit_one_head_of_slowfast_alone():
    model = zoo.create_model("slowfast_r50", num_classes=5)
    x = jax.ShapeDtypeStruct((1, 40, 224, 224, 3), jnp.float32)
    with pytest.raises(ValueError, match="clips of 40 frames do not fit both heads"):
        jax.eval_shape(model.init, jax.random.key(0), x)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("x3d_m", "dropout", 1.0),
        ("slow_r50", "drop_path", -0.1),
        ("i3d_r50", "frames", 1),
        ("slowfast_r50", "width", 12),
        ("r3d_18", "depths", (2, 2)),
    ],
)
def test_impossible_configs(name, field, value):
    with pytest.raises(ValueError, match=rf"Config.* is |Config has .*{field}"):
        zoo.create_model(name, num_classes=5, **{field: value})
