"""How the camera and the picture move, from the differences of shifted blocks."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float, UInt8

from zoo.tasks.shots.signals import COLUMNS, FINE, HEIGHT, LUMA, ROWS, SHIFTS, WIDTH

# A shift has to be better than none by this much, in brightness, to be believed.
_GAIN = 0.002
# Pixels by which a block may miss the camera's motion and still be part of the background, and
# brightness by which a pixel may.
_NEAR, _LIKE = 0.5, 0.05
_ROUNDS = 4
# Growth is counted in pixels at this distance from the middle.
_REACH = WIDTH / 4


def motion(
    frames: UInt8[Array, "t 27 48 3"], differences: Float[Array, "k t 12"]
) -> tuple[Float[Array, "t 3"], Float[Array, "t 12 2"]]:
    """The camera's motion and each block's, from one frame to the next.

    The camera's is what most of the picture with detail does: a shift and a growth of the whole,
    first from the blocks, then from the pixels (Lucas and Kanade 1981), by weighted least squares
    again and again, where what misses it counts less.

    Args:
      frames: of which the camera's motion is wanted.
      differences: of their blocks after each of SHIFTS, as `signals.with_shifts` gives them.

    Returns:
      Of the camera: to the right in widths of the picture, down in heights, and how much it zooms
      in (0.01: things get one per cent larger).
      Of each block: where what it shows has come from, to the right in widths and down in heights.
    """
    t = differences.shape[1]
    shifts = jnp.array(SHIFTS, jnp.float32)
    best = differences.at[SHIFTS.index((0, 0))].add(-_GAIN).argmin(0)
    vectors = shifts[best]
    fine = differences[jnp.array([SHIFTS.index(shift) for shift in FINE])].reshape(5, 7, t, -1)
    vectors = vectors + _between_pixels(fine, differences.min(0), vectors)
    detail = differences.mean(0) - differences.min(0)
    rows = (jnp.arange(ROWS) + 0.5) * HEIGHT / ROWS - HEIGHT / 2
    columns = (jnp.arange(COLUMNS) + 0.5) * WIDTH / COLUMNS - WIDTH / 2
    found = _of_blocks(vectors, detail, rows, columns)
    luma = frames.astype(jnp.float32) @ jnp.array(LUMA) / 255
    found = _of_pixels(luma, jnp.concatenate([luma[:1], luma[:-1]]), found)
    camera = found * jnp.array([1 / WIDTH, 1 / HEIGHT, -1 / _REACH])
    return camera, jnp.stack([vectors[..., 1] / WIDTH, vectors[..., 0] / HEIGHT], axis=-1)


def _of_blocks(
    vectors: Float[Array, "t 12 2"],
    detail: Float[Array, "t 12"],
    rows: Float[Array, "3"],
    columns: Float[Array, "4"],
) -> Float[Array, "t 3"]:
    """Right, down and growth, in pixels."""
    y, x = (part.reshape(-1) for part in jnp.meshgrid(rows, columns, indexing="ij"))
    one, none = jnp.ones_like(x), jnp.zeros_like(x)
    across = jnp.stack([one, none, x / _REACH], -1)
    down = jnp.stack([none, one, y / _REACH], -1)
    design = jnp.concatenate([across, down])
    wanted = jnp.concatenate([vectors[..., 1], vectors[..., 0]], axis=1)

    def again(_: int, found: Array) -> Array:
        missed = (wanted - found @ design.T).reshape(len(wanted), 2, -1)
        near = detail / (1 + (missed**2).sum(1) / _NEAR**2)
        weight = jnp.tile(near, (1, 2))
        normal = jnp.einsum("tn,ni,nj->tij", weight, design, design)
        return _solve(normal, jnp.einsum("tn,ni,tn->ti", weight, design, wanted))

    return lax.fori_loop(0, _ROUNDS, again, jnp.zeros((len(wanted), 3)))


def _of_pixels(
    now: Float[Array, "t 27 48"], then: Float[Array, "t 27 48"], start: Float[Array, "t 3"]
) -> Float[Array, "t 3"]:
    """As `_of_blocks`, nearer, from a start that misses by a pixel or so."""
    rows = jnp.arange(HEIGHT) - (HEIGHT - 1) / 2
    columns = jnp.arange(WIDTH) - (WIDTH - 1) / 2
    y, x = jnp.meshgrid(rows, columns, indexing="ij")

    def again(_: int, found: Array) -> Array:
        right, down, growth = (found[:, k, None, None] for k in range(3))
        places = (
            y + down + growth * y / _REACH + (HEIGHT - 1) / 2,
            x + right + growth * x / _REACH + (WIDTH - 1) / 2,
        )
        moved = jax.vmap(lambda image, *at: map_coordinates(image, at, 1, mode="nearest"))(
            then, *places
        )
        steep = jnp.gradient(moved, axis=(1, 2))
        slopes = jnp.stack([steep[1], steep[0], (steep[1] * x + steep[0] * y) / _REACH], -1)
        missed = now - moved
        seen = (places[0] >= 0) & (places[0] <= HEIGHT - 1)
        seen &= (places[1] >= 0) & (places[1] <= WIDTH - 1)
        weight = seen / (1 + (missed / _LIKE) ** 2)
        normal = jnp.einsum("tyx,tyxi,tyxj->tij", weight, slopes, slopes)
        step = _solve(normal, jnp.einsum("tyx,tyxi,tyx->ti", weight, slopes, missed))
        return found + jnp.clip(step, -1, 1)

    return lax.fori_loop(0, _ROUNDS, again, start)


def _solve(normal: Float[Array, "t 3 3"], wanted: Float[Array, "t 3"]) -> Float[Array, "t 3"]:
    """Solutions; 0 along what is not determined, in a picture without detail."""
    return jnp.linalg.solve(normal + 1e-3 * jnp.eye(3), wanted[..., None])[..., 0]


def _between_pixels(
    fine: Float[Array, "5 7 t 12"], best: Float[Array, "t 12"], vectors: Float[Array, "t 12 2"]
) -> Float[Array, "t 12 2"]:
    """What to add to a shift, from a parabola through it and its neighbours; 0 at the edges."""
    row, column = (vectors[..., axis].astype(jnp.int32) + 2 + axis for axis in (0, 1))
    inside = (row > 0) & (row < 4) & (column > 0) & (column < 6)
    row, column = jnp.clip(row, 1, 3), jnp.clip(column, 1, 5)
    t, n = (jnp.array(index) for index in np.indices(best.shape))

    def offset(before: Array, after: Array) -> Array:
        bend = before + after - 2 * best
        return jnp.clip((before - after) / (2 * bend + 1e-6), -0.5, 0.5)

    down = offset(fine[row - 1, column, t, n], fine[row + 1, column, t, n])
    right = offset(fine[row, column - 1, t, n], fine[row, column + 1, t, n])
    return jnp.stack([down, right], -1) * inside[..., None]
