"""Transforms against references written differently, and the properties that training relies on."""

import colorsys
import dataclasses

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.video import color, geometry, mixing, randaugment, transform
from zoo.video.policy import RANDAUGMENT_OPERATIONS, Augmentation

SIZE = (12, 10)
EVERYTHING = Augmentation(
    crop="resized",
    horizontal_flip=0.5,
    vertical_flip=0.5,
    rotation=20,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.2,
    randaugment=2,
    erasing=0.5,
)

# Compiled as a whole: one compilation each in place of one for every operation inside.
augment = jax.jit(transform.augment, static_argnums=(2, 3))
prepare = jax.jit(transform.prepare, static_argnums=(1, 2, 3))
resize = jax.jit(geometry.resize, static_argnums=1)
resized_crop = jax.jit(geometry.resized_crop, static_argnums=5)
rotate = jax.jit(geometry.rotate)
erase = jax.jit(mixing.erase, static_argnums=2)
reference_resize = jax.jit(
    lambda clip, size: jax.image.resize(
        clip, (clip.shape[0], *size, clip.shape[-1]), "linear", antialias=True
    ),
    static_argnums=1,
)

seeds = st.integers(0, 2**31 - 1)


def a_clip(shape=(3, 16, 20, 3), seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def smooth_clip(shape=(2, 24, 30, 3), seed=0):
    noise = np.random.default_rng(seed).uniform(0, 255, shape)
    return scipy.ndimage.gaussian_filter(noise, (0, 2, 2, 0)).astype(np.float32)


# Policy


def test_the_default_policy_is_a_normalised_center_crop():
    clip = a_clip()
    expected = (clip[:, 2:14, 5:15] / np.float32(255) - np.float32(0.45)) / np.float32(0.225)
    got = augment(jax.random.key(0), clip, Augmentation(), SIZE)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(got, prepare(clip, Augmentation(), SIZE)[0])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("horizontal_flip", 1.5),
        ("rotation", -1),
        ("hue", 0.6),
        ("crop", "middle"),
        ("crop_scale", (0.5, 0.2)),
        ("erasing_ratio", (0, 1)),
        ("randaugment_magnitude", 31),
        ("randaugment_operations", ("rotate", "rotat")),
        ("std", (0.2, 0.0, 0.2)),
        ("resize", 0),
    ],
)
def test_a_policy_with_a_wrong_value_names_the_field(field, value):
    with pytest.raises(ValueError, match=rf"Augmentation\.{field} is .* must be"):
        Augmentation(**{field: value})


# Normalisation


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_normalisation_is_per_channel(channels):
    clip = a_clip((2, 5, 4, channels))
    mean = tuple(0.1 * (i + 1) for i in range(channels))
    std = tuple(0.2 * (i + 1) for i in range(channels))
    got = transform.normalize(clip, mean, std)
    expected = (clip / 255.0 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    back = np.asarray(got) * np.array(std) + np.array(mean)
    np.testing.assert_array_equal(np.round(back * 255).astype(np.uint8), clip)


def test_a_mean_for_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match="mean has 3 values for 1 channels"):
        transform.normalize(a_clip((1, 4, 4, 1)), (0.1, 0.2, 0.3), (0.5,))


# Geometry


@pytest.mark.parametrize("size", [(24, 30), (11, 33), (5, 64)])
def test_resize_agrees_with_jax_image(size):
    clip = smooth_clip()
    expected = reference_resize(clip, size)
    np.testing.assert_allclose(resize(clip, size), expected, atol=2e-3)


def test_resize_agrees_with_sums_written_out():
    row = np.array([0.0, 10.0, 20.0, 90.0, 40.0, 50.0], np.float32)
    got = resize(row[None, None, :, None], (1, 3))[0, 0, :, 0]
    # Scale 2: triangles of half-width 2 around 1, 3 and 5, cut at the ends.
    tent = np.array([[3, 3, 1, 0, 0, 0], [0, 1, 3, 3, 1, 0], [0, 0, 0, 1, 3, 3]]) / 4
    expected = (tent @ row) / tent.sum(axis=1)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_a_resized_crop_is_the_crop_resized(data):
    clip = a_clip((1, 15, 18, 1))
    height, width = data.draw(st.integers(1, 15)), data.draw(st.integers(1, 18))
    top, left = data.draw(st.integers(0, 15 - height)), data.draw(st.integers(0, 18 - width))
    got = resized_crop(clip, top, left, height, width, (7, 9))
    box = clip[:, top : top + height, left : left + width].astype(np.float32)
    expected = np.asarray(jax.image.resize(box, (1, 7, 9, 1), "linear", antialias=True))
    np.testing.assert_allclose(got, expected, atol=2e-3)


