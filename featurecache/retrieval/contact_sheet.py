"""The images that a search found, side by side in one picture."""

import os
from collections.abc import Mapping
from pathlib import Path

from featurecache.images.contact_sheet import draw_files, save_png
from featurecache.retrieval.query import SearchResult, lacks_image


def save_contact_sheet(
    path: str | os.PathLike[str],
    result: SearchResult,
    files: Mapping[str, Path],
    *,
    query_image: str | os.PathLike[str] | None = None,
) -> None:
    """Draw the query and the images of a search result, with captions, to a PNG file.

    Args:
        path: The file to write.
        result: The result, of one image or more.
        files: File of each image by its id.
        query_image: Image file, or id of an image, to show first, where that was the query.

    Raises:
        UsageError: ``files`` lacks an image of the result.
        ImageError: An image cannot be read.
    """
    images = []
    if query_image is not None:
        file = files.get(os.fspath(query_image), Path(query_image).expanduser())
        images.append((f"query: {result.query}", file, result.query))
    for image in result.images.to_dict("records"):
        image_id = image["id"]
        if image_id not in files:
            raise lacks_image(image_id)
        person = ", ".join(filter(None, (image[key] for key in ("view", "sex", "age"))))
        caption = [
            f"{image['rank']}: cosine {image['cosine']:.3f}",
            image_id,
            f"patient {image['patient']}, {image['split']}",
            person,
            ", ".join(image["labels"]),
        ]
        images.append(("\n".join(filter(None, caption)), files[image_id], image_id))
    title = "" if query_image is not None else f"query: {result.query}"
    save_png(draw_files(images, columns=5, title=title), Path(path))
