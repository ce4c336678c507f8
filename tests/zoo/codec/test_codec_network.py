"""The wavelet, the second network and its weights in the file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.codec import fit, group, network, wavelet
from zoo.codec.network import Planes, Shape


def _planes(seed, n=2, h=48, w=64):
    rng = np.random.default_rng(seed)
    smooth = rng.normal(128, 40, (n, h // 8, w // 8)).repeat(8, 1).repeat(8, 2)
    uv = rng.normal(128, 20, (n, 2, h // 16, w // 16)).repeat(8, 2).repeat(8, 3)
    return Planes(*(jnp.asarray(np.clip(x, 0, 255), jnp.float32) for x in (smooth, uv)))


def test_the_synthesis_undoes_the_analysis():
    planes = _planes(0)
    latents = jax.jit(network.analyse)(planes)
    latents = jax.tree.map(lambda x: x / 3, latents)
    back = jax.jit(network.Synthesis().apply)({}, latents, jnp.float32(3))
    np.testing.assert_allclose(back.y, planes.y, atol=2e-3)
    np.testing.assert_allclose(back.uv, planes.uv, atol=2e-3)


def test_synthesis_filters_have_unit_norm():
    kernel = wavelet.synthesis_kernel()
    np.testing.assert_allclose((kernel**2).sum((0, 2)), 1, rtol=1e-5)


def test_sizes_are_padded_to_what_the_pyramid_needs():
    assert Shape(1, 1).padded == (48, 48)
    assert Shape(241, 416).padded == (256, 416)


@pytest.mark.slow
def test_decoded_pictures_are_the_encoders_with_weights_in_the_file(monkeypatch):
    rng = np.random.default_rng(1)
    weights = network.Weights(
        *(
            jnp.asarray(rng.integers(-3, 4, x.shape) * network.WEIGHT_STEPS[name], jnp.float32)
            for name, x in network.no_weights()._asdict().items()
        )
    )
    monkeypatch.setattr(fit, "fit_weights", lambda *args, **settings: (weights, 1.0))
    frames = _planes(2)
    encoded = group.encode(frames, 80, fit.Effort(1))
    decoded = group.decode(encoded.data, 2, Shape(48, 64))
    np.testing.assert_allclose(decoded.y, encoded.pictures.y, atol=1e-2)
    np.testing.assert_allclose(decoded.uv, encoded.pictures.uv, atol=1e-2)
    without = group.encode(frames, 80, fit.Effort(0))
    assert float(jnp.abs(without.pictures.y - encoded.pictures.y).max()) > 1


@pytest.mark.slow
def test_fitted_weights_correct_what_the_latents_leave():
    target = _planes(3)
    plain = jax.tree.map(lambda x: 0.9 * x + 12.8, target)  # contrast is lost
    zero = network.no_weights()
    step, frames = jnp.float32(4), jnp.ones(2)
    fitted, gain = fit.fit_weights(target, plain, plain, zero, step, frames, steps=60)
    after = network.refined(plain, plain, fitted)
    assert float(gain) > 0
    assert float(fit.distortion(after, target, frames)) < 0.7 * float(
        fit.distortion(plain, target, frames)
    )
