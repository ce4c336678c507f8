"""What is fitted to a video: its latents, by rate and distortion, and the network's weights.

The latents start as the wavelet coefficients of what the prediction leaves, of which the network of
zeros makes the pictures. The wavelet is nearly orthonormal, so what a change of one coefficient
does to the squared error is known without decoding: each takes the value of least
distortion + price * bits, all at once, with bits that follow from the values around it, a few times
over. The second network is then fitted by gradient descent to what these latents leave wrong.
"""

import dataclasses
import functools
import math
import time

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
_STEPS_AT_ONCE = 4  # Between looks at the clock.


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


def fit_weights(
    target: Planes,
    prediction: Planes,
    plain: Planes,
    weights: Weights,
    step: jax.Array,
    frames: jax.Array,
    *,
    steps: int,
    seconds: float = math.inf,
) -> tuple[Weights, jax.Array]:
    """Weights of the second network, rounded, and what they save in bits (below 0: they cost).

    plain: pictures before the second network; weights: where to start; frames [n]: how much each
    counts; steps: of gradient descent, fewer where they would take more than `seconds`.
    """
    pictures = plain, prediction, target, frames, PRICE * jnp.square(step)
    free = {"first": weights.first, "last": weights.last}
    state = free, _ADAM.init(free)
    begin, done = time.monotonic(), 0
    while done < steps:
        count = min(_STEPS_AT_ONCE if done else 1, steps - done)  # The first also compiles.
        before = time.monotonic()
        state = jax.block_until_ready(_descended(*pictures, state, done, count, steps))
        now = time.monotonic()
        done += count
        if math.isfinite(seconds) and (done > 1 or now - begin >= seconds):
            left = seconds - (now - begin)
            steps = min(steps, done + max(int(left * count / (now - before)), 0))
    return _rounded(*pictures, state[0])


_ADAM = optax.scale_by_adam()


@jax.jit
def _descended(
    plain: Planes,
    prediction: Planes,
    target: Planes,
    frames: jax.Array,
    price: jax.Array,
    state: tuple,
    done: jax.Array,
    count: jax.Array,
    steps: jax.Array,
) -> tuple:
    """The weights and Adam's memory after `count` more steps, of which `done` of `steps` are."""

    def advance(k: jax.Array, state: tuple) -> tuple:
        free, memory = state
        slope = jax.grad(_loss)(free, plain, prediction, target, frames, price)
        change, memory = _ADAM.update(slope, memory)
        cosine = 0.5 * (1 + jnp.cos(jnp.pi * (done + k) / steps))
        rate = _WEIGHT_RATE * (0.05 + 0.95 * cosine)
        return jax.tree.map(lambda x, c: x - rate * c, free, change), memory

    return jax.lax.fori_loop(0, count, advance, state)


def _loss(
    free: dict,
    plain: Planes,
    prediction: Planes,
    target: Planes,
    frames: jax.Array,
    price: jax.Array,
) -> jax.Array:
    """In bits."""
    pictures = network.refined(plain, prediction, Weights(**free))
    cost = sum(_weight_bits(free[name], network.WEIGHT_STEPS[name]) for name in free)
    return distortion(pictures, target, frames) / price + cost


@jax.jit
def _rounded(
    plain: Planes,
    prediction: Planes,
    target: Planes,
    frames: jax.Array,
    price: jax.Array,
    free: dict,
) -> tuple[Weights, jax.Array]:
    """Weights as the file has them, and what they save."""
    free = {
        n: jnp.round(x / network.WEIGHT_STEPS[n]) * network.WEIGHT_STEPS[n] for n, x in free.items()
    }
    pictures = plain, prediction, target, frames, price
    zero = jax.tree.map(jnp.zeros_like, free)
    return Weights(**free), _loss(zero, *pictures) - _loss(free, *pictures)


def _weight_bits(offsets: jax.Array, step: float) -> jax.Array:
    """About what quantised weights cost."""
    return jnp.sum(2.0 * jnp.log2(1 + jnp.abs(offsets) / step))
