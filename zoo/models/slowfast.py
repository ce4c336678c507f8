"""SlowFast: a wide network on few frames and a narrow one on all of them, as in PyTorchVideo.

Feichtenhofer et al. 2019, "SlowFast Networks for Video Recognition"; from
pytorchvideo/models/slowfast.py and its `hub`, and for `slowfast_r50_4x16` the configuration of
that name in github.com/facebookresearch/SlowFast (every 8th frame, fusion over 5). The fast
network's features join the slow one's after the stem and every stage but the last.

Takes one clip and samples the slow network's frames, 0, alpha, 2 * alpha, ..., itself.
"""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from zoo import layers
from zoo.models.resnet50 import DEPTHS, SPATIAL_STRIDES, stage, stem_pool

STRIDE = 32  # pixels from one position of the last stage to the next


@dataclasses.dataclass(frozen=True)
class SlowFastConfig:
    """What a network of this family is made of.

    Attributes:
      frames: frames of the (fast) clip that it is meant for; sets the windows of the head.
      size: side of the square crop that it is meant for; sets the windows of the head.
      dropout: share of the features dropped before the head in training.
      drop_path: share of the last block's residuals dropped in training, less in earlier blocks.
      remat: recompute blocks in the backward pass, to save memory.
      depths: blocks of each stage.
      width: channels of the slow stem; its stages have 4, 8, 16 and 32 times as many.
      alpha: frames of the fast network for each of the slow one.
      beta: channels of the slow network for each of the fast one.
      fusion_window: frames of the fast network that a frame of the slow one receives.
      slow_windows, fast_windows: as `ResNet50Config.windows`, of either network.
    """

    frames: int = 32
    size: int = 224
    dropout: float = 0.5
    drop_path: float = 0.0
    remat: bool = False
    depths: tuple[int, ...] = DEPTHS[50]
    width: int = 64
    alpha: int = 4
    beta: int = 8
    fusion_window: int = 7
    slow_windows: tuple[tuple[int, ...], ...] = ((1,), (1,), (3,), (3,))
    fast_windows: tuple[tuple[int, ...], ...] = ((3,),) * 4

    def __post_init__(self) -> None:
        layers.check_rates(self)
        if self.width % self.beta:
            raise ValueError(
                f"SlowFastConfig.width is {self.width} and beta {self.beta}; the width must be a "
                "multiple of beta"
            )


_SHORTENED = (3,) * 6 + (1,) * 17  # only the first six of 23 blocks look along time
PRESETS: Mapping[str, SlowFastConfig] = {
    "slowfast_r50": SlowFastConfig(),
    "slowfast_r50_4x16": SlowFastConfig(alpha=8, fusion_window=5),
    "slowfast_r101": SlowFastConfig(depths=DEPTHS[101], fusion_window=5),
    "slowfast_16x8_r101_50_50": SlowFastConfig(
        frames=64,
        depths=DEPTHS[101],
        fusion_window=5,
        slow_windows=((1,), (1,), _SHORTENED, (3,)),
        fast_windows=((3,), (3,), _SHORTENED, (3,)),
    ),
}


class SlowFast(nn.Module):
    """The network: clips [b t h w c], normalised float32, to logits [b num_classes] in float32.

    With `num_classes=0` it returns the clip's features [b 32 * width * (1 + 1 / beta)], the slow
    network's first. Computes in `dtype`; the parameters and the logits are float32.
    """

    config: SlowFastConfig
    num_classes: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, clips: Float[Array, "b t h w c"], train: bool = False
    ) -> Float[Array, "b n"]:
        """Logits, or features where there are no classes.

        `train` switches batch statistics, dropout and stochastic depth on. Raises ValueError for
        anything but float clips of five axes, for clips that leave less than the windows of the
        head, and for a number of frames at which the two windows fit a different number of times.
        """
        config = self.config
        alpha = config.alpha
        side = -(-config.size // STRIDE)  # padded strides round up
        layers.check_clips(clips, frames=config.frames, size=(side - 1) * STRIDE + 1)
        slow_frames = -(-config.frames // alpha)
        t = clips.shape[1]
        if -(-t // alpha) - slow_frames != t - config.frames:
            raise ValueError(
                f"clips of {t} frames do not fit both heads of a model for {config.frames}; give "
                f"{config.frames} frames, or create it with its field frames set to {t}"
            )
        widths = (config.width, config.width // config.beta)

        fast = clips.astype(self.dtype)
        slow = self._stem(fast[:, ::alpha], train, "slow_stem", widths[0], 1)
        fast = self._stem(fast, train, "fast_stem", widths[1], 5)
        slow = self._fused(slow, fast, train, 0)
        rates = layers.drop_path_rates(config.drop_path, config.depths)
        for number, (in_space, stage_rates) in enumerate(
            zip(SPATIAL_STRIDES, rates, strict=True), start=1
        ):
            slow, fast = (
                stage(
                    x,
                    train,
                    f"{pathway}_stage{number}",
                    width=width * 2 ** (number - 1),
                    windows=windows[number - 1],
                    stride=(1, in_space, in_space),
                    middle="2d",
                    drop_path=stage_rates,
                    remat=config.remat,
                    dtype=self.dtype,
                )
                for x, pathway, width, windows in (
                    (slow, "slow", widths[0], config.slow_windows),
                    (fast, "fast", widths[1], config.fast_windows),
                )
            )
            if number < len(config.depths):
                slow = self._fused(slow, fast, train, number)
        slow = layers.window_means(slow, (slow_frames, side, side))
        fast = layers.window_means(fast, (config.frames, side, side))
        x = jnp.concatenate([slow, fast], axis=-1)
        return layers.classify(x, self.num_classes, config.dropout, train)

    def _stem(self, x: Array, train: bool, name: str, width: int, window: int) -> Array:
        conv = layers.ConvNorm(width, (window, 7, 7), (1, 2, 2), dtype=self.dtype, name=name)
        return stem_pool(conv(x, train))

    def _fused(self, slow: Array, fast: Array, train: bool, number: int) -> Array:
        """The slow features with twice as many channels as the fast ones have beside them."""
        window, stride = (self.config.fusion_window, 1, 1), (self.config.alpha, 1, 1)
        name = f"fusion{number}"
        conv = layers.ConvNorm(2 * fast.shape[-1], window, stride, dtype=self.dtype, name=name)
        return jnp.concatenate([slow, conv(fast, train)], axis=-1)
