"""SIIM-ACR Pneumothorax Segmentation 2019: 12,047 images of ChestX-ray14 with masks.

``train-rle.csv`` has one row for each mask, or -1; the DICOM files are in
``dicom-images-train/<study>/<series>/<ImageId>.dcm``.
"""

from pathlib import Path
from typing import Final

import numpy as np

from featurecache.datasets.release import (
    Listing,
    find_table,
    has_columns,
    read_table,
    require_table,
)
from featurecache.datasets.scan import scan_tree

_TABLES: Final = ("train-rle.csv", "stage_2_train.csv")
_COLUMNS: Final = ("ImageId", "EncodedPixels")


def list_siim_acr(root: Path) -> Listing:
    """List the labeled images of the SIIM-ACR Pneumothorax Segmentation challenge.

    Args:
        root: Folder with ``train-rle.csv`` (or ``stage_2_train.csv``) and the images, at any depth.

    Returns:
        The images, with the label ``Pneumothorax``. Patients are unknown.

    Raises:
        DatasetError: If there is no table.
    """
    notes: list[str] = []
    file = require_table(root, *_TABLES)
    table = read_table(file, _COLUMNS, notes)
    positive = (table["EncodedPixels"] != "-1").groupby(table["ImageId"]).any()
    images = positive.index.to_frame(index=False, name="id")
    places = {Path(path).stem: path for path in scan_tree(root).images}
    return Listing(
        files=[file],
        images=images,
        paths=[
            images["id"].map(lambda name: places.get(name, f"dicom-images-train/{name}.dcm")),
        ],
        cells=positive.to_numpy().astype(np.int8)[:, None],
        label_names=("Pneumothorax",),
        notes=notes,
    )


def is_siim_acr(folder: Path) -> bool:
    """Return whether a folder has the table of the challenge."""
    return has_columns(find_table(folder, *_TABLES), _COLUMNS)
