"""Contact sheets: images side by side with captions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from featurecache.images.subprocess_decoder import SubprocessDecoder
from featurecache.io.atomic import new_file

CAPTION_HEIGHT = 14
GAP = 4
INK = 225
THUMBNAIL = 192

Captioned = tuple[str, NDArray[np.uint8]]
"""A caption, and the (H, W) image below it."""


def contact_sheet(rows: Sequence[Sequence[Captioned]]) -> Image.Image:
    """Lay out images of equal size in rows on black, as one 8-bit grayscale image.

    Args:
        rows: Images with captions; rows may have different lengths.

    Raises:
        ValueError: There is no image, or their sizes differ.
    """
    shapes = {pixels.shape for row in rows for _, pixels in row}
    if len(shapes) != 1:
        raise ValueError(f"a contact sheet needs images of one size, not of {len(shapes)}")
    ((height, width),) = shapes
    step_x, step_y = width + GAP, height + CAPTION_HEIGHT + GAP
    sheet = Image.new("L", (max(map(len, rows)) * step_x - GAP, len(rows) * step_y - GAP))
    for i, row in enumerate(rows):
        for j, (caption, pixels) in enumerate(row):
            # On its own strip, a long caption is cut off at its image's edge.
            strip = Image.new("L", (width, CAPTION_HEIGHT))
            ImageDraw.Draw(strip).text((2, 1), caption, fill=INK)
            sheet.paste(strip, (j * step_x, i * step_y))
            sheet.paste(Image.fromarray(pixels), (j * step_x, i * step_y + CAPTION_HEIGHT))
    return sheet


def draw_files(images: Sequence[tuple[str, Path, str]], *, columns: int) -> Image.Image:
    """Read image files and lay them out in rows.

    Args:
        images: Caption, file, and name in error messages of each image.
        columns: Number of images in a row.

    Raises:
        ImageError: An image cannot be read.
    """
    decoder = SubprocessDecoder()
    tiles = [(caption, read_thumbnail(decoder, file, name=name)) for caption, file, name in images]
    return contact_sheet([tiles[row : row + columns] for row in range(0, len(tiles), columns)])


def save_png(sheet: Image.Image, path: Path) -> None:
    """Write a picture to a PNG file, completely or not at all."""
    with new_file(path) as temporary:
        sheet.save(temporary, format="PNG")


def read_thumbnail(
    decoder: SubprocessDecoder, file: Path, *, name: str | None = None
) -> NDArray[np.uint8]:
    """Return the thumbnail of an image file, scaled to the bits that it uses itself.

    Args:
        decoder: Reads the file.
        file: The image file.
        name: Name of the image in error messages; None for the bare reason.

    Raises:
        ImageError: The image cannot be read.
    """
    bit_depth = decoder.used_bits(file, name=name)
    (pixels,) = decoder.read(file, [thumbnail], bit_depth=bit_depth, name=name)
    return pixels


def thumbnail(image: Image.Image) -> NDArray[np.uint8]:
    """Return an image of any shape as a small grayscale square, centered on black."""
    square = ImageOps.pad(image.convert("L"), (THUMBNAIL, THUMBNAIL), color=0)
    return np.asarray(square, dtype=np.uint8)
