"""Boxes around findings in images, as data sets state them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from featurecache.datasets.table_reader import open_table
from featurecache.errors import DatasetError

if TYPE_CHECKING:
    import pandas as pd

BOX_COLUMNS: Final = ("id", "label", "x", "y", "width", "height")


def read_boxes(
    file: Path,
    columns: Sequence[str],
    notes: list[str],
    *,
    names: Mapping[str, str] = MappingProxyType({}),
) -> "pd.DataFrame":
    """Read a table with one box in each row.

    Args:
        file: The table.
        columns: Its columns with the id of the image, the label, the left and upper edge, the width
            and the height, in pixels.
        notes: List that is extended.
        names: Labels, by the names that the table has for them; others are kept.

    Returns:
        The boxes, with the columns ``BOX_COLUMNS``.

    Raises:
        DatasetError: A column is missing, or numbers are no box.
    """
    import pandas as pd

    opened = open_table(file)
    notes += opened.notes
    table = opened.read(columns).set_axis(list(BOX_COLUMNS), axis="columns")
    numbers = table[[*BOX_COLUMNS[2:]]].apply(pd.to_numeric, errors="coerce").astype(np.float64)
    is_box = np.isfinite(numbers).all(axis=1) & (numbers[["width", "height"]] > 0).all(axis=1)
    if not is_box.all():
        raise DatasetError(
            f"{file}, line {table.index[int((~is_box).to_numpy().argmax())]}: the columns "
            f"{', '.join(columns[2:])} are not a box: use numbers, with a positive width and height"
        )
    labels = table["label"].map(lambda name: names.get(name, name))
    return table.assign(label=labels, **numbers).reset_index(drop=True)


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
