"""The original networks in PyTorch, for `experiments.bench inference`; runs in their environment.

Needs torch and, for their models, torchvision, pytorchvideo, transformers and movinets
(github.com/Atze00/MoViNet-pytorch). Imports nothing of this project and no jax.

Answers on stdout in JSON: first the layouts, then for each line "LAYOUT SECONDS" the seconds of
every call.
"""

import copy
import json
import sys
import time
from typing import Any

import torch  # pyright: ignore[reportMissingImports]

# Clips of these are [b t c h w], and their presets the defaults of their configs.
TRANSFORMERS = {"videomae_b": "VideoMAE", "vivit_b": "Vivit", "timesformer_b": "Timesformer"}


def build(name: str) -> Any:
    """The network of that name with random weights and 400 classes."""
    if name.startswith("movinet"):
        from movinets import MoViNet  # pyright: ignore[reportMissingImports]
        from movinets.config import _C  # pyright: ignore[reportMissingImports]

        causal = name.endswith("stream")
        return MoViNet(
            getattr(_C.MODEL, f"MoViNetA{name[9]}"),
            causal=causal,
            num_classes=400,
            conv_type="2plus1d" if causal else "3d",
        )
    if name in ("r3d_18", "mc3_18", "r2plus1d_18", "s3d", "mvit_v1_b", "mvit_v2_s") or (
        name.startswith("swin3d")
    ):
        from torchvision.models import video  # pyright: ignore[reportMissingImports]

        return getattr(video, name)(num_classes=400)
    if name in TRANSFORMERS:
        import transformers  # pyright: ignore[reportMissingImports]

        family = TRANSFORMERS[name]
        config = getattr(transformers, f"{family}Config")(num_labels=400)
        return getattr(transformers, f"{family}ForVideoClassification")(config)
    from pytorchvideo.models import hub  # pyright: ignore[reportMissingImports]

    return getattr(hub, name)(pretrained=False)


def main() -> None:
    """Builds the network, warms both layouts up, then answers."""
    name = sys.argv[1]
    batch, frames, height, width, channels = map(int, sys.argv[2:])
    torch.manual_seed(0)
    model = build(name).eval()
    clips = torch.randn(batch, channels, frames, height, width)
    last = torch.channels_last_3d
    flat = name.startswith("movinet") and name.endswith("stream")  # its windows have two axes
    variants = {"contiguous": (model, clips)}
    if name not in TRANSFORMERS:  # those convolve frames or nothing but patches
        variants["channels_last_3d"] = (
            copy.deepcopy(model).to(memory_format=torch.channels_last if flat else last),
            clips.to(memory_format=last),
        )
    with torch.inference_mode():
        for network, given in variants.values():
            _call(name, network, given)
        print(json.dumps(list(variants)), flush=True)
        for line in sys.stdin:
            layout, seconds = line.split()
            network, given = variants[layout]
            times = []
            while sum(times) < float(seconds) or len(times) < 2:
                began = time.perf_counter()
                _call(name, network, given)
                times.append(time.perf_counter() - began)
            print(json.dumps(times), flush=True)


def _call(name: str, network: Any, clips: Any) -> Any:
    if name.startswith("movinet") and name.endswith("stream"):
        network.clean_activation_buffers()
    if name.startswith("slowfast"):
        return network([clips[:, :, ::4], clips])
    if name in TRANSFORMERS:
        return network(clips.transpose(1, 2)).logits
    return network(clips)


if __name__ == "__main__":
    main()
