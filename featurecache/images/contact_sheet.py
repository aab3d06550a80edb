"""Contact sheets: images side by side with captions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from featurecache.images.subprocess_decoder import SubprocessDecoder
from featurecache.io.atomic import new_file

LINE_HEIGHT = 14
GAP = 4
INK = 225
THUMBNAIL = 192
_MARGIN = 2

Captioned = tuple[str, NDArray[np.uint8]]
"""A caption, and the (H, W) or (H, W, 3) image below it."""


def contact_sheet(rows: Sequence[Sequence[Captioned]], *, title: str = "") -> Image.Image:
    """Lay out images of equal size in rows on black, as one 8-bit grayscale or color image.

    Args:
        rows: Images with captions, which are wrapped to the width of the image; rows may have
            different lengths.
        title: Line above the images; none if empty.

    Raises:
        ValueError: There is no image, or their sizes differ.
    """
    shapes = {pixels.shape for row in rows for _, pixels in row}
    if len(shapes) != 1:
        raise ValueError(f"a contact sheet needs images of one size, not of {len(shapes)}")
    ((height, width, *channels),) = shapes
    step = width + GAP
    sheet_width = max(map(len, rows)) * step - GAP
    heading = wrap(title, sheet_width)
    captions = [[wrap(caption, width) for caption, _ in row] for row in rows]
    # A row is as high as its longest caption, and never without one line.
    caption_heights = [LINE_HEIGHT * max(1, *map(len, row)) for row in captions]
    tops = np.cumsum([LINE_HEIGHT * len(heading), *(h + height + GAP for h in caption_heights)])
    sheet = Image.new("RGB" if channels else "L", (sheet_width, int(tops[-1]) - GAP))
    draw = ImageDraw.Draw(sheet)
    _draw_lines(draw, heading, 0, 0)
    for row, lines, top, caption_height in zip(rows, captions, tops, caption_heights, strict=False):
        for j, (_, pixels) in enumerate(row):
            _draw_lines(draw, lines[j], j * step, int(top))
            sheet.paste(Image.fromarray(pixels), (j * step, int(top) + caption_height))
    return sheet


def wrap(text: str, width: int) -> list[str]:
    """Return the lines of a text that fit into a width in pixels; long words are broken."""
    draw = ImageDraw.Draw(Image.new("L", (1, 1)))

    def fits(line: str) -> bool:
        return draw.textlength(line) <= width - 2 * _MARGIN

    lines = []
    for paragraph in filter(None, text.split("\n")):
        line = ""
        for word in paragraph.split(" "):
            if line and not fits(f"{line} {word}"):
                lines.append(line)
                line = word
            else:
                line = f"{line} {word}" if line else word
            while len(line) > 1 and not fits(line):
                end = next(n for n in range(len(line) - 1, 0, -1) if n == 1 or fits(line[:n]))
                lines.append(line[:end])
                line = line[end:]
        lines.append(line)
    return lines


def _draw_lines(draw: ImageDraw.ImageDraw, lines: Sequence[str], left: int, top: int) -> None:
    ink = INK if draw.mode == "L" else (INK,) * 3
    for number, line in enumerate(lines):
        draw.text((left + _MARGIN, top + number * LINE_HEIGHT + 1), line, fill=ink)


def draw_files(
    images: Sequence[tuple[str, Path, str]], *, columns: int, title: str = ""
) -> Image.Image:
    """Read image files and lay them out in rows.

    Args:
        images: Caption, file, and name in error messages of each image.
        columns: Number of images in a row.
        title: Line above the images; none if empty.

    Raises:
        ImageError: An image cannot be read.
    """
    decoder = SubprocessDecoder()
    tiles = [(caption, read_thumbnail(decoder, file, name=name)) for caption, file, name in images]
    rows = [tiles[row : row + columns] for row in range(0, len(tiles), columns)]
    return contact_sheet(rows, title=title)


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
