import io

import numpy as np
import pytest
from PIL import Image

from featurecache.images.decode import decode_image
from featurecache.provenance.perceptual_hash import (
    HASH_BYTES,
    MAX_DISTANCE,
    NO_HASH,
    perceptual_hash,
)


def textured(seed: int, side: int = 256) -> Image.Image:
    """Smooth random content, as unlike between seeds as two images can be."""
    noise = np.random.default_rng(seed).integers(0, 256, (24, 24), dtype=np.uint8)
    return Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)


def distance(first: np.ndarray, second: np.ndarray) -> int:
    return int(np.bitwise_count(first ^ second).sum())


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return decode_image(buffer.getvalue())


def test_the_hash_is_that_of_the_published_format():
    from scipy.fft import dctn

    image = textured(0)
    pixels = np.asarray(image.resize((64, 64), Image.Resampling.LANCZOS, reducing_gap=3.0))
    coefficients = dctn(pixels.astype(np.float64))
    pairs = sorted(
        ((u, v) for u in range(64) for v in range(64) if u or v),
        key=lambda p: (p[0] ** 2 + p[1] ** 2, p),
    )
    chosen = np.array([coefficients[pair] for pair in pairs[128:384]])
    expected = np.packbits(chosen > np.median(chosen))
    assert distance(perceptual_hash(image), expected) <= 1  # a tie of rounding
    assert perceptual_hash(image).shape == (HASH_BYTES,)
    assert np.bitwise_count(perceptual_hash(image)).sum() == 128


@pytest.mark.parametrize("factor", [0.5, 2, 4])
@pytest.mark.parametrize("quality", [30, 95])
def test_a_reencoded_and_resized_copy_has_nearly_the_same_hash(factor, quality):
    image = textured(1)
    side = round(256 * factor)
    copy = jpeg(image.resize((side, side), Image.Resampling.BILINEAR), quality)
    assert distance(perceptual_hash(image), perceptual_hash(copy)) <= MAX_DISTANCE


def test_different_images_differ_in_about_half_of_the_bits():
    hashes = [perceptual_hash(textured(seed)) for seed in range(6)]
    distances = [distance(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(distances) > 80


def test_color_and_size_do_not_matter():
    image = textured(2)
    assert np.array_equal(perceptual_hash(image), perceptual_hash(image.convert("RGB")))


@pytest.mark.parametrize("gray", [0, 97, 255])
def test_an_image_of_one_gray_level_has_no_hash(gray):
    assert np.array_equal(perceptual_hash(Image.new("L", (100, 80), gray)), NO_HASH)
    assert np.array_equal(perceptual_hash(jpeg(Image.new("L", (100, 80), gray), 50)), NO_HASH)
