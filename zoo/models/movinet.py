"""MoViNets: small video networks found by search, whose stream variants run frame by frame.

`movinet_a0_base` to `movinet_a5_base` and `movinet_a0_stream` to `movinet_a2_stream` of Kondratyuk
et al. 2021, "MoViNets: Mobile Video Networks for Efficient Video Recognition", as they are in
github.com/Atze00/MoViNet-pytorch. A block expands its channels, filters each one in space and time,
weighs the channels by squeeze-excite, projects back, and adds the result, times a trained number
`alpha`, to its input.

That port pads frames evenly unless told otherwise, and so do the presets here. The published
weights were trained with the padding of TensorFlow: they need `same_padding=True`.

A stream network looks at no later frame. Its windows over time are padded at the start alone, its
squeeze-excite and its last average run over the frames so far, and what it must remember is the
last frames of each window and those averages: `init_state` and `step`. A clip in one call, frame by
frame, and in pieces of any length give the same logits.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

import kernels
from kernels.windows import Padding
from zoo import layers, streaming
from zoo.models.movinet_presets import PRESETS as PRESETS
from zoo.models.movinet_presets import STRIDES, MoViNetConfig, Window

EPSILON = 1e-3


class ConvNorm(nn.Module):
    """A convolution, batch normalisation and an activation, in `dtype`.

    A window of two axes filters each frame. pad: rows and columns of zeros around a frame; None for
    SAME. Time is padded by half the window. Submodules conv (no bias) and norm.
    """

    features: int
    window: tuple[int, ...]
    pad: int | None = 0
    stride: int = 1
    groups: int = 1
    activation: Callable[[Array], Array] | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"], train: bool) -> Float[Array, "b t u v n"]:
        """The block's result; `train` as of `BatchNorm`."""
        b, t = x.shape[:2]
        frames = len(self.window) == 2
        padding: Padding = "SAME"
        if self.pad is not None:
            padding = [(self.pad, self.pad)] * 2
            if not frames:
                padding = [(self.window[0] // 2, self.window[0] // 2), *padding]
        y = layers.Conv(
            self.features,
            self.window,
            (self.stride,) * 2 if frames else (1, self.stride, self.stride),
            padding,
            groups=self.groups,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=layers.HE_FAN_OUT,
            name="conv",
        )(x.reshape(b * t, *x.shape[2:]) if frames else x)
        y = layers.BatchNorm(EPSILON, dtype=self.dtype, name="norm")(y, train)
        y = y if self.activation is None else self.activation(y)
        return y.reshape(b, t, *y.shape[1:]) if frames else y


class CausalConvNorm(nn.Module):
    """A depthwise convolution over this and earlier frames, normalisation and hard swish.

    Submodules as of `ConvNorm`. Zeros stand for the frames before the first.
    """

    frames: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t h w c"], train: bool, past: Float[Array, "b p h w c"] | None
    ) -> tuple[Float[Array, "b t h w c"], Float[Array, "b p h w c"] | None]:
        """The block's result, and the frames that the next call needs: the last `frames` - 1.

        past: what the call before returned; None at the start of a clip that is no stream.
        """
        before = self.frames - 1
        pad, seen = before, x
        if past is not None:
            pad, seen = 0, jnp.concatenate([past.astype(x.dtype), x], axis=1)
        b, _, h, w, c = x.shape
        y = layers.Conv(
            c,
            (self.frames, 1),
            padding=((pad, 0), (0, 0)),
            groups=c,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=layers.HE_FAN_OUT,
            name="conv",
        )(seen.reshape(b, -1, h * w, c))
        y = layers.BatchNorm(EPSILON, dtype=self.dtype, name="norm")(y, train)
        y = nn.hard_swish(y).reshape(x.shape)
        return y, None if past is None else seen[:, -before:]


class SqueezeExcite(nn.Module):
    """Weighs the channels by what they hold on average, [b t h w c] to the same.

    The average is over the whole clip or, in a stream network, over the frame and over all so far.
    Submodules fc1 and fc2.
    """

    causal: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t h w c"],
        past: Float[Array, "b c"] | None,
        seen: Int[Array, "b"] | None,
    ) -> tuple[Float[Array, "b t h w c"], Float[Array, "b c"] | None]:
        """The weighed channels, and the average so far.

        past, seen: the average that the call before returned, and over how many frames.
        """
        c = x.shape[-1]
        if not self.causal:
            mean = kernels.spatial_sum(x) / math.prod(x.shape[1:4])
            weights = nn.swish(self._dense(_divisible(c // 4), "fc1")(mean))
            weights = nn.sigmoid(self._dense(c, "fc2")(weights))
            return x * weights[:, None, None, None], None
        frame = _frame_means(x)
        so_far = streaming.running_mean(frame, past, seen)
        weights = jnp.concatenate([so_far, frame], axis=-1)
        weights = nn.hard_swish(self._dense(_divisible(c // 4 * 2), "fc1")(weights))
        # The hard sigmoid of Keras 2, whose slope is not that of jax.nn's.
        weights = jnp.clip(0.2 * self._dense(c, "fc2")(weights) + 0.5, 0, 1)
        return x * weights[:, :, None, None], so_far[:, -1]

    def _dense(self, units: int, name: str) -> nn.Dense:
        return nn.Dense(units, dtype=self.dtype, kernel_init=layers.HE_FAN_OUT, name=name)


class Block(nn.Module):
    """Expansion, depthwise convolution, squeeze-excite, projection, and the way around them."""

    features: int
    expanded: int
    window: Window
    pads: tuple[int, int] | None
    stride: int
    causal: bool
    drop_path: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t h w c"],
        train: bool,
        state: Mapping[str, Array] | None,
        seen: Int[Array, "b"] | None,
    ) -> tuple[Float[Array, "b t u v n"], dict[str, Array | None]]:
        """The block's result and the state after it; state and seen are None for a mere clip."""
        state = state or {}
        frames, side = self.window
        # A stream network filters space and time apart, each followed by an activation.
        point, window = ((1,) * 2, (side,) * 2) if self.causal else ((1,) * 3, (frames, side, side))
        activation = nn.hard_swish if self.causal else nn.swish

        around = x
        pad, pool_pad = self.pads or (None, None)
        if self.stride > 1:
            around = _average_pool(around, pool_pad)
        pointwise = functools.partial(ConvNorm, window=point, dtype=self.dtype)
        if self.stride > 1 or x.shape[-1] != self.features:
            around = pointwise(self.features, name="res")(around, train)
        y = pointwise(self.expanded, activation=activation, name="expand")(x, train)
        y = ConvNorm(
            self.expanded,
            window,
            pad,
            self.stride,
            self.expanded,
            activation,
            self.dtype,
            name="deep",
        )(y, train)
        after = {}
        if self.causal and frames > 1:
            over_time = CausalConvNorm(frames, self.dtype, name="deep_time")
            y, after["past"] = over_time(y, train, state.get("past"))
        y, after["mean"] = SqueezeExcite(self.causal, self.dtype, name="se")(
            y, state.get("mean"), seen
        )
        y = pointwise(self.features, name="project")(y, train)
        alpha = self.param("alpha", nn.initializers.zeros, (), jnp.float32)
        y = layers.drop_path(self.drop_path, train)(alpha.astype(self.dtype) * y)
        return around + y, after


class MoViNet(nn.Module):
    """The network: clips [b t h w c], floats in 0..1, to logits [b num_classes] in float32.

    With `num_classes=0` it returns the clip's features [b hidden]. Computes in `dtype`; the
    parameters and the logits are float32.
    """

    config: MoViNetConfig
    num_classes: int
    dtype: jnp.dtype = jnp.float32

    def __call__(
        self, clips: Float[Array, "b t h w c"], train: bool = False
    ) -> Float[Array, "b n"]:
        """Logits, or features where there are no classes.

        `train` switches batch statistics, dropout and stochastic depth on. Raises ValueError for
        anything but float clips of five axes.
        """
        layers.check_clips(clips, size=smallest_size(self.config))
        return self.advance(clips, None, train)[0]

    def init_state(self, batch: int, height: int, width: int) -> streaming.State:
        """The state before the first frame of `batch` streams of height x width.

        Every array's first axis is the batch, so that one stream can start again on its own: put
        its rows of a new state into the old one. The size does not depend on the frames seen.
        Raises ValueError for a base network, which needs all frames of a clip at once.
        """
        config = self.config
        if not config.causal:
            raise ValueError(
                "this MoViNet is a base network, which needs later frames; use a stream preset, "
                "or zoo.streaming.SlidingWindow"
            )
        blocks = {}
        height, width = (_size_after(config, -1, size) for size in (height, width))
        for stage, stage_blocks in enumerate(config.blocks):
            height, width = (_size_after(config, stage, size) for size in (height, width))
            for number, (expanded, (frames, _)) in enumerate(stage_blocks):
                block = {"mean": jnp.zeros((batch, expanded), jnp.float32)}
                if frames > 1:
                    past = (batch, frames - 1, height, width, expanded)
                    block["past"] = jnp.zeros(past, self.dtype)
                blocks[f"b{stage}_l{number}"] = block
        mean = jnp.zeros((batch, config.top), jnp.float32)
        return {"seen": jnp.zeros(batch, jnp.int32), "mean": mean, "blocks": blocks}

    def step(
        self,
        variables: Mapping[str, Any],
        frames: Float[Array, "b h w c"] | Float[Array, "b t h w c"],
        state: streaming.State,
    ) -> tuple[Float[Array, "b n"], streaming.State]:
        """The logits for all frames so far, and the state after the next frame, or the next few.

        Raises ValueError for frames that do not fit the state.
        """
        clips = streaming.as_clips(frames)
        layers.check_clips(clips, size=smallest_size(self.config))
        fitting = jax.eval_shape(lambda: self.init_state(clips.shape[0], *clips.shape[2:4]))
        streaming.check_state(clips, state, fitting)
        return self.apply(variables, clips, state, False, method=MoViNet.advance)

    @nn.compact
    def advance(
        self, clips: Float[Array, "b t h w c"], state: streaming.State | None, train: bool
    ) -> tuple[Float[Array, "b n"], Any]:
        """The logits after clips that follow those of `state`, and the state after them."""
        config = self.config
        seen = state["seen"] if state else None
        activation = nn.hard_swish if config.causal else nn.swish
        window, point = ((3, 3), (1, 1)) if config.causal else ((1, 3, 3), (1, 1, 1))

        x = clips.astype(self.dtype)
        pad = None if config.same_padding else 1
        x = ConvNorm(config.stem, window, pad, 2, 1, activation, self.dtype, name="conv1")(x, train)
        blocks = {}
        block = nn.remat(Block, static_argnums=(2,)) if config.remat else Block
        rates = layers.drop_path_rates(config.drop_path, [len(stage) for stage in config.blocks])
        for stage, stage_blocks in enumerate(config.blocks):
            for number, (expanded, window) in enumerate(stage_blocks):
                name = f"b{stage}_l{number}"
                stride, pads = 1, (window[1] // 2, 1)
                if number == 0:
                    stride, pads = STRIDES[stage], config.pads[stage]
                x, blocks[name] = block(
                    config.widths[stage],
                    expanded,
                    window,
                    None if config.same_padding else pads,
                    stride,
                    config.causal,
                    rates[stage][number],
                    self.dtype,
                    name=name,
                )(x, train, state["blocks"][name] if state else None, seen)
        x = ConvNorm(config.top, point, activation=activation, dtype=self.dtype, name="conv7")(
            x, train
        )
        if config.causal:
            so_far = streaming.running_mean(_frame_means(x), state["mean"] if state else None, seen)
            mean = so_far[:, -1]
        else:
            mean = kernels.spatial_sum(x) / math.prod(x.shape[1:4])

        x = nn.Dense(config.hidden, dtype=self.dtype, kernel_init=layers.HE_FAN_OUT, name="hidden")(
            mean
        )
        x = nn.swish(x).astype(jnp.float32)
        if self.num_classes:
            x = nn.Dropout(config.dropout, deterministic=not train)(x)
            x = nn.Dense(self.num_classes, kernel_init=layers.HE_FAN_OUT, name="head")(x)
        if state is None:
            return x, None
        seen = streaming.count(state["seen"], clips.shape[1])
        return x, {"seen": seen, "mean": mean, "blocks": blocks}


def _frame_means(x: Float[Array, "b t h w c"]) -> Float[Array, "b t c"]:
    """The mean over each frame, in float32."""
    b, t, h, w, c = x.shape
    return kernels.spatial_sum(x.reshape(b * t, h, w, c)).reshape(b, t, c) / (h * w)


def _average_pool(x: Float[Array, "b t h w c"], pad: int | None) -> Float[Array, "b t u v c"]:
    """Means of 3x3 pixels, stride 2; zeros around the frame count, the padding of SAME does not."""
    b, t, *frame = x.shape
    x = x.reshape(b * t, *frame)
    if pad is None:
        y = nn.avg_pool(x, (3, 3), (2, 2), "SAME", count_include_pad=False)
    else:
        zeros = ((0, 0), (pad, pad), (pad, pad), (0, 0))
        y = nn.avg_pool(jnp.pad(x, zeros), (3, 3), (2, 2))
    return y.reshape(b, t, *y.shape[1:])


def _size_after(config: MoViNetConfig, stage: int, size: int) -> int:
    """Rows of a frame after the first block of a stage; stage -1 is the first convolution."""
    stride = 2 if stage < 0 else STRIDES[stage]
    if config.same_padding:
        return -(-size // stride)
    window, pad = (3, 1) if stage < 0 else (config.blocks[stage][0][1][1], config.pads[stage][0])
    return (size + 2 * pad - window) // stride + 1


def smallest_size(config: MoViNetConfig) -> int:
    """Side in pixels of the smallest frame that leaves one position."""
    stages = range(-1, len(STRIDES))

    def left(size: int) -> int:
        for stage in stages:
            size = max(0, _size_after(config, stage, size)) if size else 0
        return size

    return next(size for size in range(1, 1000) if left(size) > 0)


def _divisible(channels: int) -> int:
    """The nearest multiple of 8, but at least 8 and not below 0.9 of what was asked."""
    nearest = max(8, (channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest
