"""Multiscale vision transformers: attention whose queries, keys and values are pooled.

`mvit_v1_b` and `mvit_v2_s` of torchvision (torchvision/models/video/mvit.py), after Fan et al.
2021, "Multiscale Vision Transformers", and Li et al. 2022, "MViTv2: Improved Multiscale Vision
Transformers for Classification and Detection". Frames must be a multiple of 2, height and width
of 4. Weights of the first kind have a position for each place of the clip that they were made for,
and serve no other size. Those of the second kind have one for each distance, and are resized for
other clips.
"""

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import kernels
from zoo import layers, transformer

EPSILON = 1e-6
STRIDE = (2, 4, 4)  # of the first convolution


@dataclasses.dataclass(frozen=True)
class MViTConfig:
    """What a network of this family is made of.

    Attributes:
      frames: frames of the clip that it is meant for.
      size: side of the square crop that it is meant for.
      dropout: share of the features dropped before the head in training.
      drop_path: share of the last block's residuals dropped in training, less in earlier blocks.
      remat: recompute blocks in the backward pass, to save memory.
      width: channels of the first stage; each later stage has twice as many.
      heads: of the first stage's attention; each later stage has twice as many.
      depths: blocks of each stage.
      second: version 2: distances in place of positions, every query pooled and added to what it
        finds, and channels widened in a stage's first attention in place of the MLP before it.
    """

    frames: int = 16
    size: int = 224
    dropout: float = 0.5
    drop_path: float = 0.2
    remat: bool = False
    width: int = 96
    heads: int = 1
    depths: tuple[int, ...] = (1, 2, 11, 2)
    second: bool = False

    def __post_init__(self) -> None:
        layers.check_rates(self)
        transformer.check_heads(self)


PRESETS: Mapping[str, MViTConfig] = {
    "mvit_v1_b": MViTConfig(),
    "mvit_v2_s": MViTConfig(second=True),
}


@dataclasses.dataclass(frozen=True)
class BlockConfig:
    """One block. stride, key_stride: of the pooling of queries, and of keys and values, along
    height and width; widths: channels of its input, its attention and its output."""

    heads: int
    widths: tuple[int, int, int]
    stride: int
    key_stride: int
    second: bool


def block_configs(config: MViTConfig) -> list[BlockConfig]:
    """The blocks in order. A stage halves the grid at its first block, and keys always have the
    grid of the last stage."""
    stages = [stage for stage, depth in enumerate(config.depths) for _ in range(depth)]
    blocks = []
    for number, stage in enumerate(stages):
        before = stages[max(number - 1, 0)]
        after = stages[min(number + 1, len(stages) - 1)]
        entry, exit = (before, stage) if config.second else (stage, after)
        blocks.append(
            BlockConfig(
                heads=config.heads * 2**stage,
                widths=(config.width * 2**entry, config.width * 2**stage, config.width * 2**exit),
                stride=2 if stage != before else 1,
                key_stride=2 ** (len(config.depths) - 1 - stage),
                second=config.second,
            )
        )
    return blocks


class Pool(nn.Module):
    """A depthwise 3x3x3 convolution of each head's grid, and a normalisation that the class token
    shares: [b 1+n h d] to [b 1+m h d]."""

    stride: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, grid: tuple[int, ...]) -> Array:
        """x pooled; grid: frames, rows and columns of the n tokens after the class token."""
        b, _, heads, d = x.shape
        like_torch = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        kernel = self.param("kernel", like_torch, (3, 3, 3, 1, d), jnp.float32).astype(self.dtype)
        tokens = kernels.conv(
            x[:, 1:].reshape(b, *grid, heads * d),
            jnp.tile(kernel, heads),  # heads share it
            stride=(1, self.stride, self.stride),
            padding=((1, 1),) * 3,
            groups=heads * d,
        )
        x = jnp.concatenate([x[:, :1], tokens.reshape(b, -1, heads, d)], axis=1)
        return transformer.norm(EPSILON, self.dtype, "norm")(x)


