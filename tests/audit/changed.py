"""What happens to films between two folders."""

import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageEnhance

from featurecache.images.decode import decode_image

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def re_encoded(film: Image.Image, rng: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    film.save(buffer, format="JPEG", quality=int(rng.integers(40, 80)))
    return decode_image(buffer.getvalue())


def resized(film: Image.Image, rng: np.random.Generator) -> Image.Image:
    width, height = film.size
    across, down = rng.uniform(0.92, 1.08, 2)
    return film.resize((round(width * across), round(height * down)))


def brightened(film: Image.Image, rng: np.random.Generator) -> Image.Image:
    brighter = ImageEnhance.Brightness(film).enhance(float(rng.uniform(0.75, 1.15)))
    return ImageEnhance.Contrast(brighter).enhance(float(rng.uniform(0.8, 1.1)))


def shifted(film: Image.Image, rng: np.random.Generator) -> Image.Image:
    across, down = rng.integers(-8, 9, 2).tolist()
    return film.transform(film.size, Image.Transform.AFFINE, (1, 0, across, 0, 1, down))


def cropped(film: Image.Image, rng: np.random.Generator) -> Image.Image:
    width, height = film.size
    left, top, right, bottom = rng.integers(0, round(0.03 * width), 4).tolist()
    return film.crop((left, top, width - right, height - bottom))


CHANGES: Mapping[str, Change] = {
    "re-encoded": re_encoded,
    "resized": resized,
    "brightened": brightened,
    "shifted": shifted,
    "cropped": cropped,
}
