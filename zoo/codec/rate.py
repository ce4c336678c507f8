"""The bits of a latent, estimated for choosing it; the file's coder is `bands`.

Every coefficient is taken as Laplace distributed around zero. Its scale is a sum of the magnitudes
of its neighbours, of the coarser level and of the bands before. The coder counts what really
happens and does better; what matters here is what a smaller value saves.
"""

import jax
import jax.numpy as jnp

from zoo.codec.network import Latents

_SMALLEST = 0.04
# Weights of: a constant, direct and diagonal neighbours, the coarser level, the bands before.
_DETAILS = (0.03, 0.35, 0.15, 0.2, 0.2)
_LOW = (0.3, 0.5, 0.3)


def _near(sizes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Means of the four direct and of the four diagonal neighbours."""
    edges = [(0, 0)] * (sizes.ndim - 2) + [(1, 1), (1, 1)]
    padded = jnp.pad(sizes, edges)
    up, down = padded[..., :-2, :], padded[..., 2:, :]
    direct = up[..., 1:-1] + down[..., 1:-1] + padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]
    diagonal = up[..., :-2] + up[..., 2:] + down[..., :-2] + down[..., 2:]
    return direct / 4, diagonal / 4


def scales_of(latents: Latents, *, inter: bool) -> Latents:
    """The scale at every coefficient, from the magnitudes around it."""
    found = []
    for low, details in latents:
        near, diagonal = _near(jnp.abs(low))
        low_scale = jnp.full_like(low, 4.0)
        if inter:
            low_scale = _LOW[0] + _LOW[1] * near + _LOW[2] * diagonal
        coarse = jnp.zeros_like(details[0])
        scales = []
        for bands in details:
            sizes = jnp.abs(bands)
            near, diagonal = _near(sizes)
            one, two = sizes[:, :1], sizes[:, 1:2]
            before = jnp.concatenate([jnp.zeros_like(one), one, (one + two) / 2], 1)
            k = _DETAILS
            around = k[1] * near + k[2] * diagonal + k[3] * coarse + k[4] * before
            scales.append(k[0] + around)
            coarse = jnp.repeat(jnp.repeat(sizes, 2, 2), 2, 3)
        found.append((low_scale, tuple(scales)))
    return Latents(*found)


def bits(values: jax.Array, scale: jax.Array) -> jax.Array:
    """-log2 of the mass of a Laplace distribution within half a step of integers `values`."""
    inverse = 1 / (scale + _SMALLEST)
    zero = -jnp.log(-jnp.expm1(-0.5 * inverse))
    other = (jnp.abs(values) - 0.5) * inverse + jnp.log(2.0) - jnp.log(-jnp.expm1(-inverse))
    return jnp.where(values == 0, zero, other) / jnp.log(2.0)
