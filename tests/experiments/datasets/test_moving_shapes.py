"""moving_shapes: deterministic, balanced, free of shortcuts, and drawn as its classes say."""

import hashlib
import itertools
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.datasets import moving_shapes
from experiments.datasets.moving_shapes import CLASSES, SPLITS, render

TASKS = tuple(CLASSES)


def clips(task, count, split="train", **options):
    """`count` clips from the start of a split: uint8 [n t h w 3], labels [n]."""
    options = {"seed": 0, "size": 32, "frames": 8} | options
    rendered = [render(task, split, index, **options) for index in range(count)]
    return np.stack([clip for clip, _ in rendered]), np.array([label for _, label in rendered])


def held_out_accuracy(features, labels, ridge):
    """Accuracy of a linear classifier, fitted to the first two thirds, on the last third."""
    features = (features - features.mean(0)) / (features.std(0) + 1e-6)
    features = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    split = len(features) * 2 // 3
    train, wanted = features[:split], np.eye(10)[labels[:split]]
    weights = np.linalg.solve(train.T @ train + ridge * np.eye(train.shape[1]), train.T @ wanted)
    return np.mean((features[split:] @ weights).argmax(1) == labels[split:])


@pytest.mark.parametrize("task", TASKS)
def test_ten_distinct_classes(task):
    assert len(set(CLASSES[task])) == len(CLASSES[task]) == 10


@settings(max_examples=25, deadline=None)
@given(
    task=st.sampled_from(TASKS),
    split=st.sampled_from(SPLITS),
    index=st.integers(0, 10**9),
    seed=st.integers(0, 2**64),
    size=st.integers(8, 90),
    frames=st.integers(1, 20),
)
def test_any_arguments_give_a_whole_clip_twice_the_same(task, split, index, seed, size, frames):
    first, label = render(task, split, index, seed=seed, size=size, frames=frames)
    assert first.shape == (frames, size, size, 3)
    assert first.dtype == np.uint8
    assert first.flags.c_contiguous
    assert first.std() > 3  # something is drawn
    assert label == index % 10
    again, _ = render(task, split, index, seed=seed, size=size, frames=frames)
    np.testing.assert_array_equal(first, again)


