"""Flax blocks of the video transformers, on `kernels.attention`.

Tokens are [b, n, c]. Layer normalisation and the weights of attention are in float32; everything
else computes in `dtype`. Parameters are float32.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import kernels
from zoo import layers

# All the originals draw matrices and tables so. (PyTorch's trunc_normal_ cuts at 2, not at 2
# standard deviations.)
INIT = nn.initializers.normal(0.02)

Gelu = Literal["exact", "tanh"]
GELU: dict[Gelu, Callable[[Array], Array]] = {
    "exact": functools.partial(nn.gelu, approximate=False),
    "tanh": functools.partial(nn.gelu, approximate=True),
}


def dense(features: int, dtype: jnp.dtype, name: str, use_bias: bool = True) -> nn.Dense:
    """A dense layer with the initial weights of transformers."""
    return nn.Dense(features, use_bias, dtype, kernel_init=INIT, name=name)


def norm(epsilon: float, dtype: jnp.dtype, name: str) -> nn.LayerNorm:
    """Layer normalisation that loses nothing to cancellation, in float32, returning `dtype`."""
    return nn.LayerNorm(epsilon, dtype, use_fast_variance=False, name=name)


def residual(
    x: Float[Array, "b *n c"], branch: Float[Array, "b *n c"], drop_path: float, train: bool
) -> Float[Array, "b *n c"]:
    """x + branch; in training the branch of an example is dropped at the rate `drop_path`.

    Stochastic depth: Huang et al. 2016, "Deep Networks with Stochastic Depth". Called inside a
    compact `__call__`; `branch` may hold several entries an example only if they are to be dropped
    one by one.
    """
    axes = tuple(range(1, branch.ndim))
    return x + nn.Dropout(drop_path, broadcast_dims=axes, deterministic=not train)(branch)


def table(module: nn.Module, name: str, shape: tuple[int, ...]) -> Array:
    """A learnt table of positions: a parameter of `module` that is made for the first clip's grid.

    Where there is one already it is returned as it is: what a clip of another grid means is for the
    model to say (resize, or refuse), in terms of clips and not of a parameter's shape.
    """
    if module.has_variable("params", name):
        return module.get_variable("params", name)
    return module.param(name, INIT, shape, jnp.float32)


def sinusoids(n: int, width: int) -> np.ndarray:
    """The fixed positions of Vaswani et al. 2017, float32 [n, width]: sine and cosine alternate."""
    frequency = 10000.0 ** (-2 * (np.arange(width) // 2) / width)
    angle = np.arange(n)[:, None] * frequency
    return np.where(np.arange(width) % 2 == 0, np.sin(angle), np.cos(angle)).astype(np.float32)


class SelfAttention(nn.Module):
    """Multi-head attention among the tokens of an example, [b n c] to [b n c].

    Submodules qkv (`fused`) or query, key and value, then out. `biases`: which of query, key and
    value have one; with `fused` all three.
    """

    heads: int
    fused: bool = False
    biases: tuple[bool, bool, bool] = (True, True, True)
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n c"],
        train: bool,
        bias: Array | None = None,
        segments: Array | None = None,
    ) -> Float[Array, "b n c"]:
        """`bias` and `segments` as of `kernels.attention`; `train` switches dropout on."""
        b, n, c = x.shape
        if self.fused:
            qkv = jnp.split(dense(3 * c, self.dtype, "qkv")(x), 3, axis=-1)
        else:
            names = zip(("query", "key", "value"), self.biases, strict=True)
            qkv = [dense(c, self.dtype, name, has)(x) for name, has in names]
        q, k, v = (y.reshape(b, n, self.heads, c // self.heads) for y in qkv)
        y = kernels.attention(q, k, v, bias=bias, segments=segments).reshape(b, n, c)
        y = dense(c, self.dtype, "out")(y)
        return nn.Dropout(self.dropout, deterministic=not train)(y)


class MLP(nn.Module):
    """Two dense layers, hidden and out, with a GELU between them.

    Dropout follows the second, and the first too with `drop_hidden`.
    """

    hidden: int
    features: int
    gelu: Gelu = "exact"
    dropout: float = 0.0
    drop_hidden: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*n c"], train: bool) -> Float[Array, "*n features"]:
        """The layers' result; `train` switches dropout on."""
        drop = functools.partial(nn.Dropout, self.dropout, deterministic=not train)
        x = GELU[self.gelu](dense(self.hidden, self.dtype, "hidden")(x))
        x = drop()(x) if self.drop_hidden else x
        return drop()(dense(self.features, self.dtype, "out")(x))


