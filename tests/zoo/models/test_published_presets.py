"""Every preset of the published networks: constructed, counted, and its features."""

import jax
import jax.numpy as jnp
import pytest

from zoo import cost, registry

# Parameters with 400 classes, as the original implementations have them.
PARAMETERS = {
    "r3d_18": 33_371_472,
    "mc3_18": 11_695_440,
    "r2plus1d_18": 31_505_325,
}
FAMILIES = {name: family() for name, family in registry.MODELS.items()}
PUBLISHED = [name for name, f in FAMILIES.items() if f.table and f.num_classes is None]


def shape_of(name: str, num_classes: int, dtype: str = "float32"):
    config = registry.MODELS[name]().presets[name]
    model = registry.create_model(name, num_classes=num_classes, dtype=dtype)
    clips = jax.ShapeDtypeStruct((2, config.frames, config.size, config.size, 3), jnp.float32)

    def run(clips):
        return model.init_with_output(jax.random.key(0), clips)

    return jax.eval_shape(run, clips)


# One of each kind of network by default: tracing the deep ones takes long and adds little.
QUICK = (
    *("r3d_18", "r2plus1d_18", "c2d_r50", "slowfast_r50", "x3d_xs", "s3d", "i3d_inception"),
    *("movinet_a0_base", "movinet_a0_stream", "mvit_v1_b", "swin3d_t"),
    *("videomae_b", "vivit_b", "timesformer_b"),
)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in PUBLISHED]
)
def test_a_preset_gives_logits_and_features(name):
    logits, variables = shape_of(name, 7, "bfloat16")
    assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    features, without = shape_of(name, 0)
    assert features.ndim == 2
    head = variables["params"]["head"]
    assert head["kernel"].shape == (features.shape[1], 7)
    assert set(variables["params"]) - set(without["params"]) == {"head"}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_the_originals(name):
    config = registry.MODELS[name]().presets[name]
    model = registry.create_model(name, num_classes=400)
    clip = (config.frames, config.size, config.size, 3)
    assert cost.parameters(model, clip) == PARAMETERS[name]


@pytest.mark.parametrize("shape", [(2, 8, 64, 64), (1, 8, 64, 64, 3)])
def test_clips_that_are_none_are_refused(shape):
    model = registry.create_model("r3d_18", num_classes=4)
    clips = jnp.zeros(shape, jnp.uint8 if len(shape) == 5 else jnp.float32)
    with pytest.raises(ValueError, match="clips"):
        jax.eval_shape(model.init, jax.random.key(0), clips)
