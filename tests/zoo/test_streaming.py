"""Frame by frame against whole clips: the sliding window and the CNN with a causal shift."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo import streaming

SIDES = (26, 24)


def clips(b=2, t=7, seed=0):
    return np.random.default_rng(seed).random((b, t, *SIDES, 3), np.float32)


def cnn(**overrides):
    model = zoo.create_model(
        "cnn_small_shift", num_classes=5, widths=(8, 8), hidden=16, shift=(1, 2, 3), **overrides
    )
    return model, jax.jit(model.init)(jax.random.key(0), clips())


def test_averages_stay_exact_over_days():
    frames = 10**7
    past = jnp.full((1, 1), 0.7)
    means = streaming.running_mean(jnp.full((1, 4, 1), 0.7), past, jnp.array([frames]))
    np.testing.assert_allclose(means, 0.7, rtol=1e-6)
    x = np.random.default_rng(0).random((2, 9, 3), np.float32)
    first = streaming.running_mean(jnp.asarray(x[:, :4]), None, None)
    rest = streaming.running_mean(jnp.asarray(x[:, 4:]), first[:, -1], jnp.array([4, 4]))
    expected = np.cumsum(x, axis=1) / np.arange(1, 10)[:, None]
    np.testing.assert_allclose(np.concatenate([first, rest], axis=1), expected, rtol=1e-5)


@pytest.mark.parametrize("difference", [True, False])
@pytest.mark.parametrize("pieces", [(1, 2, 3, 4, 5, 6), (3, 4)])
def test_a_causal_shift_in_pieces_gives_the_logits_of_the_clip(pieces, difference):
    model, variables = cnn(shift_causal=True, shift_difference=difference)
    x, state, seen = clips(), model.init_state(2, *SIDES), 0
    apply, step = jax.jit(model.apply), jax.jit(model.step)
    for piece in np.split(x, pieces, axis=1):
        logits, state = step(variables, piece, state)
        seen += piece.shape[1]
        if seen in (1, 3, 7):
            np.testing.assert_allclose(logits, apply(variables, x[:, :seen]), atol=1e-5)
    assert (state["seen"] == 7).all()


def test_a_causal_shift_can_tell_the_order_of_the_frames():
    model, variables = cnn(shift_causal=True)
    x = clips(1)
    y = x[:, ::-1]
    apply = jax.jit(model.apply)
    assert np.abs(apply(variables, x) - apply(variables, y)).max() > 1e-4


def test_one_of_the_streams_of_a_causal_shift_can_start_again():
    model, variables = cnn(shift_causal=True)
    x = clips()
    begin = state = model.init_state(2, *SIDES)
    apply, step = jax.jit(model.apply), jax.jit(model.step)
    for t in range(5):
        if t == 2:
            state = jax.tree.map(lambda a, new: jnp.asarray(a).at[1].set(new[1]), state, begin)
        logits, state = step(variables, x[:, t], state)
    np.testing.assert_allclose(logits[0], apply(variables, x[:1, :5])[0], atol=1e-5)
    np.testing.assert_allclose(logits[1], apply(variables, x[1:, 2:5])[0], atol=1e-5)


def test_a_shift_both_ways_does_not_stream_by_itself():
    model, variables = cnn()
    with pytest.raises(ValueError, match=r"shift_causal=True, or .*SlidingWindow"):
        model.init_state(1, *SIDES)
    causal, _ = cnn(shift_causal=True)
    state = causal.init_state(1, *SIDES)
    with pytest.raises(ValueError, match=r"begin with model\.init_state\(2, 26, 24"):
        causal.step(variables, clips(), state)


@pytest.mark.parametrize("stride", [1, 3])
def test_a_window_gives_the_logits_of_the_clip_of_its_last_frames(stride):
    model, variables = cnn()
    window = streaming.SlidingWindow(model, frames=3, stride=stride)
    state, x = window.init_state(2, *SIDES), clips(t=11)
    apply, step = jax.jit(model.apply), jax.jit(window.step)
    for t in range(11):
        logits, state = step(variables, x[:, t], state)
        taken = [max(0, i) for i in range(t - t % stride - 2 * stride, t + 1, stride)]
        assert len(taken) == 3
        np.testing.assert_allclose(logits, apply(variables, x[:, taken]), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "small"),
    [
        ("x3d_xs", {"depths": (1, 1), "widths": (8, 16), "head_width": 24, "size": 32}),
        ("r2plus1d_18", {"depths": (1, 1), "kinds": ("2plus1d",) * 2, "widths": (8, 16)}),
    ],
)
def test_published_networks_stream_through_a_window(name, small, monkeypatch):
    monkeypatch.setenv("ZOO_KERNELS", "xla")
    model = zoo.create_model(name, num_classes=5, frames=4, **small)
    x = np.random.default_rng(0).standard_normal((1, 6, 32, 36, 3), np.float32)
    variables = jax.jit(model.init)(jax.random.key(0, impl="rbg"), x[:, :4])
    window = streaming.SlidingWindow(model, frames=4)
    run = jax.jit(functools.partial(streaming.scan, window))
    logits, _ = run(variables, x, window.init_state(1, 32, 36))
    assert logits.shape == (1, 6, 5)
    apply = jax.jit(model.apply)
    np.testing.assert_allclose(logits[:, 3], apply(variables, x[:, :4]), atol=1e-5)
    np.testing.assert_allclose(logits[:, 5], apply(variables, x[:, 2:]), atol=1e-5)


def test_cameras_run_side_by_side_in_windows():
    model, variables = cnn()
    window = streaming.SlidingWindow(model, frames=2, stride=2)
    x = clips(b=3)
    state = window.init_state(1, *SIDES)
    states = jax.tree.map(lambda a: jnp.stack([a] * 3), state)
    step = jax.jit(jax.vmap(window.step, in_axes=(None, 0, 0)))
    for t in range(5):
        logits, states = step(variables, x[:, None, t], states)
    np.testing.assert_allclose(logits[:, 0], model.apply(variables, x[:, [2, 4]]), atol=1e-5)
    shapes = jax.tree.map(lambda a: (a.shape[1:], a.dtype), states)
    assert shapes == jax.tree.map(lambda a: (a.shape, a.dtype), state)


def test_impossible_windows_and_frames_are_refused():
    model, variables = cnn()
    with pytest.raises(ValueError, match=r"SlidingWindow\.stride is 0"):
        streaming.SlidingWindow(model, frames=2, stride=0)
    window = streaming.SlidingWindow(model, frames=2)
    with pytest.raises(ValueError, match="frames of 5x24 are too small"):
        window.init_state(1, 5, 24)
    state = window.init_state(2, *SIDES)
    with pytest.raises(ValueError, match=r"shape \(2, 26, 20, 3\) and the state is for"):
        window.step(variables, clips()[:, 0, :, 4:], state)
