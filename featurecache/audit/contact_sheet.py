"""Near-duplicate images side by side, for a person to judge."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from featurecache.audit.near_duplicates import ImagePair
from featurecache.images.contact_sheet import Captioned, contact_sheet, thumbnail
from featurecache.images.subprocess_decoder import SubprocessDecoder
from featurecache.io.atomic import new_file

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PAIRS: Final = 60

_PAIRS_PER_ROW: Final = 2


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
    decoder = SubprocessDecoder()
    tiles = [
        _draw_pair(number, pair, files, decoder)
        for number, pair in enumerate(pairs[:MAX_PAIRS], start=1)
    ]
    return contact_sheet(
        [
            [tile for pair in tiles[start : start + _PAIRS_PER_ROW] for tile in pair]
            for start in range(0, len(tiles), _PAIRS_PER_ROW)
        ]
    )


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
    sheet = draw_pairs(pairs, files)
    with new_file(Path(path)) as temporary:
        sheet.save(temporary, format="PNG")


def _draw_pair(
    number: int, pair: ImagePair, files: Mapping[str, Path], decoder: SubprocessDecoder
) -> list[Captioned]:
    similarity = "" if pair.similarity is None else f" {pair.similarity:.3f}"
    captions = (f"{number}:{similarity} {' and '.join(pair.splits)}", pair.images[1][-30:])
    tiles: list[Captioned] = []
    for caption, image in zip(captions, pair.images, strict=True):
        (tile,) = decoder.read(files[image], [thumbnail], name=image)
        tiles.append((caption, tile))
    return tiles
