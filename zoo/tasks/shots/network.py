"""The network that reads the signals of frames: convolutions over time."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

DILATIONS = (1, 2, 4, 8)
# Frames on each side that an answer depends on, beyond those of the signals.
REACH = sum(DILATIONS) + 1


class ShotNet(nn.Module):
    """Signals [b t s] to logits [b t 2].

    The first: a cut lies right before this frame. The second: this frame is inside a gradual
    transition. Residual blocks of dilated convolutions over time.
    """

    width: int = 64

    @nn.compact
    def __call__(
        self, signals: Float[Array, "b t s"], train: bool = False
    ) -> Float[Array, "b t 2"]:
        """Logits; `train` switches dropout on."""
        mean = self.param("mean", nn.initializers.zeros, (signals.shape[-1],))
        scale = self.param("scale", nn.initializers.ones, (signals.shape[-1],))
        x = (signals - mean) * scale
        x = nn.Conv(self.width, (3,), name="first")(x)
        for number, dilation in enumerate(DILATIONS):
            y = nn.LayerNorm(name=f"norm{number}")(x)
            y = nn.Conv(self.width, (3,), kernel_dilation=dilation, name=f"conv{number}")(y)
            y = nn.Dropout(0.1, deterministic=not train)(nn.gelu(y))
            x = x + nn.Dense(self.width, name=f"dense{number}")(y)
        return nn.Dense(2, name="head")(nn.LayerNorm(name="norm")(x)).astype(jnp.float32)
