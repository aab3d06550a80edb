"""Boxes around findings in images, as data sets and tables state them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from featurecache.datasets.image_mapping import names_in_nih
from featurecache.datasets.json_records import read_objects
from featurecache.datasets.table_reader import open_table
from featurecache.errors import DatasetError
from featurecache.images.limits import MAX_ASPECT, MAX_PIXELS, MIN_SIDE
from featurecache.wording import count_noun

if TYPE_CHECKING:
    import pandas as pd

BOX_COLUMNS: Final = ("id", "label", "x", "y", "width", "height", "image_width", "image_height")
_PLACE: Final = BOX_COLUMNS[2:6]
_SIZE: Final = BOX_COLUMNS[6:]

WHOLE: Final = 1
"""Width and height of an image for boxes that are in shares of them."""


@dataclass(frozen=True, kw_only=True)
class BoxFormat:
    """How a table states one box in each row.

    Attributes:
        columns: Columns with the id of the image, the label, the left and upper edge, and then the
            width and the height.
        corners: Whether the last two are the right and lower edge instead.
        may_be_blank: Whether rows without numbers stand for images without a box.
        names: Labels, by the names that the table has for them; others are kept.
        image_size: Width and height of all images, in whose pixels the boxes are; None if each
            image has its own size.
        ids_in_nih: Whether ids are those of ``nih`` where a mapping is beside the table.
    """

    columns: tuple[str, ...]
    corners: bool = False
    may_be_blank: bool = False
    names: Mapping[str, str] = field(default_factory=dict)
    image_size: tuple[int, int] | None = None
    ids_in_nih: bool = False


OWN: Final = BoxFormat(columns=BOX_COLUMNS[:6])
NIH: Final = BoxFormat(
    # The commas in "Bbox [x,y,w,h]" separate columns.
    columns=("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]"),
    names={"Infiltrate": "Infiltration"},
    image_size=(1024, 1024),
)
RSNA: Final = BoxFormat(
    columns=("patientId", "Target", "x", "y", "width", "height"),
    may_be_blank=True,
    names={"1": "Target"},
    image_size=(1024, 1024),
    ids_in_nih=True,
)
VINDR: Final = BoxFormat(
    columns=("image_id", "class_name", "x_min", "y_min", "x_max", "y_max"),
    corners=True,
    may_be_blank=True,
    names={"Other diseases": "Other disease"},
)
_TABLES: Final = (OWN, NIH, RSNA, VINDR)


def read_boxes(file: Path, form: BoxFormat, notes: list[str]) -> "pd.DataFrame":
    """Read a table with one box in each row.

    Args:
        file: The table.
        form: How it states them.
        notes: List that is extended.

    Returns:
        The boxes, with the columns ``BOX_COLUMNS``; see ``check_boxes``.

    Raises:
        DatasetError: A column is missing, or numbers are no box in the image.
    """
    opened = open_table(file)
    notes += [note for note in opened.notes if note not in notes]
    sizes = _SIZE if form is OWN and set(_SIZE) <= set(opened.header) else ()
    table = opened.read([*form.columns, *sizes])
    table = table.set_axis(BOX_COLUMNS[: len(table.columns)], axis="columns")
    if form.may_be_blank:
        table = table[(table[[*_PLACE]] != "").any(axis=1)]
    labels = table["label"].map(lambda name: form.names.get(name, name))
    ids = names_in_nih(file.parent, table["id"]) if form.ids_in_nih else None
    table = table.assign(label=labels, **({} if ids is None else {"id": ids}))
    return _to_boxes(table, form.corners, form.image_size, str(file), notes)


def read_json_boxes(file: Path, notes: list[str]) -> "pd.DataFrame":
    """Read the boxes in a file of ChestX-Det, or in the reports of PadChest-GR.

    Args:
        file: ``ChestX_Det_train.json`` or ``ChestX_Det_test.json``, whose images have 1024 x 1024
            pixels; or ``grounded_reports_20240819.json``, of which the boxes of the first reader
            are taken.
        notes: List that is extended.

    Raises:
        DatasetError: See ``read_boxes``.
    """
    import pandas as pd

    objects = read_objects(file)
    if {"file_name", "syms", "boxes"} <= objects[0].keys():
        rows_of, size = _rows_of_chestx_det, (1024, 1024)
    elif {"ImageID", "findings"} <= objects[0].keys():
        rows_of, size = _rows_of_padchest_gr, (WHOLE, WHOLE)
    else:
        raise DatasetError(f"{file} has no boxes: give a file of ChestX-Det or PadChest-GR")
    rows, numbers = [], []
    try:
        for number, entry in enumerate(objects, start=1):
            of_image = list(rows_of(entry))
            rows += of_image
            numbers += [number] * len(of_image)
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{file}, image {number}: its boxes cannot be read: {error!r}"
        ) from error
    table = pd.DataFrame(rows, pd.Index(numbers, name="image"), columns=list(BOX_COLUMNS[:6]))
    return _to_boxes(table, True, size, str(file), notes)


def _rows_of_chestx_det(entry: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    for label, (left, top, right, bottom) in zip(entry["syms"], entry["boxes"], strict=True):
        yield entry["file_name"], label, left, top, right, bottom


def _rows_of_padchest_gr(entry: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    for finding in entry["findings"]:
        for left, top, right, bottom in finding.get("boxes") or ():
            for label in finding.get("labels") or ():
                yield entry["ImageID"], label.strip(), left, top, right, bottom


def read_box_file(file: Path, notes: list[str]) -> "pd.DataFrame":
    """Read boxes: a table with the columns ``BOX_COLUMNS``, or a file of a release.

    Args:
        file: The table; without its last two columns, sizes of images are unknown. Or the file of
            a release: NIH's ``BBox_List_2017.csv``, RSNA's ``stage_2_train_labels.csv``,
            ``annotations_train.csv``, ``annotations_test.csv`` or Kaggle's ``train.csv`` of
            VinDr-CXR, or a JSON file, see ``read_json_boxes``.
        notes: List that is extended.

    Returns:
        The boxes, with the columns ``BOX_COLUMNS``; see ``check_boxes``.

    Raises:
        DatasetError: The file cannot be read, a column is missing, or numbers are no box in the
            image.
    """
    if file.suffix.lower() == ".json":
        return read_json_boxes(file, notes)
    header = set(open_table(file).header)
    for form in _TABLES:
        if header >= set(form.columns):
            return read_boxes(file, form, notes)
    missing = [name for name in OWN.columns if name not in header]
    raise DatasetError(
        f"{file} has no column {', '.join(missing)}: a table of boxes has the columns "
        f"{', '.join(BOX_COLUMNS)}, of which the last two are the size of the image in whose "
        "pixels the box is; or give the file of NIH, RSNA, VinDr-CXR, ChestX-Det or PadChest-GR"
    )


def _to_boxes(
    table: "pd.DataFrame",
    corners: bool,
    image_size: tuple[int, int] | None,
    source: str,
    notes: list[str],
) -> "pd.DataFrame":
    """Return boxes of width and height, with the size of their image, and check them."""
    import pandas as pd

    numbers = table[[*_PLACE]].apply(pd.to_numeric, errors="coerce")
    if corners:
        numbers["width"] -= numbers["x"]
        numbers["height"] -= numbers["y"]
    width, height = image_size or (np.nan, np.nan)
    sizes = {} if "image_width" in table else {"image_width": width, "image_height": height}
    boxes = table.assign(**numbers, **sizes)[[*BOX_COLUMNS]]
    return check_boxes(boxes, source=source, notes=notes)


def check_boxes(boxes: "pd.DataFrame", *, source: str, notes: list[str]) -> "pd.DataFrame":
    """Return boxes, cut at the edges of their images.

    Args:
        boxes: The columns ``BOX_COLUMNS``. The size of an image is NaN where it is unknown, and
            ``WHOLE`` where boxes are in shares of it. The name of the index says what it counts.
        source: Where they are from, for messages.
        notes: List that is extended: how many boxes were cut.

    Raises:
        DatasetError: Numbers are no box, or a box is smaller than a pixel or lies outside of its
            image; the first is named.
    """
    import pandas as pd

    numbers = boxes[[*_PLACE, *_SIZE]].apply(pd.to_numeric, errors="coerce").astype(np.float64)
    x, y, width, height, *size = (numbers[name] for name in (*_PLACE, *_SIZE))
    shorter, longer = numbers[[*_SIZE]].min(axis=1), numbers[[*_SIZE]].max(axis=1)
    is_image = (shorter >= MIN_SIDE) & (longer <= MAX_ASPECT * shorter)
    is_image &= shorter * longer <= MAX_PIXELS
    in_shares = (numbers[[*_SIZE]] == WHOLE).all(axis=1)
    is_image |= in_shares | boxes[[*_SIZE]].isna().all(axis=1)
    is_box = np.isfinite(numbers[[*_PLACE]]).all(axis=1) & (width > 0) & (height > 0)
    right, bottom = x + width, y + height
    is_inside = ~((right <= 0) | (bottom <= 0) | (x >= size[0]) | (y >= size[1]))
    for valid, problem in (
        (is_box, "is no box: use numbers, with a positive width and height"),
        (
            is_image,
            "is in an image that cannot have this size: give its width and height in pixels",
        ),
        (
            in_shares | (width >= 1) & (height >= 1),
            "is smaller than a pixel: give boxes in pixels of the image, not in shares of it",
        ),
        (is_inside, "lies outside of the image: check its place and the size of the image"),
    ):
        if not valid.all():
            first = int((~valid).to_numpy().argmax())
            described = ", ".join(f"{name} {boxes[name].iloc[first]}" for name in (*_PLACE, *_SIZE))
            raise DatasetError(
                f"{source}, {boxes.index.name} {boxes.index[first]}: the box of "
                f"{boxes['label'].iloc[first]!r} in {boxes['id'].iloc[first]!r} ({described}) "
                f"{problem}"
            )
    left, top = x.clip(lower=0), y.clip(lower=0)
    right, bottom = (np.fmin(edge, side) for edge, side in ((right, size[0]), (bottom, size[1])))
    cut = (left != x) | (top != y) | (right < x + width) | (bottom < y + height)
    if n_cut := int(cut.sum()):
        one = count_noun(n_cut, "box reaches", "boxes reach")
        notes.append(
            f"{one} beyond the image, and {'is' if n_cut == 1 else 'are'} cut at its edge."
        )
        cells = {"x": left, "y": top, "width": right - left, "height": bottom - top}
        numbers = numbers.assign(**{name: c.where(cut, numbers[name]) for name, c in cells.items()})
    return boxes.assign(**numbers)


def lack_size(boxes: "pd.DataFrame") -> "pd.Series[bool]":
    """Return which boxes are of images whose width and height in pixels are not stated."""
    return boxes["image_width"].isna() | (boxes[[*_SIZE]] == WHOLE).all(axis=1)


def with_image_sizes(
    boxes: "pd.DataFrame", sizes: Mapping[str, tuple[int, int]], notes: list[str]
) -> "pd.DataFrame":
    """Return boxes in pixels of their images, whose sizes were not stated.

    Args:
        boxes: The boxes.
        sizes: Width and height of the images by id.
        notes: List that is extended; see ``check_boxes``.

    Raises:
        DatasetError: A box lies outside of its image.
    """
    lacking = (lack_size(boxes) & boxes["id"].isin(list(sizes))).to_numpy()
    shares = (boxes["image_width"] == WHOLE).to_numpy() & lacking
    boxes = boxes.copy()
    for side, (start, extent, name) in enumerate(
        (("x", "width", "image_width"), ("y", "height", "image_height"))
    ):
        pixels = boxes["id"][lacking].map({image: size[side] for image, size in sizes.items()})
        boxes.loc[lacking, name] = pixels
        for column in (start, extent):
            boxes.loc[shares, column] *= boxes.loc[shares, name]
    return check_boxes(boxes, source="`boxes`", notes=notes)


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
