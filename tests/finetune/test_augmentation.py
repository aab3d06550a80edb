"""Augmentation compared with SciPy's interpolation and with cases computed by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import affine_transform

from featurecache.finetune.augmentation import Distortion, augment, distort, random_distortion

# ImageNet's, which most encoders use: each channel has a different scale.
MEAN = np.array([0.485, 0.456, 0.406])[:, None, None]
STD = np.array([0.229, 0.224, 0.225])[:, None, None]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    # Two threads wait for each other on a busy machine.
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def gray_images(count, *, height=16, width=20, seed=0):
    """Normalized gray images, (B, 3, H, W)."""
    gray = np.random.default_rng(seed).uniform(size=(count, 1, height, width))
    return torch.tensor((gray - MEAN) / STD, dtype=torch.float32)


def distort_with_scipy(image, distortion):
    """Distort one (C, H, W) image, in pixels from its center."""
    height, width = image.shape[1:]
    angle = np.deg2rad(distortion.angle)
    # Rows run downwards: from (right, down), this turns clockwise.
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    back = np.linalg.inv(distortion.scale * rotation)  # of (down, right)
    shift = np.array([distortion.down * height, distortion.right * width])
    center = np.array([(height - 1) / 2, (width - 1) / 2])
    offset = center - back @ (center + shift)
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
def test_distortion_agrees_with_scipy(angle, right, down, scale, brightness, contrast, size):
    pixels = gray_images(1, height=size[0], width=size[1]).double()
    distortion = Distortion(angle, right, down, scale, brightness, contrast)
    actual = distort(pixels, [distortion])[0].numpy()
    np.testing.assert_allclose(actual, distort_with_scipy(pixels[0].numpy(), distortion), atol=1e-9)


def test_identity_leaves_image_unchanged():
    pixels = gray_images(2)
    torch.testing.assert_close(distort(pixels, [Distortion()] * 2), pixels, rtol=0, atol=1e-5)


def test_shift_repeats_border():
    rows = [[1.0, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]
    pixels = torch.tensor(rows)[None, None]
    right = distort(pixels, [Distortion(right=1 / 4)])[0, 0]
    down = distort(pixels, [Distortion(down=1 / 3)])[0, 0]
    expected = [[1.0, 1, 2, 3], [5, 5, 6, 7], [9, 9, 10, 11]]
    np.testing.assert_allclose(right.numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(down.numpy(), [rows[0], rows[0], rows[1]], atol=1e-4)


def test_positive_angle_is_clockwise():
    pixels = torch.zeros(1, 1, 3, 3)
    pixels[0, 0, 0, 1] = 1  # noon
    turned = distort(pixels, [Distortion(angle=90)])[0, 0]
    expected = torch.zeros(3, 3)
    expected[1, 2] = 1  # three o'clock
    torch.testing.assert_close(turned, expected, rtol=0, atol=1e-5)


def test_contrast_is_about_mean_and_brightness_in_ranges():
    pixels = torch.tensor([[[[0.0, 1.0], [2.0, 5.0]]]])
    changed = distort(pixels, [Distortion(brightness=0.1, contrast=1.1)])
    # The mean is 2, the range 5.
    expected = [[2 - 2.2 + 0.5, 2 - 1.1 + 0.5], [2 + 0.5, 2 + 3.3 + 0.5]]
    np.testing.assert_allclose(changed[0, 0].numpy(), expected, atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**9))
def test_gray_image_stays_gray(seed):
    augmented = augment(gray_images(1), [seed])[0].double().numpy() * STD + MEAN
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


def test_random_distortions_are_uniform_over_their_ranges():
    distortions = [random_distortion(seed) for seed in range(4000)]
    for part, low, high in (
        ("angle", -7, 7),
        ("right", -0.04, 0.04),
        ("down", -0.04, 0.04),
        ("scale", 0.95, 1.05),
        ("brightness", -0.1, 0.1),
        ("contrast", 0.9, 1.1),
    ):
        counts, _ = np.histogram(
            [getattr(d, part) for d in distortions], bins=10, range=(low, high)
        )
        assert counts.sum() == len(distortions), part
        # 400 each, with a standard deviation of 19.
        assert (abs(counts - 400) < 100).all(), part
    parts = np.array([list(vars(d).values()) for d in distortions])
    correlation = np.corrcoef(parts.T) - np.eye(parts.shape[1])
    assert abs(correlation).max() < 0.1


@settings(deadline=None, max_examples=30)
@given(rows=st.lists(st.integers(0, 9), min_size=1, max_size=10))
def test_result_does_not_depend_on_batch(rows):
    pixels = gray_images(10)
    seeds = [(7, 3, row) for row in range(10)]
    alone = [augment(pixels[row : row + 1], [seeds[row]])[0] for row in rows]
    assert torch.equal(augment(pixels[rows], [seeds[row] for row in rows]), torch.stack(alone))


def test_seed_decides_and_global_generator_is_untouched():
    pixels = gray_images(1)
    torch.manual_seed(1)
    first = augment(pixels, [(5, 2)])
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(augment(pixels, [(5, 2)]), first)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.allclose(augment(pixels, [(5, 3)]), first, atol=1e-2)


def test_autocast_does_not_change_positions():
    pixels = gray_images(2, height=64, width=64)
    expected = augment(pixels, [1, 2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(augment(pixels, [1, 2]), expected)


def test_missing_seed_is_refused():
    with pytest.raises(ValueError, match="2 distortions or seeds for 3 images"):
        augment(gray_images(3), [1, 2])
