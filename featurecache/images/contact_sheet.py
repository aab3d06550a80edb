"""Contact sheets: images side by side with captions."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageOps

CAPTION_HEIGHT = 14
GAP = 4
INK = 225
THUMBNAIL = 192

Captioned = tuple[str, npt.NDArray[np.uint8]]
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


def thumbnail(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Return an image of any shape as a small grayscale square, centered on black."""
    square = ImageOps.pad(image.convert("L"), (THUMBNAIL, THUMBNAIL), color=0)
    return np.asarray(square, dtype=np.uint8)
