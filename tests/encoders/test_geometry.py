"""``geometry``: where the pixels of a network lie in the image, read off the pixels themselves."""

import json

import numpy as np
import pytest
import transformers
from PIL import Image

from featurecache.encoders import medclip
from featurecache.encoders.geometry import Geometry
from featurecache.encoders.pretrained import ImageProcessor

SIZES = ((300, 200), (200, 300), (160, 90), (230, 230))
CASES = {
    "crop": ("CLIP", {"size": {"shortest_edge": 61}, "crop_size": {"height": 33, "width": 40}}),
    "dinov2": ("Bit", {"size": {"shortest_edge": 256}}),
    "stretch": ("Siglip", {"size": {"height": 90, "width": 131}}),
    "no crop": ("CLIP", {"size": {"shortest_edge": 61}, "do_center_crop": False}),
}


def seen_area(preprocess, width: int, height: int) -> list[float]:
    """Return left, upper, right and lower edge that an image's network sees.

    Each pixel of a ramp is its own coordinate. Where there is padding, the ramp is extrapolated.
    """
    edges = []
    for axis, length in ((1, width), (0, height)):
        ramp = (np.arange(length) + 0.5) / length * 200 + 28
        image = np.broadcast_to(ramp if axis == 1 else ramp[:, np.newaxis], (height, width))
        # In the middle: beside padding, filters overshoot.
        constant = (preprocess(Image.new("L", (width, height), gray))[0] for gray in (28, 228))
        low, high = (pixels[len(pixels) // 2, pixels.shape[1] // 2] for pixels in constant)
        pixels = preprocess(Image.fromarray(np.rint(image).astype(np.uint8)))[0]
        middle = pixels[pixels.shape[0] // 2] if axis == 1 else pixels[:, pixels.shape[1] // 2]
        value = (middle - low) / (high - low)
        # Where padding begins, the ramp mixes with black.
        step = np.gradient(value)
        is_ramp = np.abs(step - np.median(step[value > 0.1])) < 0.5 / len(value)
        inside = np.flatnonzero(is_ramp & (value > 0.1) & (value < 0.9))
        slope, start = np.polyfit(inside + 0.5, value[inside] * length, 1)
        edges.append((start, start + slope * len(value)))
    (left, right), (top, bottom) = edges
    return [left, top, right, bottom]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("resize", ["published", "pad", "stretch"])
@pytest.mark.parametrize("case", CASES)
def test_area_is_that_of_the_pixels(case: str, resize: str, size: tuple[int, int], tmp_path):
    family, settings = CASES[case]
    name = f"{family}ImageProcessor"
    kind = getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
    kind(**settings).save_pretrained(tmp_path)
    processor = ImageProcessor(tmp_path, resize=resize)
    assert processor.geometry is not None
    assert processor.geometry == Geometry.from_json(
        json.loads(json.dumps(processor.geometry.to_json()))
    )
    assert processor.geometry.area(*size) == pytest.approx(seen_area(processor, *size), abs=1.5)


@pytest.mark.parametrize("size", [*SIZES, (100, 60)], ids=str)
def test_area_of_medclip_has_padding(size: tuple[int, int]):
    expected = seen_area(medclip._preprocess, *size)
    assert medclip.PADDED.area(*size) == pytest.approx(expected, abs=1.5)


def test_unknown_steps_have_no_geometry(tmp_path):
    transformers.ConvNextImageProcessor().save_pretrained(tmp_path)
    assert ImageProcessor(tmp_path).geometry is None