@pytest.mark.parametrize("size", [(9, 11), (10, 10), (16, 20)])
def test_center_crop_is_in_the_middle(size):
    clip = a_clip()
    got = geometry.center_crop(clip, size)
    top, left = (16 - size[0]) // 2, (20 - size[1]) // 2
    np.testing.assert_array_equal(got, clip[:, top : top + size[0], left : left + size[1]])


def test_a_crop_larger_than_the_frames_is_refused():
    with pytest.raises(ValueError, match="17x8 does not fit frames of 16x20"):
        geometry.crop(a_clip(), 0, 0, (17, 8))


def test_three_views_are_left_center_right_or_top_center_bottom():
    wide, tall = a_clip((1, 8, 14, 3)), a_clip((1, 14, 8, 3))
    for clip, axis in ((wide, 2), (tall, 1)):
        views = geometry.spatial_crops(clip, (8, 8), 3)
        for view, start in zip(views, (0, 3, 6), strict=True):
            np.testing.assert_array_equal(view, np.take(clip, range(start, start + 8), axis))


def test_views_of_a_square_frame_are_spread_over_its_width():
    clip = a_clip((1, 12, 12, 1))
    views = geometry.spatial_crops(clip, (8, 8), 2)
    np.testing.assert_array_equal(views[0], clip[:, 2:10, 0:8])
    np.testing.assert_array_equal(views[1], clip[:, 2:10, 4:12])


@pytest.mark.parametrize(("size", "resized_to"), [((20, 20), (20, 25)), ((8, 40), (32, 40))])
def test_frames_too_small_are_enlarged_to_cover_the_crop(size, resized_to):
    clip = a_clip()
    expected = geometry.center_crop(resize(clip, resized_to), size)
    got = prepare(clip, Augmentation(mean=(0.0,), std=(1.0,)), size)[0]
    np.testing.assert_allclose(got * 255, expected, rtol=1e-5, atol=1e-3)