class PooledAttention(nn.Module):
    """Attention over pooled queries, keys and values, with a bias by distance in version 2.

    [b 1+n c] of a grid to [b 1+m widths[1]]. side: the longer side of the grid that its tables of
    distances are made for.
    """

    block: BlockConfig
    side: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, grid: tuple[int, ...]) -> Array:
        """The block's result, on the grid of the pooled queries."""
        block, heads, width = self.block, self.block.heads, self.block.widths[1]
        b, n, _ = x.shape
        qkv = transformer.dense(3 * width, self.dtype, "qkv")(x)
        q, k, v = (y.reshape(b, n, heads, -1) for y in jnp.split(qkv, 3, axis=-1))
        pool = functools.partial(Pool, dtype=self.dtype)
        k = pool(block.key_stride, name="pool_k")(k, grid)
        v = pool(block.key_stride, name="pool_v")(v, grid)
        if block.second or block.stride > 1:
            q = pool(block.stride, name="pool_q")(q, grid)

        likeness, scale = q, q.shape[-1] ** -0.5
        if block.second:
            likeness, k, scale = self._with_distances(q, k, scale, grid)
        y = kernels.attention(likeness, k, v, scale=scale)
        if block.second:
            y = jnp.concatenate([y[:, :1], y[:, 1:] + q[:, 1:]], axis=1)
        return transformer.dense(width, self.dtype, "out")(y.reshape(b, -1, width))

    def _with_distances(
        self, q: Array, k: Array, scale: float, grid: tuple[int, ...]
    ) -> tuple[Array, Array, float]:
        """q and k with more channels, whose products are the biases; they come with their scale.

        The bias of a query and a key is a sum over the axes of a product of the query with a vector
        that depends on their distance along the axis. So a query gets one channel for each place of
        a key along each axis, and a key a 1 in the three channels of its own place. Sums of [b h n
        m] are saved, which are ten times as large.
        """
        b, _, heads, d = q.shape
        strides = (1, self.block.stride, self.block.stride)
        key_strides = (1, self.block.key_stride, self.block.key_stride)
        q_grid = tuple(-(-n // s) for n, s in zip(grid, strides, strict=True))
        k_grid = tuple(-(-n // s) for n, s in zip(grid, key_strides, strict=True))
        sides = max(self.side // self.block.stride, self.side // self.block.key_stride)
        lengths = {"t": 2 * grid[0] - 1, "h": 2 * sides - 1, "w": 2 * sides - 1}

        places = np.indices(k_grid).reshape(3, -1)
        queries = q[:, 1:].reshape(b, *q_grid, heads, d)
        more, ones = [], []
        for axis, (name, length) in enumerate(lengths.items()):
            table = transformer.table(self, f"distances_{name}", (length, d))
            vectors = _by_distance(table, q_grid[axis], k_grid[axis]).astype(self.dtype)
            products = jnp.einsum(f"btxyhd,{'txy'[axis]}kd->btxyhk", queries, vectors)
            more.append(products.reshape(b, -1, heads, k_grid[axis]))
            ones.append(np.eye(k_grid[axis])[places[axis]])
        added = jnp.pad(jnp.concatenate(more, axis=-1), ((0, 0), (1, 0), (0, 0), (0, 0)))
        own = np.pad(np.concatenate(ones, axis=-1), ((1, 0), (0, 0)))  # the class token has none
        own = jnp.broadcast_to(own.astype(k.dtype)[:, None], (b, len(own), heads, own.shape[-1]))
        scaled = (q.astype(jnp.float32) * scale).astype(q.dtype)
        return jnp.concatenate([scaled, added], -1), jnp.concatenate([k, own], -1), 1.0


class MultiscaleBlock(nn.Module):
    """Pooled attention and an MLP, each after a normalisation and beside a shortcut."""

    block: BlockConfig
    grid: tuple[int, ...]
    side: int
    drop_path: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[b 1+n c] to [b 1+m widths[2]]; `train` switches stochastic depth on."""
        block = self.block
        entry, width, exit = block.widths
        b = len(x)
        y = transformer.norm(EPSILON, self.dtype, "norm1")(x)
        if entry != width:
            x = transformer.dense(width, self.dtype, "widen")(y)
        if block.stride > 1:
            step = (1, block.stride, block.stride)
            sides = (1, block.stride + 1, block.stride + 1)
            half = [(n // 2, n // 2) for n in sides]
            tokens = x[:, 1:].reshape(b, *self.grid, width)
            tokens = kernels.max_pool(tokens, sides, stride=step, padding=half)
            x = jnp.concatenate([x[:, :1], tokens.reshape(b, -1, width)], axis=1)
        y = PooledAttention(block, self.side, self.dtype, name="attention")(y, self.grid)
        x = transformer.residual(x, y, self.drop_path, train)

        y = transformer.norm(EPSILON, self.dtype, "norm2")(x)
        if width != exit:
            x = transformer.dense(exit, self.dtype, "widen")(y)
        y = transformer.MLP(4 * width, exit, dtype=self.dtype, name="mlp")(y, train)
        return transformer.residual(x, y, self.drop_path, train)


class MViT(nn.Module):
    """The network: clips [b t h w c], normalised float32, to logits [b num_classes] in float32.

    With `num_classes=0` it returns the clip's features. Computes in `dtype`; the parameters and the
    logits are float32.
    """

    config: MViTConfig
    num_classes: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, clips: Float[Array, "b t h w c"], train: bool = False
    ) -> Float[Array, "b n"]:
        """Logits, or features where there are no classes.

        `train` switches dropout and stochastic depth on. Raises ValueError for anything but float
        clips of five axes, for clips that are no multiple of 2 frames, 4 rows and 4 columns, and
        in version 1 for clips of another size than that of the weights.
        """
        config = self.config
        layers.check_clips(clips, frames=STRIDE[0], size=STRIDE[1])
        if any(n % s for n, s in zip(clips.shape[1:4], STRIDE, strict=True)):
            raise ValueError(
                f"clips of {_described(clips)} do not fit; give a multiple of {STRIDE[0]} frames "
                f"and a height and a width that are multiples of {STRIDE[1]}"
            )
        x = layers.Conv(
            config.width,
            (3, 7, 7),
            STRIDE,
            [(1, 1), (3, 3), (3, 3)],
            dtype=self.dtype,
            kernel_init=nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
            name="patches",
        )(clips)
        grid = x.shape[1:4]
        # The original sizes its tables by a grid that is rounded down where pooling rounds up.
        side = max(grid[1:])
        x = transformer.with_class_token(self, x.reshape(len(x), -1, config.width))
        if not config.second:
            x = x + self._positions(clips, grid).astype(self.dtype)

        block = nn.remat(MultiscaleBlock, static_argnums=(2,)) if config.remat else MultiscaleBlock
        stages = layers.drop_path_rates(config.drop_path, config.depths)
        rates = itertools.chain.from_iterable(stages)
        for number, (of, rate) in enumerate(zip(block_configs(config), rates, strict=True)):
            x = block(of, grid, side, rate, self.dtype, name=f"block{number}")(x, train)
            grid = (grid[0], -(-grid[1] // of.stride), -(-grid[2] // of.stride))
            side //= of.stride
        x = transformer.norm(EPSILON, jnp.dtype(jnp.float32), "norm")(x[:, 0])
        return transformer.classify(x, self.num_classes, config.dropout, train)

    def _positions(self, clips: Any, grid: tuple[int, ...]) -> Array:
        """[1 + tokens, width]: the class token's, and a frame's plus a place's for each other."""
        t, height, width = grid
        channels = self.config.width
        space = transformer.table(self, "positions_space", (height * width, channels))
        time = transformer.table(self, "positions_time", (t, channels))
        if len(space) != height * width or len(time) != t:
            raise ValueError(
                f"clips of {_described(clips)} have {t} times {height * width} places, and the "
                f"weights have positions for {len(time)} times {len(space)}; give clips of the "
                "size that the weights were made for"
            )
        own = transformer.table(self, "positions_class", (channels,))
        tokens = (time[:, None] + space).reshape(-1, channels)
        return jnp.concatenate([own[None], tokens])


def _described(clips: Any) -> str:
    return f"{clips.shape[1]} frames of {clips.shape[2]}x{clips.shape[3]}"


def _by_distance(table: Array, queries: int, keys: int) -> Array:
    """[queries, keys, d]: the row of a table of distances for each two places along an axis.

    The table is resized to twice the longer side less one (PyTorch's interpolation "linear"), and
    the shorter side counts in larger steps.
    """
    longest = max(queries, keys)
    count = 2 * longest - 1
    if len(table) != count:
        at = np.maximum((np.arange(count) + 0.5) * (len(table) / count) - 0.5, 0)
        low = np.minimum(at.astype(int), len(table) - 1)
        share = jnp.asarray(at - low, table.dtype)[:, None]
        table = table[low] * (1 - share) + table[np.minimum(low + 1, len(table) - 1)] * share
    query_step, key_step = longest / queries, longest / keys
    distance = np.arange(queries)[:, None] * query_step
    distance = distance - (np.arange(keys) + (1 - keys)) * key_step
    return table[distance.astype(int)]
