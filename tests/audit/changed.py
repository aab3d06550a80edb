"""Changes that make a near-duplicate of an image."""

import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageEnhance

from featurecache.images.decode import decode_image

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def re_encoded(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=int(rng.integers(40, 80)))
    return decode_image(buffer.getvalue())


def resized(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    width, height = image.size
    scale_x, scale_y = rng.uniform(0.92, 1.08, 2)
    return image.resize((round(width * scale_x), round(height * scale_y)))


def brightened(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    brighter = ImageEnhance.Brightness(image).enhance(float(rng.uniform(0.75, 1.15)))
    return ImageEnhance.Contrast(brighter).enhance(float(rng.uniform(0.8, 1.1)))


def shifted(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    dx, dy = rng.integers(-8, 9, 2).tolist()
    return image.transform(image.size, Image.Transform.AFFINE, (1, 0, dx, 0, 1, dy))


def cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    width, height = image.size
    left, top, right, bottom = rng.integers(0, round(0.03 * width), 4).tolist()
    return image.crop((left, top, width - right, height - bottom))


CHANGES: Mapping[str, Change] = {
    "re-encoded": re_encoded,
    "resized": resized,
    "brightened": brightened,
    "shifted": shifted,
    "cropped": cropped,
}
