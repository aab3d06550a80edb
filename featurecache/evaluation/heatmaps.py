"""Pictures of where a head looks: its attention drawn over images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurecache.encoders.geometry import Geometry
from featurecache.errors import UsageError
from featurecache.features import Features, parse_features
from featurecache.images.contact_sheet import contact_sheet, save_png
from featurecache.images.heatmap import (
    draw_heatmap,
    draw_plain,
    read_size_and_thumbnail,
    size_and_thumbnail,
)
from featurecache.images.subprocess_decoder import SubprocessDecoder
from featurecache.io.atomic import cut_name, longest_name, make_folder, require_short_name
from featurecache.runs.prediction import ImageFiles
from featurecache.store.layout import to_file_name

_COLUMNS = 5


def check_attention(spec: Mapping[str, Any], *, by_study: bool, argument: str) -> None:
    """Check that a model has attention to known places of an image.

    Args:
        spec: Image spec of its encoder.
        by_study: Whether it scores studies.
        argument: The argument that needs it, for the message.

    Raises:
        UsageError: It has none.
    """
    if by_study:
        raise UsageError(
            f"`{argument}` is for a model of images, and this is one of studies: train the head at "
            "the `level` image"
        )
    if "geometry" not in spec:
        raise UsageError(
            "the head takes one vector of each image, or it is not known which part of an image "
            f"the encoder sees: leave out `{argument}`, or train the head attentive on a cache of "
            "tokens"
        )


def make_heatmap_folder(folder: Path, images: ImageFiles) -> None:
    """Create the folder of heat maps, before anything is computed.

    Args:
        folder: The folder.
        images: The images.

    Raises:
        UsageError: The folder is a file, its name is too long, or pictures in it would be taken for
            images of the next call.
        OSError: It cannot be created.
    """
    require_short_name(folder, argument="heatmap")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: give a folder as `heatmap`")
    target = folder.resolve()
    if target in {path.resolve().parent for path in images.paths} or any(
        target.is_relative_to(one.resolve()) for one in images.folders
    ):
        raise UsageError(
            f"{folder} is among the images, and pictures in it would be taken for more of them: "
            "give another folder as `heatmap`"
        )
    make_folder(folder)


def above_even(attention: NDArray[np.floating], features: Features) -> NDArray[np.floating]:
    """Return how far attention to tokens, (..., T), is above even, (..., G, G).

    Attention that is the same everywhere has no color.
    """
    return features.on_grid(attention - 1 / attention.shape[-1])


def draw_over(
    size_and_pixels: NDArray[np.int32], maps: NDArray[np.floating], geometry: Geometry
) -> list[NDArray[np.uint8]]:
    """Return an image as it is, then with each map over it, as squares in color.

    Args:
        size_and_pixels: What ``size_and_thumbnail`` returned of the image.
        maps: Values by row and column of what the network sees, (K, G, G); the higher, the more
            color, and none for those below 0.
        geometry: Which part of an image the network sees.
    """
    (width, height), pixels = read_size_and_thumbnail(size_and_pixels)
    left, top, right, bottom = geometry.area(width, height)
    area = left / width, top / height, right / width, bottom / height
    return [draw_plain(pixels), *(draw_heatmap(pixels, one, area) for one in maps)]


def save_heatmap(
    folder: Path,
    number: int,
    file: Path,
    *,
    attention: NDArray[np.floating],
    captions: Sequence[str],
    spec: Mapping[str, Any],
    bit_depth: int | None,
) -> Path:
    """Draw an image, and the attention of each label over it, to a PNG file.

    Attention is colored where it is above that of a head that looks at all tokens alike, the more
    so the nearer it is to the label's highest.

    Args:
        folder: Where the picture is written, under the number and the name of the image, as much of
            it as the file system takes.
        number: Number of the image, from 1.
        file: The image file.
        attention: Attention of the labels to the tokens, (C, T).
        captions: What is written above each label's map, (C,).
        spec: Image spec of the encoder.
        bit_depth: See ``decode_image``.

    Returns:
        The file.

    Raises:
        ImageError: The image cannot be read.
    """
    decoder = SubprocessDecoder()
    (values,) = decoder.read(file, [size_and_thumbnail], bit_depth=bit_depth, name=str(file))
    maps = above_even(attention, parse_features(spec["features"]))
    plain, *colored = draw_over(values, maps, Geometry.from_json(spec["geometry"]))
    # Colors are relative to the highest attention, which may hardly differ from even attention.
    highest = (attention.max(axis=1) * attention.shape[-1]).tolist()
    tiles = [("", plain)]
    tiles += [
        (f"{caption}\nattention to {most:.1f} x even", one)
        for caption, most, one in zip(captions, highest, colored, strict=True)
    ]
    rows = [tiles[start : start + _COLUMNS] for start in range(0, len(tiles), _COLUMNS)]
    suffix = ".png"
    stem = f"{number:05d}-{to_file_name(file.stem)}"
    path = folder / (cut_name(stem, longest_name(folder) - len(suffix)) + suffix)
    save_png(contact_sheet(rows, title=file.name), path)
    return path
