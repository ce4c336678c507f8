"""VideoMAE's encoder with a classifier: a plain vision transformer over blocks of two frames.

`videomae_b` is VideoMAEForVideoClassification of transformers (models/videomae), after Tong et al.
2022, "VideoMAE: Masked Autoencoders are Data-Efficient Learners for Self-Supervised Video
Pre-Training". Its positions are fixed sinusoids over the tokens counted through, so it takes any
number of frames and any crop; what does not fill a block is cut off.
"""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from zoo import layers, transformer


@dataclasses.dataclass(frozen=True)
class VideoMAEConfig(transformer.ViTConfig):
    """A plain transformer; `frames` and `size` may be any."""


PRESETS: Mapping[str, VideoMAEConfig] = {"videomae_b": VideoMAEConfig()}


class VideoMAE(nn.Module):
    """The network: clips [b t h w c], normalised float32, to logits [b num_classes] in float32.

    With `num_classes=0` it returns the clip's features [b width]. Computes in `dtype`; the
    parameters and the logits are float32.
    """

    config: VideoMAEConfig
    num_classes: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, clips: Float[Array, "b t h w c"], train: bool = False
    ) -> Float[Array, "b n"]:
        """Logits, or features where there are no classes.

        `train` switches dropout and stochastic depth on. Raises ValueError for anything but float
        clips of five axes that hold a block of pixels.
        """
        config = self.config
        layers.check_clips(clips, frames=config.patch[0], size=max(config.patch[1:]))
        x = transformer.Patches(config.width, config.patch, self.dtype, name="patches")(clips)
        x = x.reshape(len(x), -1, config.width)
        x = x + transformer.sinusoids(x.shape[1], config.width).astype(self.dtype)
        # Keys have no bias: it would add the same to all products of a query.
        x = transformer.blocks(
            config, x, train, 1e-12, biases=(True, False, True), dtype=self.dtype
        )
        x = transformer.norm(1e-5, jnp.dtype(jnp.float32), "norm")(
            x.astype(jnp.float32).mean(axis=1)
        )
        return transformer.classify(x, self.num_classes, 0.0, train)
