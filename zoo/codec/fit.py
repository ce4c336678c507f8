"""What is fitted to a video: its latents, by rate and distortion, and the network's weights.

The latents start as the wavelet coefficients of what the prediction leaves, of which the network of
zeros makes the pictures. The wavelet is nearly orthonormal, so what a change of one coefficient
does to the squared error is known without decoding: each takes the value of least
distortion + price * bits, all at once, with bits that follow from the values around it, a few times
over. The second network is then fitted by gradient descent to what these latents leave wrong.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from zoo.codec import network, rate
from zoo.codec.network import Latents, Planes, Weights

# Chroma's squared errors count this much: with luma in full, near to PSNR 6:1:1.
CHROMA_WEIGHT = 0.7
# What a bit may cost, in squared steps of the quantiser.
PRICE = 0.14
_ROUNDS = 4
_WEIGHT_RATE = 6e-3


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much is done.

    Attributes:
      steps: of gradient descent for each network; 0 leaves it out.
    """

    steps: int = 60


def distortion(pictures: Planes, target: Planes, frames: jax.Array) -> jax.Array:
    """Weighted squared error in levels of 8 bits; frames [n]: how much each counts."""
    y = jnp.sum(jnp.square(pictures.y - target.y), (1, 2))
    uv = jnp.sum(jnp.square(pictures.uv - target.uv), (1, 2, 3))
    return jnp.sum(frames * (y + CHROMA_WEIGHT * uv))


@functools.partial(jax.jit, static_argnames="inter")
def choose(target: Planes, prediction: Planes, step: jax.Array, *, inter: bool) -> Latents:
    """Integer-valued latents of n frames."""
    residual = jax.tree.map(jnp.subtract, target, prediction)
    exact = jax.tree.map(lambda x: x / step, network.analyse(residual))
    chosen = jax.tree.map(lambda x: jnp.sign(x) * jnp.floor(jnp.abs(x) + 0.3), exact)

    exact_line, restore = ravel_pytree(exact)

    def again(_: jax.Array, chosen: Latents) -> Latents:
        scales = rate.scales_of(chosen, inter=inter)
        # As one long vector: the formula is compiled once, not once for each band.
        return restore(_cheapest(exact_line, ravel_pytree(scales)[0]))

    return jax.lax.fori_loop(0, _ROUNDS, again, chosen)


def _cheapest(exact: jax.Array, scale: jax.Array) -> jax.Array:
    size = jnp.abs(exact)
    nearest = jnp.round(size)
    candidates = [nearest, jnp.maximum(nearest - 1, 0), jnp.zeros_like(nearest)]
    costs = [jnp.square(size - c) / PRICE + rate.bits(c, scale) for c in candidates]
    # A sign is a bit, which `rate.bits` has; larger values also make their neighbours dearer.
    costs = [cost + 0.35 * jnp.minimum(c, 2) for cost, c in zip(costs, candidates, strict=True)]
    best = jnp.where(costs[1] < costs[0], candidates[1], candidates[0])
    least = jnp.minimum(costs[0], costs[1])
    return jnp.sign(exact) * jnp.where(costs[2] < least, 0.0, best)


@functools.partial(jax.jit, static_argnames="steps")
def fit_weights(
    target: Planes,
    prediction: Planes,
    plain: Planes,
    weights: Weights,
    step: jax.Array,
    frames: jax.Array,
    *,
    steps: int,
) -> tuple[Weights, jax.Array]:
    """Weights of the second network, rounded, and what they save in bits (below 0: they cost).

    plain: pictures before the second network; weights: where to start; frames [n]: how much each
    counts; steps: of gradient descent.
    """
    price = PRICE * jnp.square(step)

    def loss(free: dict) -> jax.Array:
        pictures = network.refined(plain, prediction, Weights(**free))
        cost = sum(_weight_bits(free[name], network.WEIGHT_STEPS[name]) for name in free)
        return distortion(pictures, target, frames) / price + cost

    free = {"first": weights.first, "last": weights.last}
    optimiser = optax.adam(optax.cosine_decay_schedule(_WEIGHT_RATE, steps, alpha=0.05))

    def advance(state: tuple, _: None) -> tuple:
        free, memory = state
        change, memory = optimiser.update(jax.grad(loss)(free), memory, free)
        return (optax.apply_updates(free, change), memory), None

    (free, _), _ = jax.lax.scan(advance, (free, optimiser.init(free)), None, length=steps)
    free = {
        n: jnp.round(x / network.WEIGHT_STEPS[n]) * network.WEIGHT_STEPS[n] for n, x in free.items()
    }
    zero = jax.tree.map(jnp.zeros_like, free)
    return Weights(**free), loss(zero) - loss(free)


def _weight_bits(offsets: jax.Array, step: float) -> jax.Array:
    """About what quantised weights cost."""
    return jnp.sum(2.0 * jnp.log2(1 + jnp.abs(offsets) / step))
