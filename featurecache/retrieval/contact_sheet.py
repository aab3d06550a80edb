"""The images that a search found, side by side in one picture."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from featurecache.errors import UsageError
from featurecache.images.contact_sheet import Captioned, contact_sheet, thumbnail
from featurecache.images.subprocess_decoder import SubprocessDecoder
from featurecache.io.atomic import new_file
from featurecache.retrieval.query import SearchResult

if TYPE_CHECKING:
    from PIL.Image import Image

_COLUMNS: Final = 5


def draw_result(
    result: SearchResult,
    files: Mapping[str, Path],
    *,
    query_image: str | os.PathLike[str] | None = None,
) -> "Image":
    """Draw the images of a search result, captioned with rank, cosine and labels.

    Args:
        result: The result, of one image or more.
        files: File of each image by its id.
        query_image: Image file to show first, where that was the query.

    Returns:
        An 8-bit gray image.

    Raises:
        UsageError: ``files`` lacks an image of the result.
        ImageError: An image cannot be read.
    """
    decoder = SubprocessDecoder()
    tiles: list[Captioned] = []
    if query_image is not None:
        path = Path(query_image).expanduser()
        (tile,) = decoder.read(path, [thumbnail], name=result.query)
        tiles.append((result.query, tile))
    for image in result.images.to_dict("records"):
        image_id = image["id"]
        if image_id not in files:
            raise UsageError(
                f"the data set lacks the image {image_id!r} of the cache: give the data set, with "
                "the options, that the cache was extracted from"
            )
        caption = f"{image['rank']} {image['cosine']:.3f} {', '.join(image['labels'])}"
        (tile,) = decoder.read(files[image_id], [thumbnail], name=image_id)
        tiles.append((caption, tile))
    return contact_sheet(
        [tiles[start : start + _COLUMNS] for start in range(0, len(tiles), _COLUMNS)]
    )


def save_contact_sheet(
    path: str | os.PathLike[str],
    result: SearchResult,
    files: Mapping[str, Path],
    *,
    query_image: str | os.PathLike[str] | None = None,
) -> None:
    """Write the picture of ``draw_result`` to a PNG file.

    Args:
        path: The file to write.
        result: See ``draw_result``.
        files: See ``draw_result``.
        query_image: See ``draw_result``.

    Raises:
        UsageError: See ``draw_result``.
        ImageError: See ``draw_result``.
    """
    sheet = draw_result(result, files, query_image=query_image)
    with new_file(Path(path)) as temporary:
        sheet.save(temporary, format="PNG")