def test_the_short_side_is_scaled_before_the_crop():
    policy = Augmentation(resize=8, mean=(0.0,), std=(1.0,))
    expected = geometry.center_crop(resize(a_clip(), (8, 10)), (8, 8))
    got = prepare(a_clip(), policy, 8)[0]
    np.testing.assert_allclose(got * 255, expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("degrees", [0, 17, -45, 90, 133, 180])
def test_rotation_agrees_with_scipy(degrees):
    clip = smooth_clip()
    angle = np.deg2rad(degrees)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    center = np.array([11.5, 14.5])
    expected = np.stack(
        [
            [
                scipy.ndimage.affine_transform(
                    frame[..., i], matrix, center - matrix @ center, order=1, mode="grid-constant"
                )
                for i in range(3)
            ]
            for frame in clip
        ]
    ).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(rotate(clip, degrees), expected, atol=5e-2)


def test_positive_rotation_is_counter_clockwise():
    clip = a_clip((2, 9, 9, 3))
    np.testing.assert_allclose(rotate(clip, 90), np.rot90(clip, axes=(1, 2)), atol=1e-3)


def test_rotation_fills_the_corners():
    turned = rotate(np.full((1, 20, 20, 3), 100, np.uint8), 45, fill=jnp.array([1, 2, 3]))
    np.testing.assert_allclose(turned[0, 0, 0], [1, 2, 3], atol=1e-4)
    np.testing.assert_allclose(turned[0, 10, 10], [100, 100, 100], atol=1e-3)


def test_supersampling_averages_what_the_map_shrinks():
    clip = a_clip((1, 8, 8, 1))
    sample = jax.jit(lambda c: geometry.sample(c, geometry.scaling(2, 2), (4, 4), supersample=2))
    got = sample(clip)
    expected = clip.reshape(1, 4, 2, 4, 2, 1).mean((2, 4))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_flipping_twice_is_identity_and_once_is_not():
    clip = jnp.asarray(a_clip())
    for horizontal, vertical in ((True, False), (False, True), (True, True)):
        once = geometry.flip(clip, horizontal, vertical)
        assert once.dtype == jnp.uint8 and not np.array_equal(once, clip)
        np.testing.assert_array_equal(geometry.flip(once, horizontal, vertical), clip)


def test_flips_happen_as_often_as_asked():
    policy = Augmentation(horizontal_flip=0.3, mean=(0.0,), std=(1.0,))
    ramp = np.arange(6, dtype=np.uint8)[None, None, :, None] * np.ones((1, 6, 1, 3), np.uint8)
    keys = jax.random.split(jax.random.key(0), 2000)
    flipped = jax.vmap(lambda key: augment(key, ramp, policy, 6))(keys)[:, 0, 0, 0, 0] > 0
    assert 0.26 < flipped.mean() < 0.34


random_boxes = jax.jit(
    jax.vmap(geometry.random_box, in_axes=(0, None, None, None)), static_argnums=(1, 2, 3)
)


@settings(max_examples=10, deadline=None)
@given(seed=seeds, frame=st.sampled_from([(16, 20), (64, 48)]))
def test_random_boxes_lie_inside_and_keep_scale_and_ratio(seed, frame):
    draws = np.random.default_rng(seed).random((500, geometry.BOX_DRAWS), np.float32)
    boxes, found = random_boxes(draws, frame, (0.2, 0.5), (0.5, 2.0))
    top, left, height, width = np.asarray(boxes)[np.asarray(found)].T
    assert found.mean() > 0.99
    assert (top >= 0).all() and (top + height <= frame[0]).all()
    assert (left >= 0).all() and (left + width <= frame[1]).all()
    # Sides are rounded to whole pixels, at least 5 here, so shares are off by at most a fifth.
    share = height * width / (frame[0] * frame[1])
    assert share.min() > 0.2 * 0.8 and share.max() < 0.5 * 1.2
    assert (width / height).min() > 0.5 * 0.8 and (width / height).max() < 2.0 * 1.25
    assert np.unique(top).size > 3 and np.unique(left).size > 3


def test_where_no_box_fits_the_crop_is_the_largest_central_one():
    box = geometry.random_crop_box(
        jnp.full(geometry.BOX_DRAWS, 0.5), (10, 40), (1.0, 1.0), (0.5, 2.0)
    )
    np.testing.assert_array_equal(box, [0, 10, 10, 20])


def test_random_crops_reach_every_offset_and_nothing_else():
    policy = Augmentation(crop="random", mean=(0.0,), std=(1 / 255,))
    places = np.arange(35, dtype=np.uint8).reshape(1, 5, 7, 1)
    keys = jax.random.split(jax.random.key(1), 1000)
    crops = jax.vmap(lambda key: augment(key, places, policy, (3, 4)))(keys)
    corners = np.round(np.asarray(crops[:, 0, 0, 0, 0])).astype(int)
    expected = [7 * y + x for y in range(3) for x in range(4)]
    assert sorted(set(corners)) == expected
    assert np.bincount(corners)[expected].min() > 40  # 83 on average


def test_one_sampling_equals_the_steps_one_after_the_other():
    clip = smooth_clip((2, 30, 36, 3))
    policy = Augmentation(crop="random", rotation=1e-4, mean=(0.0,), std=(1 / 255,))
    copied = Augmentation(crop="random", mean=(0.0,), std=(1 / 255,))
    key = jax.random.key(3)
    warped, plain = (augment(key, clip, p, (16, 18)) for p in (policy, copied))
    np.testing.assert_allclose(warped, plain, atol=2e-2)


# Color


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 1.7])
def test_brightness_contrast_and_saturation_are_blends(factor):
    clip = a_clip().astype(np.float32)
    gray = clip @ np.array([0.2989, 0.587, 0.114])
    for adjust, other in (
        (color.adjust_brightness, 0.0),
        (color.adjust_contrast, gray.mean()),
        (color.adjust_saturation, gray[..., None]),
    ):
        expected = np.clip(factor * clip + (1 - factor) * other, 0, 255)
        np.testing.assert_allclose(adjust(clip, factor), expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("shift", [0.0, 0.1, -0.25, 0.5])
def test_hue_agrees_with_colorsys(shift):
    clip = a_clip((1, 6, 7, 3)).astype(np.float32)
    clip[0, 0, :3] = [[0, 0, 0], [255, 255, 255], [90, 90, 90]]

    def turn(pixel):
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255))
        return np.array(colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value)) * 255

    expected = np.apply_along_axis(turn, -1, clip)
    np.testing.assert_allclose(color.adjust_hue(clip, shift), expected, atol=1e-2)


