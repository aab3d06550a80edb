"""Augmentation against scipy's interpolation and cases worked out by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import affine_transform

from featurecache.finetune.augmentation import Distortion, augment, distort, draw_distortion

# ImageNet's, as most encoders have them: each channel has a scale of its own.
MEAN = np.array([0.485, 0.456, 0.406])[:, None, None]
STD = np.array([0.229, 0.224, 0.225])[:, None, None]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    # Two threads on a busy machine spend their time waiting for each other.
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def films(count, *, height=16, width=20, seed=0):
    """Normalised grey images, (B, 3, H, W)."""
    grey = np.random.default_rng(seed).uniform(size=(count, 1, height, width))
    return torch.tensor((grey - MEAN) / STD, dtype=torch.float32)


def by_scipy(image, distortion):
    """One (C, H, W) image, channel by channel, in pixels from the image's centre."""
    height, width = image.shape[1:]
    angle = np.deg2rad(distortion.angle)
    # Rows run downwards: from (right, down), this turns clockwise.
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    back = np.linalg.inv(distortion.scale * turn)  # of (down, right)
    shift = np.array([distortion.down * height, distortion.right * width])
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    offset = centre - back @ (centre + shift)
    moved = np.stack(
        [affine_transform(c, back, offset=offset, order=1, mode="nearest") for c in image]
    )
    mean = moved.mean(axis=(1, 2), keepdims=True)
    value_range = np.ptp(moved, axis=(1, 2), keepdims=True)
    return mean + distortion.contrast * (moved - mean) + distortion.brightness * value_range


@settings(deadline=None, max_examples=60)
@given(
    angle=st.floats(-60, 60),
    right=st.floats(-0.4, 0.4),
    down=st.floats(-0.4, 0.4),
    scale=st.floats(0.6, 1.6),
    brightness=st.floats(-0.5, 0.5),
    contrast=st.floats(0.5, 1.5),
    size=st.sampled_from([(9, 9), (8, 13), (12, 7)]),
)
def test_a_distortion_is_what_scipy_makes_of_it(
    angle, right, down, scale, brightness, contrast, size
):
    pixels = films(1, height=size[0], width=size[1]).double()
    distortion = Distortion(angle, right, down, scale, brightness, contrast)
    actual = distort(pixels, [distortion])[0].numpy()
    np.testing.assert_allclose(actual, by_scipy(pixels[0].numpy(), distortion), atol=1e-9)


def test_no_distortion_leaves_the_image_as_it_is():
    pixels = films(2)
    torch.testing.assert_close(distort(pixels, [Distortion()] * 2), pixels, rtol=0, atol=1e-5)


def test_a_shift_repeats_the_border_that_it_leaves():
    rows = [[1.0, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]
    pixels = torch.tensor(rows)[None, None]
    right = distort(pixels, [Distortion(right=1 / 4)])[0, 0]
    down = distort(pixels, [Distortion(down=1 / 3)])[0, 0]
    expected = [[1.0, 1, 2, 3], [5, 5, 6, 7], [9, 9, 10, 11]]
    np.testing.assert_allclose(right.numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(down.numpy(), [rows[0], rows[0], rows[1]], atol=1e-4)


def test_a_positive_angle_turns_clockwise():
    pixels = torch.zeros(1, 1, 3, 3)
    pixels[0, 0, 0, 1] = 1  # noon
    turned = distort(pixels, [Distortion(angle=90)])[0, 0]
    expected = torch.zeros(3, 3)
    expected[1, 2] = 1  # three o'clock
    torch.testing.assert_close(turned, expected, rtol=0, atol=1e-5)


def test_contrast_and_brightness_are_about_the_mean_and_in_ranges():
    pixels = torch.tensor([[[[0.0, 1.0], [2.0, 5.0]]]])
    changed = distort(pixels, [Distortion(brightness=0.1, contrast=1.1)])
    # The mean is 2, the range 5.
    expected = [[2 - 2.2 + 0.5, 2 - 1.1 + 0.5], [2 + 0.5, 2 + 3.3 + 0.5]]
    np.testing.assert_allclose(changed[0, 0].numpy(), expected, atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**9))
def test_a_grey_film_stays_grey(seed):
    augmented = augment(films(1), [seed])[0].double().numpy() * STD + MEAN
    np.testing.assert_allclose(augmented[1:], augmented[:2], atol=1e-5)


@pytest.mark.parametrize("oblong", [(32, 32), (24, 40)])
def test_left_stays_left_and_top_stays_top(oblong):
    height, width = oblong
    # A marker in a corner, as radiographers set one.
    pixels = torch.zeros(1, 1, height, width)
    pixels[..., height // 8 : height // 4, width // 8 : width // 4] = 1
    augmented = augment(pixels.expand(500, -1, -1, -1), range(500))
    weight = (augmented - augmented.amin(dim=(2, 3), keepdim=True))[:, 0]
    corner = weight[:, : height // 2, : width // 2].sum(dim=(1, 2))
    assert (corner > 0.99 * weight.sum(dim=(1, 2))).all()


def test_what_is_drawn_fills_its_ranges_and_stays_within():
    drawn = [draw_distortion(seed) for seed in range(4000)]
    for part, low, high in (
        ("angle", -7, 7),
        ("right", -0.04, 0.04),
        ("down", -0.04, 0.04),
        ("scale", 0.95, 1.05),
        ("brightness", -0.1, 0.1),
        ("contrast", 0.9, 1.1),
    ):
        counts, _ = np.histogram([getattr(d, part) for d in drawn], bins=10, range=(low, high))
        assert counts.sum() == len(drawn), part
        # 400 each, with a standard deviation of 19.
        assert (abs(counts - 400) < 100).all(), part
    parts = np.array([list(vars(d).values()) for d in drawn])
    correlation = np.corrcoef(parts.T) - np.eye(parts.shape[1])
    assert abs(correlation).max() < 0.1


@settings(deadline=None, max_examples=30)
@given(rows=st.lists(st.integers(0, 9), min_size=1, max_size=10))
def test_an_image_is_the_same_in_any_batch(rows):
    pixels = films(10)
    seeds = [(7, 3, row) for row in range(10)]
    alone = [augment(pixels[row : row + 1], [seeds[row]])[0] for row in rows]
    assert torch.equal(augment(pixels[rows], [seeds[row] for row in rows]), torch.stack(alone))


def test_the_seed_decides_and_the_callers_random_numbers_do_not():
    pixels = films(1)
    torch.manual_seed(1)
    first = augment(pixels, [(5, 2)])
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(augment(pixels, [(5, 2)]), first)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.allclose(augment(pixels, [(5, 3)]), first, atol=1e-2)


def test_images_are_placed_as_finely_under_autocast():
    pixels = films(2, height=64, width=64)
    expected = augment(pixels, [1, 2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(augment(pixels, [1, 2]), expected)


def test_a_seed_is_needed_for_each_image():
    with pytest.raises(ValueError, match="2 distortions or seeds for 3 images"):
        augment(films(3), [1, 2])
