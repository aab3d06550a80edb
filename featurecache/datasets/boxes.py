"""Boxes around findings in images, as data sets and tables state them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from featurecache.datasets.table_reader import open_table
from featurecache.errors import DatasetError

if TYPE_CHECKING:
    import pandas as pd

BOX_COLUMNS: Final = ("id", "label", "x", "y", "width", "height", "image_width", "image_height")

# The commas in "Bbox [x,y,w,h]" separate columns.
NIH_COLUMNS: Final = ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]")
NIH_NAMES: Final = MappingProxyType({"Infiltrate": "Infiltration"})
"""Labels of NIH's list of boxes that the table of its images calls otherwise."""
NIH_SIZE: Final = (1024, 1024)
"""Width and height of the images of NIH, in whose pixels its boxes are."""


def read_boxes(
    file: Path,
    columns: Sequence[str],
    notes: list[str],
    *,
    names: Mapping[str, str] = MappingProxyType({}),
    image_size: tuple[int, int] | None = None,
) -> "pd.DataFrame":
    """Read a table with one box in each row.

    Args:
        file: The table.
        columns: Its columns with the id of the image, the label, the left and upper edge, the width
            and the height, and then, without ``image_size``, the width and height of the image.
        notes: List that is extended.
        names: Labels, by the names that the table has for them; others are kept.
        image_size: Width and height of all images, in whose pixels the boxes are.

    Returns:
        The boxes, with the columns ``BOX_COLUMNS``.

    Raises:
        DatasetError: A column is missing, or numbers are no box.
    """
    import pandas as pd

    opened = open_table(file)
    notes += opened.notes
    table = opened.read(columns).set_axis(list(BOX_COLUMNS[: len(columns)]), axis="columns")
    if image_size is not None:
        table = table.assign(image_width=image_size[0], image_height=image_size[1])
    numbers = table[[*BOX_COLUMNS[2:]]].apply(pd.to_numeric, errors="coerce").astype(np.float64)
    sides = numbers[["width", "height", "image_width", "image_height"]]
    is_box = np.isfinite(numbers).all(axis=1) & (sides > 0).all(axis=1)
    if not is_box.all():
        raise DatasetError(
            f"{file}, line {table.index[int((~is_box).to_numpy().argmax())]}: the columns "
            f"{', '.join(columns[2:])} are not a box: use numbers, with a positive width and height"
        )
    labels = table["label"].map(lambda name: names.get(name, name))
    return table.assign(label=labels, **numbers).reset_index(drop=True)


def read_box_file(file: Path) -> "pd.DataFrame":
    """Read a table of boxes: with the columns ``BOX_COLUMNS``, or NIH's ``BBox_List_2017.csv``.

    Returns:
        The boxes, with the columns ``BOX_COLUMNS``.

    Raises:
        DatasetError: The file cannot be read, a column is missing, or numbers are no box.
    """
    columns = open_table(file).header
    if set(NIH_COLUMNS) <= set(columns):
        return read_boxes(file, NIH_COLUMNS, [], names=NIH_NAMES, image_size=NIH_SIZE)
    if missing := [name for name in BOX_COLUMNS if name not in columns]:
        raise DatasetError(
            f"{file} has no column {', '.join(missing)}: a table of boxes has the columns "
            f"{', '.join(BOX_COLUMNS)}, of which the last two are the size of the image in whose "
            "pixels the box is; or give NIH's BBox_List_2017.csv"
        )
    return read_boxes(file, BOX_COLUMNS, [])


def count_boxes(boxes: "pd.DataFrame") -> dict[str, Any]:
    """Count boxes.

    Returns:
        ``boxes``, their number; ``images``, the number of images that have one; and by label,
        ``labels``, the number of boxes.
    """
    labels = boxes["label"].value_counts().sort_index()
    return {
        "boxes": len(boxes),
        "images": int(boxes["id"].nunique()),
        "labels": {str(name): int(number) for name, number in labels.items()},
    }
