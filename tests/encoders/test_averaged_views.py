"""The mean of embeddings of several views of an image."""

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import affine_transform

import featurecache as fc
from featurecache.encoders.averaged_views import DEGREES, SCALE, SHIFT, View, draw_views
from featurecache.errors import UsageError


def picture(width: int = 90, height: int = 60) -> Image.Image:
    pixels = np.random.default_rng(3).integers(0, 256, (height // 10, width // 10), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    "view", [View(degrees=5), View(scale=1.05), View(shift=(0.05, -0.1)), View(-4, 0.96, (0.03, 0))]
)
def test_view_is_the_affine_map_about_the_center(view: View) -> None:
    image = picture()
    angle = np.deg2rad(view.degrees)
    # Where a pixel of the result comes from, in (row, column), with pixel centers at whole numbers.
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / view.scale
    center = (np.array(image.size[::-1]) - 1) / 2
    shift = np.array([view.shift[1] * image.height, view.shift[0] * image.width])
    want = affine_transform(
        np.asarray(image, dtype=float), turn, center - turn @ (center + shift), order=1
    )
    inside = (slice(12, -12), slice(12, -12))
    got = np.asarray(view.apply(image), dtype=float)
    assert np.abs(got - want)[inside].max() < 2


def test_rotation_is_counterclockwise_and_shift_is_to_the_right_and_down() -> None:
    dot = Image.new("L", (101, 101))
    dot.putpixel((80, 50), 255)  # right of the center
    row, column = np.unravel_index(np.asarray(View(degrees=90).apply(dot)).argmax(), (101, 101))
    assert (row, column) == (20, 50)  # above it
    row, column = np.unravel_index(
        np.asarray(View(shift=(10 / 101, 5 / 101)).apply(dot)).argmax(), (101, 101)
    )
    assert (row, column) == (55, 90)


def test_views_are_drawn_once_within_bounds_and_the_first_is_the_image() -> None:
    views = draw_views(16)
    assert views[0] == View()
    assert draw_views(5) == views[:5]
    assert len(set(views)) == 16
    for view in views[1:]:
        assert abs(view.degrees) <= DEGREES
        assert abs(view.scale - 1) <= SCALE
        assert max(map(abs, view.shift)) <= SHIFT
    image = picture()
    assert view_is_unchanged(image)


def view_is_unchanged(image: Image.Image) -> bool:
    return bool((np.asarray(View().apply(image)) == np.asarray(image)).all())


@pytest.mark.parametrize("features", ["projected", "layers:-1,-2+mean"])
def test_embedding_is_the_mean_over_views(features: str) -> None:
    images = [picture(), picture(64, 64)]
    plain = fc.load_encoder("tiny", device="cpu", features=features)
    averaged = fc.load_encoder("tiny", device="cpu", features=features, views=3)
    changed = [[view.apply(image) for view in draw_views(3)] for image in images]
    want = [plain.encode_images(views).mean(axis=0) for views in changed]
    np.testing.assert_allclose(averaged.encode_images(images), want, rtol=1e-5, atol=1e-6)
    assert averaged.cache_name == f"{plain.cache_name}.views-3"
    assert {name: value for name, value in averaged.image_spec.items() if "view" not in name} == (
        plain.image_spec
    )
    assert averaged.image_spec["views"] == 3
    assert averaged.text_spec == plain.text_spec
    np.testing.assert_array_equal(averaged.encode_texts(["edema"]), plain.encode_texts(["edema"]))


def test_views_that_have_no_mean_are_refused() -> None:
    with pytest.raises(UsageError, match="tokens of several views are of different places"):
        fc.load_encoder("tiny", features="tokens:2", views=2)
    for number in (0, 33):
        with pytest.raises(UsageError, match=f"`views` is {number}: must be 1 to 32"):
            fc.load_encoder("tiny", views=number)
    with pytest.raises(UsageError, match="`views` to load_encoder"):
        fc.extract("phantom", fc.load_encoder("tiny"), views=2)