class Block(nn.Module):
    """Attention and an MLP over the same tokens, each after a normalisation and beside a shortcut.

    Submodules norm1, attention, norm2, mlp.
    """

    heads: int
    hidden: int
    epsilon: float
    gelu: Gelu = "exact"
    biases: tuple[bool, bool, bool] = (True, True, True)
    dropout: float = 0.0
    drop_path: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"], train: bool) -> Float[Array, "b n c"]:
        """The block's result; `train` switches dropout and stochastic depth on."""
        y = norm(self.epsilon, self.dtype, "norm1")(x)
        y = SelfAttention(
            self.heads, biases=self.biases, dropout=self.dropout, dtype=self.dtype, name="attention"
        )(y, train)
        x = residual(x, y, self.drop_path, train)
        y = norm(self.epsilon, self.dtype, "norm2")(x)
        y = MLP(self.hidden, x.shape[-1], self.gelu, self.dropout, dtype=self.dtype, name="mlp")(
            y, train
        )
        return residual(x, y, self.drop_path, train)


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """What a plain vision transformer over blocks of pixels is made of.

    Attributes:
      frames: frames of the clip that it is meant for.
      size: side of the square crop that it is meant for.
      dropout: share of the values dropped after attention and MLP in training.
      drop_path: share of the last block's residuals dropped in training, less in earlier blocks.
      remat: recompute blocks in the backward pass, to save memory.
      patch: frames, rows and columns of a token's block of pixels.
      width: channels of a token.
      depth: blocks.
      heads: of attention; they divide `width`.
      hidden: units between the two layers of an MLP.
    """

    frames: int = 16
    size: int = 224
    dropout: float = 0.0
    drop_path: float = 0.0
    remat: bool = False
    patch: tuple[int, int, int] = (2, 16, 16)
    width: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int = 3072

    def __post_init__(self) -> None:
        layers.check_rates(self)
        check_heads(self)


def check_heads(config: Any) -> None:
    """Raises ValueError where the heads of a config do not divide its channels."""
    if config.heads < 1 or config.width % config.heads:
        raise ValueError(
            f"{type(config).__name__} has {config.heads} heads for {config.width} channels; give a "
            "number of heads that divides them"
        )


def blocks(
    config: ViTConfig,
    x: Float[Array, "b n c"],
    train: bool,
    epsilon: float,
    *,
    gelu: Gelu = "exact",
    biases: tuple[bool, bool, bool] = (True, True, True),
    dtype: jnp.dtype,
) -> Float[Array, "b n c"]:
    """The `Block`s of a plain transformer, block0, block1, ... Called in a compact `__call__`."""
    block = nn.remat(Block, static_argnums=(2,)) if config.remat else Block
    (rates,) = layers.drop_path_rates(config.drop_path, [config.depth])
    for number, rate in enumerate(rates):
        x = block(
            config.heads,
            config.hidden,
            epsilon,
            gelu,
            biases,
            config.dropout,
            rate,
            dtype,
            name=f"block{number}",
        )(x, train)
    return x


def with_class_token(module: nn.Module, x: Float[Array, "b n c"]) -> Float[Array, "b n+1 c"]:
    """x after a learnt token, parameter class_token [c] of `module`, whose result is the clip's."""
    token = module.param("class_token", INIT, (x.shape[-1],), jnp.float32).astype(x.dtype)
    return jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, x.shape[-1])), x], axis=1)


class Patches(nn.Module):
    """Cuts the axes before the channels into blocks of `window` and maps each block to a token.

    [b *spatial c] to [b *blocks features]; what is left over at the ends is cut off. A convolution
    with a stride of its window, as one matrix product. Parameters kernel [*window, c, features] and
    bias [features].
    """

    features: int
    window: tuple[int, ...]
    dtype: jnp.dtype = jnp.float32
    kernel_init: Callable = INIT

    @nn.compact
    def __call__(self, x: Float[Array, "b *spatial c"]) -> Float[Array, "b *blocks n"]:
        """The tokens, in `dtype`."""
        window, rank, c = self.window, len(self.window), x.shape[-1]
        kernel = self.param("kernel", self.kernel_init, (*window, c, self.features), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        counts = [size // step for size, step in zip(x.shape[1:-1], window, strict=True)]
        kept = [slice(count * step) for count, step in zip(counts, window, strict=True)]
        x = x[:, *kept].astype(self.dtype)
        pairs = [n for pair in zip(counts, window, strict=True) for n in pair]
        blocks = x.reshape(len(x), *pairs, c)
        outer, inner = range(1, 2 * rank, 2), range(2, 2 * rank + 1, 2)
        blocks = blocks.transpose(0, *outer, *inner, 2 * rank + 1).reshape(len(x), *counts, -1)
        matrix = kernel.reshape(-1, self.features).astype(self.dtype)
        return blocks @ matrix + bias.astype(self.dtype)


def classify(
    features: Float[Array, "b c"], num_classes: int, dropout: float, train: bool
) -> Float[Array, "b n"]:
    """Dropout and the dense layer `head` in float32; the features where there are no classes.

    Called inside a compact `__call__`.
    """
    features = features.astype(jnp.float32)
    if num_classes == 0:
        return features
    features = nn.Dropout(dropout, deterministic=not train)(features)
    return dense(num_classes, jnp.dtype(jnp.float32), "head")(features)
