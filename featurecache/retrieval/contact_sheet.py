"""The images that a search found, side by side in one picture."""

import os
from collections.abc import Mapping
from pathlib import Path

from featurecache.errors import UsageError
from featurecache.images.contact_sheet import draw_files, save_png
from featurecache.retrieval.query import SearchResult


def save_contact_sheet(
    path: str | os.PathLike[str],
    result: SearchResult,
    files: Mapping[str, Path],
    *,
    query_image: str | os.PathLike[str] | None = None,
) -> None:
    """Draw the images of a search result, captioned with rank, cosine and labels, to a PNG file.

    Args:
        path: The file to write.
        result: The result, of one image or more.
        files: File of each image by its id.
        query_image: Image file to show first, where that was the query.

    Raises:
        UsageError: ``files`` lacks an image of the result.
        ImageError: An image cannot be read.
    """
    images = []
    if query_image is not None:
        images.append((result.query, Path(query_image).expanduser(), result.query))
    for image in result.images.to_dict("records"):
        image_id = image["id"]
        if image_id not in files:
            raise UsageError(
                f"the data set lacks the image {image_id!r} of the cache: give the data set, with "
                "the options, that the cache was extracted from"
            )
        caption = f"{image['rank']} {image['cosine']:.3f} {', '.join(image['labels'])}"
        images.append((caption, files[image_id], image_id))
    save_png(draw_files(images, columns=5), Path(path))
