"""Stream MoViNets frame by frame and in pieces, against calls on whole clips."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo import streaming

SIDES = (48, 40)
SMALL = {
    "stem": 8,
    "widths": (8, 8, 16, 24, 24),
    "blocks": (
        ((16, (1, 5)),),
        ((16, (3, 3)), (24, (3, 3))),
        ((24, (5, 3)),),
        ((24, (1, 3)),),
        ((40, (5, 3)),),
    ),
    "top": 32,
    "hidden": 24,
}


def clips(b=3, t=7, sides=SIDES, seed=0):
    return np.random.default_rng(seed).random((b, t, *sides, 3), np.float32)


@functools.cache
def small(random_variables, **overrides):
    """A small stream network, its compiled apply and step, and variables."""
    model = zoo.create_model("movinet_a0_stream", num_classes=5, **SMALL, **overrides)
    variables = random_variables(model, (2, *SIDES, 3))
    return model, jax.jit(model.apply), jax.jit(model.step), variables


@pytest.fixture(autouse=True)
def quick_to_compile(monkeypatch):
    """The operators' definitions: what is compared here does not depend on how they compute."""
    monkeypatch.setenv("ZOO_KERNELS", "xla")


def test_after_every_frame_a_stream_knows_what_a_call_on_the_clip_so_far_knows(random_variables):
    model, apply, step, variables = small(random_variables)
    x = clips()
    state = model.init_state(3, *SIDES)
    for t in range(1, 8):
        logits, state = step(variables, x[:, t - 1], state)
        if t in (1, 4, 7):
            np.testing.assert_allclose(logits, apply(variables, x[:, :t]), atol=2e-5)


@pytest.mark.parametrize("overrides", [{}, {"same_padding": True}])
def test_a_clip_in_pieces_gives_the_logits_of_the_clip(random_variables, overrides):
    model, apply, step, variables = small(random_variables, **overrides)
    x = clips()
    state = model.init_state(3, *SIDES)
    for piece in np.split(x, (3, 4), axis=1):
        logits, state = step(variables, piece, state)
    np.testing.assert_allclose(logits, apply(variables, x), atol=2e-5)
    np.testing.assert_array_equal(state["seen"], 7)


def test_a_stream_scans_in_the_memory_of_one_state(random_variables):
    model, apply, _, variables = small(random_variables)
    x = clips()
    begin = model.init_state(3, *SIDES)
    logits, state = jax.jit(functools.partial(streaming.scan, model))(variables, x, begin)
    assert logits.shape == (3, 7, 5)
    np.testing.assert_allclose(logits[:, -1], apply(variables, x), atol=2e-5)
    shapes = jax.tree.map(lambda a: (a.shape, a.dtype), (begin, state))
    assert shapes[0] == shapes[1]


def test_cameras_run_side_by_side_and_one_can_start_again(random_variables):
    model, apply, step, variables = small(random_variables)
    x = clips()
    state = model.init_state(1, *SIDES)
    states = jax.tree.map(lambda a: jnp.stack([a] * 3), state)
    apart = jax.jit(jax.vmap(model.step, in_axes=(None, 0, 0)))
    for t in range(4):
        if t == 2:
            states = jax.tree.map(lambda a, new: a.at[1].set(new), states, state)
        logits, states = apart(variables, x[:, None, t], states)
    expected = apply(variables, x[:, :4])
    expected = expected.at[1].set(apply(variables, x[:, 2:4])[1])
    np.testing.assert_allclose(logits[:, 0], expected, atol=2e-5)

    batch = begin = model.init_state(3, *SIDES)
    for t in range(4):
        if t == 2:
            batch = jax.tree.map(lambda a, new: a.at[1].set(new[1]), batch, begin)
        logits, batch = step(variables, x[:, t], batch)
    np.testing.assert_allclose(logits, expected, atol=2e-5)


@pytest.mark.slow
def test_a_stream_in_bfloat16_stays_near_and_keeps_its_types(random_variables):
    _, apply, _, variables = small(random_variables)
    rough, _, step, _ = small(random_variables, dtype="bfloat16")
    state = begin = rough.init_state(3, *SIDES)
    x = clips()
    for piece in (x[:, 0], x[:, 1:]):
        logits, state = step(variables, piece, state)
    expected = apply(variables, x)
    assert logits.dtype == jnp.float32
    assert np.linalg.norm(logits - expected) < 0.05 * np.linalg.norm(expected)
    assert jax.tree.map(lambda a: a.dtype, begin) == jax.tree.map(lambda a: a.dtype, state)


def test_a_state_for_other_frames_or_of_another_model_is_refused(random_variables):
    model, _, _, variables = small(random_variables)
    state = model.init_state(3, *SIDES)
    x = clips()
    for frames in (x[:1, 0], x[:, 0, :, 8:], x[:1]):
        with pytest.raises(ValueError, match=r"begin with model\.init_state\(\d, 48, (40|32)\)"):
            model.step(variables, frames, state)
    with pytest.raises(ValueError, match=r"begin with model\.init_state"):
        model.step(variables, x[:, 0], {"seen": state["seen"]})
    with pytest.raises(ValueError, match="must be normalised floats"):
        model.step(variables, x[:, 0].astype(np.uint8), state)


def test_a_base_network_does_not_stream():
    model = zoo.create_model("movinet_a0_base", num_classes=2, **SMALL)
    with pytest.raises(ValueError, match="SlidingWindow"):
        model.init_state(1, 64, 64)
