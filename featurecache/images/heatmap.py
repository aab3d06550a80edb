"""Heat maps: values on a grid, drawn in color over an image."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featurecache.images.contact_sheet import THUMBNAIL

COLOR = (255, 122, 0)
OPACITY = 0.7
"""Share of the color where the map is highest."""


def size_and_thumbnail(image: Image.Image) -> NDArray[np.int32]:
    """Return an image's width and height, then the pixels of a small gray copy, in one array.

    The copy is of the height and width that its proportions give, its longer side ``THUMBNAIL``.
    """
    small = image.convert("L")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    sizes = [*image.size, *small.size]
    return np.concatenate([sizes, np.asarray(small).ravel()]).astype(np.int32)


def read_size_and_thumbnail(
    values: NDArray[np.int32],
) -> tuple[tuple[int, int], NDArray[np.uint8]]:
    """Return what ``size_and_thumbnail`` put together: (width, height) and (H, W) pixels."""
    width, height, small_width, small_height = values[:4].tolist()
    return (width, height), values[4:].reshape(small_height, small_width).astype(np.uint8)


def draw_heatmap(
    pixels: NDArray[np.uint8],
    values: NDArray[np.floating],
    area: tuple[float, float, float, float],
) -> NDArray[np.uint8]:
    """Draw a map over an image, (H, W, 3) on a black square: the higher, the more color.

    Args:
        pixels: Gray values, (H, W).
        values: The map, (G, G), by row and column; values below 0 have no color.
        area: Left, upper, right and lower edge of the map, as fractions of the image.
    """
    height, width = pixels.shape
    left, right = (round(edge * width) for edge in area[::2])
    top, bottom = (round(edge * height) for edge in area[1::2])
    highest = max(float(values.max()), 1e-12)
    heat = Image.fromarray((np.clip(values, 0, None) / highest).astype(np.float32))
    canvas = Image.new("F", (width, height))
    size = max(1, right - left), max(1, bottom - top)
    canvas.paste(heat.resize(size, Image.Resampling.BILINEAR), (left, top))
    opacity = OPACITY * np.asarray(canvas)[..., np.newaxis]
    colored = (1 - opacity) * pixels[..., np.newaxis] + opacity * np.array(COLOR)
    return _on_square(np.rint(colored).astype(np.uint8))


def draw_plain(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image without a map as ``draw_heatmap`` returns one with a map."""
    return _on_square(np.repeat(pixels[..., np.newaxis], 3, axis=2))


def _on_square(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    square = np.zeros((THUMBNAIL, THUMBNAIL, 3), dtype=np.uint8)
    top, left = ((THUMBNAIL - side) // 2 for side in pixels.shape[:2])
    square[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return square
