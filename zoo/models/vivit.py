"""ViViT without factorisation: a plain vision transformer over blocks of two frames.

`vivit_b` is VivitForVideoClassification of transformers (models/vivit, google/vivit-b-16x2), after
Arnab et al. 2021, "ViViT: A Video Vision Transformer", model 1. Positions are learnt, one for each
block of pixels, so weights serve clips of the size they were made for; what does not fill a block
is cut off.
"""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from zoo import layers, transformer


@dataclasses.dataclass(frozen=True)
class ViViTConfig(transformer.ViTConfig):
    """A plain transformer; it needs clips of the size that its weights were made for."""

    frames: int = 32


PRESETS: Mapping[str, ViViTConfig] = {"vivit_b": ViViTConfig()}


class ViViT(nn.Module):
    """The network: clips [b t h w c], normalised float32, to logits [b num_classes] in float32.

    With `num_classes=0` it returns the clip's features [b width]. Computes in `dtype`; the
    parameters and the logits are float32.
    """

    config: ViViTConfig
    num_classes: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, clips: Float[Array, "b t h w c"], train: bool = False
    ) -> Float[Array, "b n"]:
        """Logits, or features where there are no classes.

        `train` switches dropout and stochastic depth on. Raises ValueError for anything but float
        clips of five axes that hold a block of pixels, and for clips of another size than that of
        the weights.
        """
        config = self.config
        layers.check_clips(clips, frames=config.patch[0], size=max(config.patch[1:]))
        x = transformer.Patches(config.width, config.patch, self.dtype, name="patches")(clips)
        x = x.reshape(len(x), -1, config.width)
        x = transformer.with_class_token(self, x)
        positions = transformer.table(self, "positions", x.shape[1:])
        if len(positions) != x.shape[1]:
            _, t, h, w, _ = clips.shape
            raise ValueError(
                f"clips of {t} frames of {h}x{w} have {x.shape[1] - 1} blocks of pixels, and the "
                f"weights have positions for {len(positions) - 1}; give clips of the size that the "
                "weights were made for"
            )
        x = x + positions.astype(self.dtype)
        x = nn.Dropout(config.dropout, deterministic=not train)(x)
        x = transformer.blocks(config, x, train, 1e-6, gelu="tanh", dtype=self.dtype)
        x = transformer.norm(1e-6, jnp.dtype(jnp.float32), "norm")(x[:, 0])
        return transformer.classify(x, self.num_classes, 0.0, train)
