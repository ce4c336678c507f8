"""The experiments that have a name. Each says its command's time and result, as measured."""

import dataclasses
import json
import pathlib

from experiments.config import (
    SEARCHED,
    Config,
    ConfigError,
    Data,
    Eval,
    Model,
    Optim,
    Search,
    from_dict,
    nearest,
)
from zoo.video.policy import Augmentation

# Light augmentation. Mirroring swaps left and right, so motions are not mirrored.
_STILL = Augmentation(
    crop="random", horizontal_flip=0.5, brightness=0.1, contrast=0.1, saturation=0.1
)
_MOVING = dataclasses.replace(_STILL, horizontal_flip=0.0)
_SHAPES = Data(task="shapes", frames=2, train_clips=2000, val_clips=200, test_clips=500)
_MOTIONS = Data(
    task="motions", frames=8, sampling="uniform", train_clips=2000, val_clips=200, test_clips=500
)
_COSINE = Optim(schedule="cosine", ema_decay=0.99)

# Few clips: strong changes, so that no two epochs show the same.
_STRONG = Augmentation(
    crop="resized",
    crop_scale=(0.4, 1.0),
    horizontal_flip=0.5,
    randaugment=2,
    randaugment_magnitude=9.0,
    erasing=0.25,
    mixup=0.2,
)
# X3D-S on Kinetics: 13 frames, every 6th, 160x160 out of 182 on the shorter side.
_X3D_S = Data(
    dataset="video_folder",
    frames=13,
    sampling="dense",
    stride=6,
    size=160,
    decode_size=182,
    fit="crop",
    short_side=182,
)
_FROM_X3D_S = Model(name="x3d_s", pretrained="x3d_s.k400", dropout=0.5)

CONFIGS: dict[str, Config] = {
    # Which of ten shapes moves. Any frame shows it, so two of each clip train it; the test sees
    # eight. Batches of 16: the first updates are the slow ones, and there are more of them.
    "cnn_small": Config(
        data=_SHAPES, augment=_STILL, optim=_COSINE, eval=Eval(views=4), batch_size=16
    ),
    # How a shape moves. No single frame shows it, and a network that averages frames cannot tell
    # a motion from its reverse.
    "cnn_small_motions": Config(
        data=_MOTIONS, augment=_MOVING, optim=_COSINE, eval=Eval(views=1), epochs=6, batch_size=16
    ),
    # The same cost with temporal shift sees the motion.
    "cnn_small_shift": Config(
        model=Model(name="cnn_small_shift"),
        data=_MOTIONS,
        augment=_MOVING,
        optim=_COSINE,
        eval=Eval(views=1),
        epochs=6,
        batch_size=16,
    ),
    # The text's network to the letter: 224x224, Adam 1e-3, batches of 32, 10 epochs.
    "cnn_base": Config(
        model=Model(name="cnn_base"),
        data=Data(frames=1, size=224, decode_size=224),
        eval=Eval(views=4),
    ),
    # The text's search: three batch sizes, three numbers of epochs, three folds. The learning rate
    # is constant, so that shorter runs are the beginnings of longer ones: 27 members, 9 runs.
    "cnn_small_grid": Config(
        data=_SHAPES,
        augment=_STILL,
        search=Search(batch_size=(32, 64, 128), epochs=(10, 20, 30), folds=3),
    ),
    # The user's own clips: --data.root FOLDER_OR_CSV.
    "video_folder": Config(
        model=Model(name="cnn_small_shift", dropout=0.5),
        data=Data(dataset="video_folder", frames=8, short_side=96),
        augment=Augmentation(
            crop="resized",
            crop_scale=(0.5, 1.0),
            horizontal_flip=0.5,
            brightness=0.2,
            contrast=0.2,
            saturation=0.2,
        ),
        optim=Optim(schedule="cosine", label_smoothing=0.1),
        eval=Eval(views=2, crops=1),
        epochs=30,
    ),
    # Published weights on the user's own clips, cheapest first. The last layer alone:
    "linear_probe": Config(
        model=_FROM_X3D_S,
        data=_X3D_S,
        augment=Augmentation(crop="random", horizontal_flip=0.5),
        optim=Optim(schedule="cosine", trained_blocks=0),
        eval=Eval(batch_size=8, views=4),
        epochs=20,
    ),
    # ... with the last stage of residual blocks and what follows it:
    "fine_tune_last": Config(
        model=_FROM_X3D_S,
        data=_X3D_S,
        augment=_STRONG,
        optim=Optim(
            optimizer="adamw",
            learning_rate=3e-4,
            weight_decay=0.05,
            schedule="cosine",
            warmup_epochs=1,
            clip_norm=1.0,
            label_smoothing=0.1,
            trained_blocks=9,
        ),
        eval=Eval(batch_size=8, views=4),
        batch_size=16,
        epochs=20,
    ),
    # ... everything, the more slowly the nearer to the pixels.
    "fine_tune": Config(
        model=_FROM_X3D_S,
        data=_X3D_S,
        augment=_STRONG,
        optim=Optim(
            optimizer="adamw",
            learning_rate=3e-4,
            weight_decay=0.05,
            schedule="cosine",
            warmup_epochs=2,
            clip_norm=1.0,
            label_smoothing=0.1,
            layer_decay=0.9,
        ),
        eval=Eval(batch_size=8, views=4),
        batch_size=16,
        epochs=30,
    ),
}


def load(name: str) -> Config:
    """The configuration called `name`, or the one in the JSON file of that path.

    Raises:
        ConfigError: there is no such name (answered with the nearest one) or the file is wrong.
    """
    if name in CONFIGS:
        return CONFIGS[name]
    path = pathlib.Path(name)
    if path.suffix != ".json":
        raise nearest(name, CONFIGS, "config")
    try:
        return from_dict(json.loads(path.read_text("utf-8")))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{name} cannot be read as a configuration: {error}.") from error


def describe() -> str:
    """One line per configuration, for `--list`."""
    width = max(map(len, CONFIGS))
    lines = []
    for name, config in CONFIGS.items():
        d = config.data
        what = f"{d.dataset}/{d.task}" if d.dataset == "moving_shapes" else d.dataset
        line = (
            f"{name:{width}}  {config.model.name} on {what}, {d.frames} frames of "
            f"{d.size}x{d.size}, "
        )
        axes = [axis for axis in SEARCHED if getattr(config.search, axis)]
        axes += ["folds"] if config.search.folds else []
        lines.append(line + (f"search of {', '.join(axes)}" if axes else f"{config.epochs} epochs"))
    return "\n".join(lines)
