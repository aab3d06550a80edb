"""Compare the attention of a head with the boxes of a data set."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurecache.datasets.boxes import (
    BOX_COLUMNS,
    check_boxes,
    lack_size,
    read_box_file,
    with_image_sizes,
)
from featurecache.encoders.geometry import Geometry
from featurecache.errors import UsageError
from featurecache.evaluation.label_matching import match_labels
from featurecache.extraction.source import as_dataset, cached_files
from featurecache.features import parse_features
from featurecache.images.size import read_size
from featurecache.images.subprocess_decoder import SubprocessDecoder
from featurecache.label_cells import any_of
from featurecache.metrics.localization import BoxedLabel, Localization, measure_localization
from featurecache.metrics.metrics import LabelMatch
from featurecache.store.cache import Cache
from featurecache.store.records import positions, to_utf8
from featurecache.wording import count_noun

if TYPE_CHECKING:
    import pandas as pd

Attention = Callable[[NDArray[np.floating]], NDArray[np.float32]]
"""Maps tokens (B, T, D) to the attention of each trained label to each token, (B, L, T)."""


def as_boxes(boxes: "str | os.PathLike[str] | pd.DataFrame", notes: list[str]) -> "pd.DataFrame":
    """Return a table of boxes, read from a file if need be.

    Args:
        boxes: The table, or a file; see ``read_box_file``.
        notes: List that is extended with what a reader of scores has to know about the boxes.

    Raises:
        DatasetError: The file cannot be read, or a box is none, or lies outside of its image.
        UsageError: The table lacks columns, or has no rows.
    """
    if isinstance(boxes, str | os.PathLike):
        return read_box_file(Path(boxes).expanduser(), notes)
    if missing := [name for name in BOX_COLUMNS if name not in boxes.columns]:
        raise UsageError(f"`boxes` has no column {', '.join(missing)}")
    if not len(boxes):
        raise UsageError("`boxes` has no rows: give the boxes of a data set that has some")
    return check_boxes(boxes.rename_axis(index="row"), source="`boxes`", notes=notes)


def localize(
    cache: Cache,
    boxes: "pd.DataFrame",
    attention: Attention,
    *,
    labels: tuple[str, ...],
    matches: dict[str, LabelMatch],
    split: str,
    n_bootstrap: int,
) -> tuple[Localization, list[str]]:
    """Score the attention to positive labels that have a box.

    Args:
        cache: The cache that is scored, with tokens.
        boxes: The boxes.
        attention: The attention of the head.
        labels: The L trained labels.
        matches: What each trained label is scored against.
        split: "test": the threshold is chosen on validation images; or "all".
        n_bootstrap: Number of bootstrap samples over patients.

    Returns:
        The scores, and what a reader has to know about them.

    Raises:
        UsageError: The cache holds no tokens of images, or it is not known where they are; or no
            scored image has a box of a label that it is positive for.
    """
    cache.require_images()
    spec = cache.header.encoder_spec
    if cache.n_tokens is None or "geometry" not in spec:
        raise UsageError(
            f"it is not known which part of an image the embeddings of {cache.path} are of, so "
            "they cannot be compared with `boxes`: give a cache of tokens of an encoder whose "
            "preprocessing is known"
        )
    rows = {"test": cache.rows("test"), "val": cache.learning_rows("val")}
    if split == "all":
        rows = {"test": np.arange(len(cache)), "val": rows["val"][:0]}
    notes: list[str] = []
    boxes = _with_image_sizes(cache, boxes, cache.ids[np.concatenate([*rows.values()])], notes)
    scored, validation = (
        list(boxed_labels(cache, boxes, attention, rows[name], labels=labels, matches=matches))
        for name in ("test", "val")
    )
    if not scored:
        raise UsageError(
            f"none of {count_noun(len(rows['test']), 'scored image')} of {cache.path} has a box "
            f"of a label that it is positive for: the ids of `boxes` are such as "
            f"{boxes['id'].iloc[0]!r}, those of the images such as {str(cache.ids[0])!r}"
        )
    if not validation:
        notes.append(
            "no validation image has a box, so no threshold could be chosen for the intersection "
            "over union of maps and boxes, which is undefined"
        )
    return measure_localization(scored, validation, n_bootstrap=n_bootstrap), notes


def _with_image_sizes(
    cache: Cache, boxes: "pd.DataFrame", used: NDArray[np.str_], notes: list[str]
) -> "pd.DataFrame":
    """Return boxes with the sizes of the images that are used, read where they are not stated.

    Raises:
        UsageError: The images cannot be found.
        ImageError: One cannot be read.
        DatasetError: A box lies outside of its image.
    """
    ids = sorted(set(boxes["id"][lack_size(boxes)]) & set(used.tolist()))
    if not ids:
        return boxes
    if len(cache.sources) > 1:
        raise UsageError(
            "`boxes` does not state the sizes of images, and they are of several data sets: add "
            "the columns image_width and image_height"
        )
    try:
        files = cached_files(cache, as_dataset(cache), ids)
    except UsageError as error:
        raise UsageError(
            "`boxes` does not state the sizes of images, and these cannot be read, so add the "
            f"columns image_width and image_height: {error}"
        ) from error
    decoder = SubprocessDecoder()
    with ThreadPoolExecutor() as pool:
        sizes = pool.map(lambda name: read_size(files[name], decoder, name=name), ids)
        return with_image_sizes(boxes, dict(zip(ids, sizes, strict=True)), notes)


def _boxes_by_label(
    cache: Cache, boxes: "pd.DataFrame", matches: dict[str, LabelMatch]
) -> "dict[str, pd.DataFrame]":
    """Return the boxes of each trained label, by the labels of the data set that it means."""
    datasets = [name for source in cache.sources for name in source.header.vocabulary_names]
    present = list(dict.fromkeys(label for match in matches.values() for label in match.labels))
    drawn = boxes["label"].drop_duplicates().tolist()
    try:
        meant = match_labels(present, drawn, trained_on=datasets, datasets=datasets)
    except UsageError as error:
        raise UsageError(
            f"`boxes` are of {', '.join(drawn)}, none of which means {' or '.join(present)}: give "
            "boxes of the labels of this data set"
        ) from error
    return {
        trained: boxes[
            boxes["label"].isin(
                [name for label in match.labels if label in meant for name in meant[label].labels]
            )
        ]
        for trained, match in matches.items()
    }


def boxed_labels(
    cache: Cache,
    boxes: "pd.DataFrame",
    attention: Attention,
    rows: NDArray[np.intp],
    *,
    labels: tuple[str, ...],
    matches: dict[str, LabelMatch],
) -> Iterator[BoxedLabel]:
    """Yield the positive labels of images that have boxes, and the attention to these images.

    Args:
        cache: See ``localize``.
        boxes: See ``localize``.
        attention: See ``localize``.
        rows: Rows of the images.
        labels: See ``localize``.
        matches: See ``localize``.
    """
    boxes_of = _boxes_by_label(cache, boxes, matches)
    spec: Any = cache.header.encoder_spec
    geometry = Geometry.from_json(spec["geometry"])
    features = parse_features(spec["features"])
    names = cache.labels.names
    maps: dict[int, NDArray[np.floating]] = {}
    for trained, match in matches.items():
        columns = [names.index(label) for label in match.labels]
        positive = np.flatnonzero(any_of(cache.labels.values[:, columns]) == 1)
        usable = np.intersect1d(rows, positive)
        for image, of_image in boxes_of[trained].groupby("id"):
            row = int(positions(cache.images.id, to_utf8([str(image)]))[0])
            if row not in usable:
                continue
            if row not in maps:
                maps[row] = features.on_grid(attention(cache.tokens[row : row + 1])[0])
            x, y, width, height, image_width, image_height = (
                of_image[name].to_numpy(np.float64) for name in BOX_COLUMNS[2:]
            )
            size = float(image_width[0]), float(image_height[0])
            edges = np.column_stack([x, y, x + width, y + height])
            yield BoxedLabel(
                label=match.scored_as(trained),
                image=str(image),
                patient=str(cache.patients[row]),
                size=size,
                boxes=[(left, top, right, bottom) for left, top, right, bottom in edges.tolist()],
                area=geometry.area(round(size[0]), round(size[1])),
                map=maps[row][labels.index(trained)],
            )