def test_gray_clips_have_neither_saturation_nor_hue():
    clip = a_clip((1, 5, 5, 1)).astype(np.float32)
    np.testing.assert_allclose(color.adjust_saturation(clip, 0.3), clip, rtol=1e-6)
    np.testing.assert_array_equal(color.adjust_hue(clip, 0.3), clip)


def test_colors_of_two_channels_are_refused():
    with pytest.raises(ValueError, match="2 channels"):
        color.adjust_saturation(jnp.zeros((1, 4, 4, 2)), 0.5)


def test_jitter_stays_in_its_range():
    policy = Augmentation(brightness=0.3)
    clip = jnp.full((1, 1, 1, 3), 100.0)
    draws = jnp.linspace(0, 0.9999, 5)[:, None] * jnp.ones(4)
    levels = jax.vmap(lambda draw: color.jitter(draw, clip, policy))(draws)[:, 0, 0, 0, 0]
    np.testing.assert_allclose(levels, [70, 85, 100, 115, 130], atol=0.1)


# RandAugment


def whole(values):
    return np.floor(values + 1e-3)


def reference_operation(name, frame, sign, magnitude):
    """torchvision's RandAugment operations for one uint8 image, photometric ones only."""
    pixels, factor = frame.astype(np.float64), 1 + sign * 0.9 * magnitude / 30
    gray = whole(pixels @ np.array([0.2989, 0.587, 0.114]))[..., None]

    def blend(other):
        return whole(np.clip(factor * pixels + (1 - factor) * other, 0, 255))

    if name == "brightness":
        return blend(0)
    if name == "color":
        return blend(gray)
    if name == "contrast":
        return blend((pixels @ np.array([0.2989, 0.587, 0.114])).mean())
    if name == "sharpness":
        kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]])[..., None] / 13
        smooth = pixels.copy()
        smooth[1:-1, 1:-1] = np.round(scipy.ndimage.convolve(pixels, kernel))[1:-1, 1:-1]
        return blend(smooth)
    if name == "posterize":
        bits = 8 - round(magnitude * 4 / 30)
        return frame & (256 - 2 ** (8 - bits))
    if name == "solarize":
        return np.where(pixels >= 255 * (1 - magnitude / 30), 255 - pixels, pixels)
    if name == "autocontrast":
        low, high = pixels.min((0, 1)), pixels.max((0, 1))
        return whole(np.clip((pixels - low) * (255 / (high - low)), 0, 255))
    if name == "equalize":
        result = np.empty_like(frame)
        for i in range(frame.shape[-1]):
            counts = np.bincount(frame[..., i].ravel(), minlength=256)
            step = counts[counts > 0][:-1].sum() // 255
            table = (np.cumsum(counts) + step // 2) // max(step, 1)
            table = np.clip(np.concatenate([[0], table[:-1]]), 0, 255)
            result[..., i] = table[frame[..., i]] if step else frame[..., i]
        return result
    return frame


recolor = jax.jit(randaugment.recolor, static_argnames="policy")


@pytest.mark.parametrize("magnitude", [9, 30])
def test_photometric_operations_agree_with_torchvisions_definitions(magnitude):
    policy = Augmentation(randaugment=1, randaugment_magnitude=magnitude)
    frame = smooth_clip((1, 24, 30, 3))[0]
    frame = (10 + 235 * (frame - frame.min()) / np.ptp(frame)).astype(np.uint8)
    for number, name in enumerate(RANDAUGMENT_OPERATIONS):
        for sign in (-1.0, 1.0):
            drawn = randaugment.Draw(jnp.array([number]), jnp.array([sign]))
            got = np.asarray(recolor(drawn, frame[None], policy=policy))[0].astype(int)
            expected = np.asarray(reference_operation(name, frame, sign, magnitude)).astype(int)
            # The contrast operation's mean differs in the last bits.
            difference = np.abs(got - expected)
            assert difference.max() <= 1, (name, sign)
            assert (difference == 0).mean() > 0.99, (name, sign)
            changes = name not in (*randaugment.GEOMETRIC, "identity")
            assert np.array_equal(expected, frame) != changes, (name, sign)


def test_equalize_and_autocontrast_leave_a_flat_clip_alone():
    policy = Augmentation(randaugment=2, randaugment_operations=("equalize", "autocontrast"))
    flat = np.full((2, 6, 6, 3), 77, np.uint8)
    drawn = randaugment.Draw(jnp.array([0, 1]), jnp.array([1.0, 1.0]))
    np.testing.assert_array_equal(recolor(drawn, flat, policy=policy), flat)


def test_geometric_operations_move_points_by_torchvisions_amounts():
    names = randaugment.GEOMETRIC
    policy = Augmentation(randaugment=1, randaugment_magnitude=30, randaugment_operations=names)
    point = np.array([10.0, 20.0, 1.0])  # y, x from the centre
    cos, sin = np.cos(np.pi / 6), np.sin(np.pi / 6)
    expected = {
        "shear_x": (10, 20 + 0.3 * 10),
        "shear_y": (10 + 0.3 * 20, 20),
        "translate_x": (10, 20 + 150 / 331 * 100),
        "translate_y": (10 + 150 / 331 * 50, 20),
        "rotate": (cos * 10 + sin * 20, -sin * 10 + cos * 20),
    }
    for number, name in enumerate(names):
        drawn = randaugment.Draw(jnp.array([number]), jnp.array([1.0]))
        moved = randaugment.movement(drawn, policy, (50, 100)) @ point
        np.testing.assert_allclose(moved[:2], expected[name], rtol=1e-5)


def test_all_operations_are_drawn():
    draws = np.random.default_rng(0).random((2000, 2), np.float32)
    drawn = randaugment.draw(jnp.asarray(draws), Augmentation(randaugment=2000))
    counts = np.bincount(drawn.operations, minlength=14)
    assert counts.shape == (14,) and counts.min() > 100  # 143 on average
    assert set(np.asarray(drawn.signs)) == {-1.0, 1.0}


# Erasing, mixup, CutMix


@pytest.mark.parametrize("mode", ["clip", "frame"])
def test_erasing_sets_one_rectangle_to_zero(mode):
    policy = Augmentation(erasing=1.0, erasing_scale=(0.1, 0.2), erasing_mode=mode)
    draws = np.random.default_rng(0).random(mixing.erase_draws(policy, 4), np.float32)
    erased = np.asarray(erase(draws, jnp.ones((4, 30, 40, 3)), policy)) == 0
    rectangles = set()
    for frame in erased:
        assert (frame == frame[..., :1]).all()
        rows, columns = np.nonzero(frame[..., 0].any(1))[0], np.nonzero(frame[..., 0].any(0))[0]
        box = (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1)
        assert frame[box[0] : box[1], box[2] : box[3]].all()
        assert 0.09 < frame.mean() < 0.22
        rectangles.add(box)
    assert len(rectangles) == (1 if mode == "clip" else 4)


def test_erasing_never_happens_at_probability_zero():
    policy = Augmentation(erasing=0.0)
    draws = np.zeros(mixing.erase_draws(policy, 1), np.float32)
    assert (erase(draws, jnp.ones((1, 8, 8, 3)), policy) == 1).all()


mix = jax.jit(mixing.mix, static_argnames="policy")


@settings(max_examples=10, deadline=None)
@given(seed=seeds, policy=st.sampled_from([(0.4, 0.0), (0.0, 1.0), (1.0, 1.0)]))
def test_mixed_labels_sum_to_one_and_match_the_pixels(seed, policy):
    policy = Augmentation(mixup=policy[0], cutmix=policy[1])
    # Clip i holds the value i everywhere, so that a pixel tells the shares.
    values = np.arange(1, 5, dtype=np.float32)
    clips = np.broadcast_to(values[:, None, None, None, None], (4, 2, 16, 16, 1))
    mixed, labels = mix(jax.random.key(seed), clips, np.eye(4, dtype=np.float32), policy=policy)
    assert (np.asarray(labels) >= 0).all()
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(mixed.mean((1, 2, 3, 4)), labels @ values, rtol=1e-4)
    if not policy.mixup:
        near_whole = np.abs(mixed - np.round(mixed))
        assert near_whole.max() < 1e-5
    np.testing.assert_array_equal(mixed[:, 0], mixed[:, 1])


def test_cutmix_replaces_the_share_that_was_drawn():
    keys = jax.random.split(jax.random.key(0), 4000)
    rectangle = jax.jit(mixing._rectangle, static_argnums=1)
    pasted = jax.vmap(lambda key: rectangle(key, (20, 20), jnp.float32(0.25)))(keys)
    share = pasted.mean((1, 2))
    assert share.max() <= 0.26  # cut at the borders, never larger
    # A side of half the frame, centred anywhere: 7/8 of it remain on average, in each direction.
    np.testing.assert_allclose(share.mean(), 0.25 * (7 / 8) ** 2, rtol=0.03)


# What training relies on


def everything(key, clip):
    return augment(key, clip, EVERYTHING, SIZE)


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_the_same_key_gives_the_same_clip_and_another_key_another(seed):
    clip = jnp.asarray(a_clip())
    first = everything(jax.random.key(seed), clip)
    assert first.shape == (3, *SIZE, 3) and bool(jnp.isfinite(first).all())
    np.testing.assert_array_equal(first, everything(jax.random.key(seed), clip))
    assert not np.array_equal(first, everything(jax.random.key(seed + 1), clip))
    np.testing.assert_array_equal(clip, a_clip())


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_all_frames_change_alike(seed):
    still = np.repeat(a_clip((1, 16, 20, 3), seed), 3, axis=0)
    result = everything(jax.random.key(seed), still)
    np.testing.assert_array_equal(result[0], result[1])
    np.testing.assert_array_equal(result[0], result[2])


def test_vmap_changes_nothing():
    clips = jnp.stack([a_clip(seed=i) for i in range(3)])
    keys = jax.random.split(jax.random.key(5), 3)
    loop = jnp.stack([everything(key, clip) for key, clip in zip(keys, clips, strict=True)])
    mapped = jax.jit(jax.vmap(everything))(keys, clips)
    # RandAugment works on whole values: where a sampled pixel is all but half way between two,
    # the last bit decides.
    assert (np.abs(loop - mapped) < 1e-3).mean() > 0.99


def test_jit_changes_nothing():
    policy = Augmentation(crop="random", rotation=20, contrast=0.4, hue=0.2, erasing=1.0)
    clip, key = a_clip((1, 9, 8, 3)), jax.random.key(5)
    eager = transform.augment(key, clip, policy, (6, 7))
    jitted = augment(key, clip, policy, (6, 7))
    np.testing.assert_allclose(eager, jitted, atol=1e-3)


def test_what_is_off_does_not_change_the_rest():
    clip, key = a_clip(), jax.random.key(9)
    plain = augment(key, clip, Augmentation(crop="random"), SIZE)
    bright = augment(key, clip, Augmentation(crop="random", brightness=0.5), SIZE)
    ratio = (bright * 0.225 + 0.45) / (plain * 0.225 + 0.45)
    unsaturated = np.isfinite(ratio) & (np.asarray(bright) < 2.4)
    np.testing.assert_allclose(ratio[unsaturated], np.median(ratio[unsaturated]), rtol=1e-3)


def test_a_batch_gets_a_key_per_clip_and_mixed_labels():
    clips = jnp.broadcast_to(a_clip(), (4, 3, 16, 20, 3))
    policy = Augmentation(crop="random", mixup=1.0, cutmix=1.0)
    labels = jnp.eye(4)
    pixels, mixed = jax.jit(lambda k: transform.augment_batch(k, clips, labels, policy, SIZE))(
        jax.random.key(0)
    )
    assert pixels.shape == (4, 3, *SIZE, 3) and pixels.dtype == jnp.float32
    np.testing.assert_allclose(mixed.sum(axis=1), 1, rtol=1e-5)
    assert not np.array_equal(mixed, labels)
    policy = Augmentation(crop="random")
    plain, same = jax.jit(lambda k: transform.augment_batch(k, clips, labels, policy, SIZE))(
        jax.random.key(0)
    )
    assert len({np.asarray(clip).tobytes() for clip in plain}) > 1
    np.testing.assert_array_equal(same, labels)


def test_what_is_off_is_not_in_the_program():
    def primitives(policy):
        clip = jax.ShapeDtypeStruct((2, 72, 72, 3), jnp.uint8)
        return str(
            jax.make_jaxpr(lambda k, c: transform.augment(k, c, policy, 64))(
                jax.random.key(0), clip
            )
        )

    center, crop = primitives(Augmentation()), primitives(Augmentation(crop="random"))
    assert "dynamic_slice" in crop
    for program in (center, crop):
        assert "gather" not in program and "scan" not in program and "dot_general" not in program


def test_a_batch_can_be_compiled_for_other_devices():
    policy = dataclasses.replace(EVERYTHING, mixup=0.4, cutmix=1.0)
    function = jax.jit(lambda k, c, y: transform.augment_batch(k, c, y, policy, SIZE))
    shapes = jnp.zeros((2, 3, 16, 20, 3), jnp.uint8), jnp.eye(2)
    exported = jax.export.export(function, platforms=["cuda", "tpu"])(jax.random.key(0), *shapes)
    assert exported.platforms == ("cuda", "tpu")