def test_another_process_renders_the_same_clips():
    program = (
        "import hashlib; from experiments.datasets.moving_shapes import render\n"
        "for task in ('shapes', 'motions'):\n"
        "    for index in (7, 0, 123456):\n"
        "        clip, label = render(task, 'val', index, seed=5)\n"
        "        print(task, index, label, hashlib.sha256(clip.tobytes()).hexdigest())\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    expected = []
    for task, index in itertools.product(TASKS, (7, 0, 123456)):
        clip, label = render(task, "val", index, seed=5)
        expected.append(f"{task} {index} {label} {hashlib.sha256(clip.tobytes()).hexdigest()}")
    assert result.stdout.splitlines() == expected


def test_neither_order_nor_the_global_random_state_matters():
    np.random.seed(1)
    alone, _ = render("shapes", "test", 3, seed=0)
    np.random.seed(2)
    render("motions", "test", 2, seed=0)
    after, _ = render("shapes", "test", 3, seed=0)
    np.testing.assert_array_equal(alone, after)


@pytest.mark.parametrize("task", TASKS)
def test_any_ten_consecutive_clips_hold_each_class_once(task):
    for first in (0, 3, 990):
        labels = [
            render(task, "train", index, seed=0, size=8, frames=1)[1]
            for index in range(first, first + 10)
        ]
        assert sorted(labels) == list(range(10))


def test_splits_tasks_and_seeds_share_no_clip():
    seen = {}
    for task, split, seed in itertools.product(TASKS, SPLITS, (0, 1)):
        for index in range(20):
            clip, _ = render(task, split, index, seed=seed, size=16, frames=2)
            # Either direction of time is the same clip here: `motions` holds both on purpose.
            key = min(clip.tobytes(), clip[::-1].tobytes())
            scene = (task, split, seed, index // 2 if task == "motions" else index)
            assert seen.setdefault(key, scene) == scene
    assert len(seen) == 2 * 3 * 20 + 2 * 3 * 10


def test_motions_come_in_pairs_that_are_each_others_time_reversal():
    for index in range(0, 30, 2):
        forward, first = render("motions", "test", index, seed=3, frames=9)
        backward, second = render("motions", "test", index + 1, seed=3, frames=9)
        np.testing.assert_array_equal(forward, backward[::-1])
        assert second == first + 1
    opposites = [("right", "left"), ("down", "up"), ("grow", "shrink")]
    for turn in ("spin", "orbit"):
        opposites.append((f"{turn}_clockwise", f"{turn}_counterclockwise"))
    assert list(zip(CLASSES["motions"][::2], CLASSES["motions"][1::2], strict=True)) == opposites


def test_drawn_paths_do_what_the_class_says_whatever_else_varies():
    time, ranges = moving_shapes._frame_times(16), moving_shapes._RANGES["motions"]
    for seed in range(200):
        rng = np.random.default_rng(seed)
        paths = {
            name: moving_shapes._path(rng, name, ranges, time) for name in CLASSES["motions"][::2]
        }
        assert np.all(np.diff(paths["right"].x) > 0)
        assert np.all(np.diff(paths["down"].y) > 0)
        assert np.all(np.diff(paths["grow"].radius) > 0)
        assert np.all(np.diff(paths["spin_clockwise"].angle) > 0)
        x, y = paths["orbit_clockwise"].x, paths["orbit_clockwise"].y
        # y points down, so a positive cross product of successive steps is a clockwise turn.
        step_x, step_y = np.diff(x), np.diff(y)
        assert np.all(step_x[:-1] * step_y[1:] - step_y[:-1] * step_x[1:] > 0)
        # The motion of the class outweighs the same kind of motion anywhere else.
        spans = {
            name: (np.ptp(path.x), np.ptp(path.y), np.ptp(np.log(path.radius)), np.ptp(path.angle))
            for name, path in paths.items()
        }
        for axis, name in enumerate(("right", "down", "grow", "spin_clockwise")):
            others = [
                span[axis]
                for other, span in spans.items()
                if other not in (name, "orbit_clockwise")
            ]
            assert spans[name][axis] > 1.5 * max(others), (seed, name)


def test_rendered_shapes_move_as_their_labels_say():
    rendered, labels = clips("motions", 400, size=48, frames=16)
    names = np.array(CLASSES["motions"])[labels]
    # What differs from the still scene is the shape: follow its centre of gravity.
    scene = np.median(rendered, axis=1, keepdims=True)
    weight = np.square(rendered - scene).sum(-1)
    weight[weight < 50**2] = 0
    grid = np.arange(48)
    mass = weight.sum((2, 3)) + 1e-6
    x, y = (weight.sum(2) @ grid) / mass, (weight.sum(3) @ grid) / mass
    time = np.linspace(-1, 1, 16)
    for towards, away, centre in (("right", "left", x), ("down", "up", y)):
        slope = centre @ time
        assert np.mean(slope[names == towards] > 0) > 0.85
        assert np.mean(slope[names == away] < 0) > 0.85


@pytest.mark.parametrize("task", TASKS)
def test_colour_and_brightness_do_not_tell_the_class(task):
    rendered, labels = clips(task, 900, size=16, frames=4)
    over_frames = rendered.reshape(len(rendered), 4, -1, 3)
    features = [over_frames.mean((1, 2)), over_frames.std((1, 2)), over_frames.mean(2).std(1)]
    # Chance is 0.10; with 300 clips held out, 0.17 is four standard deviations above it.
    assert held_out_accuracy(np.concatenate(features, axis=1), labels, ridge=1.0) < 0.17


def test_shapes_need_more_than_a_linear_look_at_the_pixels():
    rendered, labels = clips("shapes", 900, size=24, frames=1)
    assert held_out_accuracy(rendered.reshape(len(rendered), -1) / 255.0, labels, 300.0) < 0.35


def test_the_average_frame_never_tells_which_way_time_runs():
    rendered, labels = clips("motions", 600, size=24, frames=8)
    average = rendered.mean(1).reshape(len(rendered), -1)
    np.testing.assert_allclose(average[0::2], average[1::2], rtol=0, atol=1e-9)
    assert held_out_accuracy(average / 255.0, labels, ridge=300.0) <= 0.5


def test_a_scene_is_the_same_at_every_size():
    for index in range(5):
        small, _ = render("shapes", "train", index, seed=0, size=48)
        large, _ = render("shapes", "train", index, seed=0, size=96)
        pooled = large.reshape(16, 48, 2, 48, 2, 3).mean((2, 4))
        # Noise of up to 3 levels remains, and edges that finer pixels resolve.
        assert np.abs(pooled - small).mean() < 4


def test_more_frames_show_the_same_motion_in_finer_steps():
    for index in range(5):
        few, _ = render("motions", "train", index, seed=0, frames=4)
        many, _ = render("motions", "train", index, seed=0, frames=12)
        # Frame k of 4 lies at the time of frame 3 k + 1 of 12.
        assert np.abs(many[1::3].astype(int) - few).mean() < 4


@pytest.mark.parametrize("shape", CLASSES["shapes"])
def test_every_outline_covers_the_same_area_around_its_centre(shape):
    grid = np.linspace(-2, 2, 801, dtype=np.float32)
    u, v = np.meshgrid(grid, grid)
    scale = moving_shapes._SCALE[shape]
    distance = moving_shapes._distance(shape, u / scale, v / scale)
    inside = distance < 0
    assert inside.mean() * 16 == pytest.approx(np.pi, rel=0.02)
    assert u[inside].mean() == pytest.approx(0, abs=0.01)
    assert v[inside].mean() == pytest.approx(0, abs=0.01)
    # Distances near the outline are true to scale, so that every edge is one pixel soft.
    slope = np.hypot(*np.gradient(distance * scale, grid[1] - grid[0]))[np.abs(distance) < 0.02]
    assert np.median(slope) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "colours"}, "no task 'colours': choose one of"),
        ({"split": "valid"}, "no split 'valid': choose one of"),
        ({"index": -1}, "index -1 and seed 0 must both be 0 or more"),
        ({"seed": -2}, "index 0 and seed -2 must both be 0 or more"),
        ({"size": 4}, "16 frames of 4 pixels"),
        ({"frames": 0}, "0 frames of 72 pixels"),
    ],
)
def test_arguments_out_of_range_are_named(change, message):
    arguments = {"task": "shapes", "split": "train", "index": 0, "seed": 0} | change
    with pytest.raises(ValueError, match=message):
        render(**arguments)


def test_rendering_is_quick_enough_for_thousands_of_clips():
    render("shapes", "train", 0, seed=0)
    started = time.process_time()
    for index in range(30):
        render("shapes", "train", index, seed=0)
    # About 4 ms each; processor time, so that other work on the machine does not count.
    assert (time.process_time() - started) / 30 < 0.025
