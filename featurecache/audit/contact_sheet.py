"""Near-duplicate images side by side, for a person to judge."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from featurecache.audit.near_duplicates import ImagePair
from featurecache.images.contact_sheet import draw_files, save_png

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PAIRS: Final = 60


def draw_pairs(pairs: Sequence[ImagePair], files: Mapping[str, Path]) -> "Image":
    """Draw the first ``MAX_PAIRS`` pairs, two per row.

    The caption of the first image of a pair is its number in the list (from 1), the similarity and
    the splits; the caption of the second is the end of its id.

    Args:
        pairs: One pair or more.
        files: File of each image by its id.

    Returns:
        An 8-bit gray image.

    Raises:
        ImageError: An image cannot be read.
    """
    images = []
    for number, pair in enumerate(pairs[:MAX_PAIRS], start=1):
        similarity = "" if pair.similarity is None else f" {pair.similarity:.3f}"
        captions = (f"{number}:{similarity} {' and '.join(pair.splits)}", pair.images[1][-30:])
        images += [
            (caption, files[image], image)
            for caption, image in zip(captions, pair.images, strict=True)
        ]
    return draw_files(images, columns=4)


def save_contact_sheet(
    path: str | os.PathLike[str], pairs: Sequence[ImagePair], files: Mapping[str, Path]
) -> None:
    """Write the picture of ``draw_pairs`` to a PNG file.

    Args:
        path: The file to write.
        pairs: See ``draw_pairs``.
        files: See ``draw_pairs``.

    Raises:
        ImageError: See ``draw_pairs``.
    """
    save_png(draw_pairs(pairs, files), Path(path))
