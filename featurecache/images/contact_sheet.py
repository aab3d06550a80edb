"""Films side by side, with captions, for people to look at."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageOps

CAPTION_HEIGHT = 14
GAP = 4
INK = 225
THUMBNAIL = 192

Captioned = tuple[str, npt.NDArray[np.uint8]]
"""A caption, and the (H, W) film that it stands over."""


def contact_sheet(rows: Sequence[Sequence[Captioned]]) -> Image.Image:
    """Lay films of one size out in rows on black, as an 8-bit grey image.

    Raises:
        ValueError: there is no film, or their sizes differ.
    """
    shapes = {film.shape for row in rows for _, film in row}
    if len(shapes) != 1:
        raise ValueError(f"a contact sheet needs films of one size, not of {len(shapes)}")
    ((height, width),) = shapes
    step_x, step_y = width + GAP, height + CAPTION_HEIGHT + GAP
    sheet = Image.new("L", (max(map(len, rows)) * step_x - GAP, len(rows) * step_y - GAP))
    for i, row in enumerate(rows):
        for j, (caption, film) in enumerate(row):
            # On a strip of its own: a long caption ends with its film, not on the next one.
            strip = Image.new("L", (width, CAPTION_HEIGHT))
            ImageDraw.Draw(strip).text((2, 1), caption, fill=INK)
            sheet.paste(strip, (j * step_x, i * step_y))
            sheet.paste(Image.fromarray(film), (j * step_x, i * step_y + CAPTION_HEIGHT))
    return sheet


def thumbnail(film: Image.Image) -> npt.NDArray[np.uint8]:
    """A film of any shape as a small grey square, whole, centred on black."""
    square = ImageOps.pad(film.convert("L"), (THUMBNAIL, THUMBNAIL), color=0)
    return np.asarray(square, dtype=np.uint8)
