"""What is done to a clip before the model sees it, as plain values.

`zoo.video.transform` carries a policy out. This module imports no jax, so that a configuration
can hold a policy and a command line can print it without starting a device.
"""

import dataclasses
from typing import Literal

# torchvision.transforms.RandAugment's operations, in its order.
RANDAUGMENT_OPERATIONS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "color",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
)
RANDAUGMENT_MAX_MAGNITUDE = 30.0


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes to a training clip and the normalisation of every clip.

    The defaults change nothing at random: a centre crop and the normalisation. Random values are
    drawn once per clip and hold for all its frames, so that motion stays what it was.

    `strength` and `mixup` may be traced arrays, where members that are trained together differ in
    them; they were checked as numbers before.
    """

    resize: int | None = None
    """Short side in pixels to which frames are scaled before cropping; None keeps theirs."""
    crop: Literal["center", "random", "resized"] = "center"
    """Which part of the frames is kept. `center`; `random`: a random place, no scaling; `resized`:
    a random box of `crop_scale` and `crop_ratio`, scaled (torchvision RandomResizedCrop)."""
    crop_scale: tuple[float, float] = (0.25, 1.0)
    """Smallest and largest share of the frame's area in the box of a `resized` crop."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest width / height of that box."""
    horizontal_flip: float = 0.0
    """Probability of mirroring left and right; 0 where the direction of motion is what is to be
    told."""
    vertical_flip: float = 0.0
    """Probability of mirroring top and bottom."""
    rotation: float = 0.0
    """Largest rotation in degrees, either way."""
    brightness: float = 0.0
    """Largest change of the brightness factor around 1 (torchvision ColorJitter)."""
    contrast: float = 0.0
    """Largest change of the contrast factor around 1."""
    saturation: float = 0.0
    """Largest change of the saturation factor around 1."""
    hue: float = 0.0
    """Largest shift of the hue as a share of the color circle, up to 0.5."""
    randaugment: int = 0
    """Random operations that each clip gets (the N of RandAugment); 0: none."""
    randaugment_magnitude: float = 9.0
    """Strength of these operations (the M of RandAugment), 0 to 30."""
    randaugment_operations: tuple[str, ...] = RANDAUGMENT_OPERATIONS
    """The operations that are drawn from."""
    erasing: float = 0.0
    """Probability that a rectangle is erased (Random Erasing)."""
    erasing_scale: tuple[float, float] = (0.02, 0.33)
    """Smallest and largest share of the area that is erased."""
    erasing_ratio: tuple[float, float] = (0.3, 3.3)
    """Smallest and largest width / height of what is erased."""
    erasing_mode: Literal["clip", "frame"] = "clip"
    """`clip`: the same rectangle in every frame; `frame`: each frame has its own."""
    strength: float = 1.0
    """Factor of the largest rotation and color changes, RandAugment's magnitude and the probability
    of erasing; crops, flips and mixing stay as they are."""
    mixup: float = 0.0
    """Alpha of the Beta distribution of mixup; 0: off."""
    cutmix: float = 0.0
    """Alpha of the Beta distribution of CutMix; 0: off. With mixup on too, each clip gets one of
    the two with equal chance."""
    mean: tuple[float, ...] = (0.45, 0.45, 0.45)
    """Subtracted from pixels in [0, 1]; one value for all channels or one for each."""
    std: tuple[float, ...] = (0.225, 0.225, 0.225)
    """Divides what is left; one value for all channels or one for each."""

    def __post_init__(self) -> None:
        for name in ("horizontal_flip", "vertical_flip", "erasing"):
            _require(0 <= getattr(self, name) <= 1, self, name, "a probability from 0 to 1")
        for name in ("rotation", "brightness", "contrast", "saturation", "cutmix"):
            _require(getattr(self, name) >= 0, self, name, "0 (off) or more")
        for name in ("strength", "mixup"):
            value = getattr(self, name)
            _require(not is_plain(value) or value >= 0, self, name, "0 (off) or more")
        _require(0 <= self.hue <= 0.5, self, "hue", "from 0 to 0.5")
        _require(self.resize is None or self.resize > 0, self, "resize", "None or at least 1")
        _require(self.crop in ("center", "random", "resized"), self, "crop", _CROPS)
        _require(self.erasing_mode in ("clip", "frame"), self, "erasing_mode", _ERASING_MODES)
        for name in ("crop_scale", "erasing_scale"):
            low, high = getattr(self, name)
            _require(0 < low <= high <= 1, self, name, "(low, high) with 0 < low <= high <= 1")
        for name in ("crop_ratio", "erasing_ratio"):
            low, high = getattr(self, name)
            _require(0 < low <= high, self, name, "(low, high) with 0 < low <= high")
        _require(self.randaugment >= 0, self, "randaugment", "0 (off) or more")
        magnitude = self.randaugment_magnitude
        if self.randaugment and is_plain(self.strength):
            magnitude = max(magnitude, magnitude * self.strength)
        _require(
            0 <= magnitude <= RANDAUGMENT_MAX_MAGNITUDE,
            self,
            "randaugment_magnitude",
            f"from 0 to {RANDAUGMENT_MAX_MAGNITUDE:g}, also times strength",
        )
        unknown = set(self.randaugment_operations) - set(RANDAUGMENT_OPERATIONS)
        _require(
            bool(self.randaugment_operations) and not unknown,
            self,
            "randaugment_operations",
            f"one or more of {', '.join(RANDAUGMENT_OPERATIONS)}",
        )
        _require(len(self.mean) > 0, self, "mean", "one value, or one per channel")
        _require(
            len(self.std) > 0 and min(self.std) > 0, self, "std", "positive, one or one per channel"
        )


def is_plain(value: object) -> bool:
    """Whether a hyperparameter is a number, known when a program is compiled, and not an array."""
    return isinstance(value, int | float)


def is_off(value: object) -> bool:
    """Whether a hyperparameter is known to be zero, so that what it controls can be left out."""
    return is_plain(value) and value == 0


_CROPS = '"center", "random" or "resized"'
_ERASING_MODES = '"clip" or "frame"'


def _require(holds: bool, policy: Augmentation, name: str, wanted: str) -> None:
    if not holds:
        raise ValueError(f"Augmentation.{name} is {getattr(policy, name)!r}; it must be {wanted}")
