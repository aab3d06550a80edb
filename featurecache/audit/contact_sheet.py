"""Near-duplicate images, and images with doubtful labels, side by side for a person to judge."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from featurecache.audit.doubtful_labels import DoubtfulCell
from featurecache.audit.near_duplicates import ImagePair
from featurecache.images.contact_sheet import draw_files, save_png

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PAIRS: Final = 60
MAX_DOUBTFUL: Final = 60
"""Images with doubtful labels that are drawn."""


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


def doubtful_images(cells: Sequence[DoubtfulCell]) -> dict[str, list[str]]:
    """Return the images with the most doubtful labels, and the captions of these labels.

    Args:
        cells: Doubtful labels, most doubtful first.

    Returns:
        For each of the first ``MAX_DOUBTFUL`` images, by id, lines such as "3: Mass negative, p
        0.980": the number of the label in the list (from 1), and the probability of a positive.
    """
    captions: dict[str, list[str]] = {}
    for number, cell in enumerate(cells, start=1):
        if cell.image in captions or len(captions) < MAX_DOUBTFUL:
            value = "positive" if cell.value else "negative"
            captions.setdefault(cell.image, []).append(
                f"{number}: {cell.label} {value}, p {cell.probability:.3f}"
            )
    return captions


def save_doubtful_sheet(
    path: str | os.PathLike[str], cells: Sequence[DoubtfulCell], files: Mapping[str, Path]
) -> None:
    """Draw the images of ``doubtful_images``, five per row, to a PNG file.

    Args:
        path: The file to write.
        cells: One doubtful label or more, most doubtful first.
        files: File of each of these images by its id.

    Raises:
        ImageError: An image cannot be read.
    """
    images = [
        ("\n".join([*lines, image[-30:]]), files[image], image)
        for image, lines in doubtful_images(cells).items()
    ]
    save_png(draw_files(images, columns=5), Path(path))
