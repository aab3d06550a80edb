"""BRAX 1.1.0 and 1.0.0: 40,967 images of 19,351 patients, with the labels of CheXpert.

Reis et al., "BRAX" (Scientific Data 2022). ``master_spreadsheet_update.csv`` (1.0.0:
``master_spreadsheet.csv``) lists the PNG files in ``images/`` and the DICOM files in
``Anonymized_DICOMs/``.
"""

import os
from pathlib import Path
from typing import Final

from featurecache.datasets.cell_values import read_labels
from featurecache.datasets.dataset import Dataset
from featurecache.datasets.release import (
    CHEXPERT_LABELS,
    Listing,
    find_table,
    has_columns,
    read_table,
    require_table,
)

_TABLES: Final = ("master_spreadsheet_update.csv", "master_spreadsheet.csv")
_COLUMNS: Final = (
    *("DicomPath", "PngPath", "PatientID", "PatientSex", "PatientAge", "AccessionNumber"),
    "ViewPosition",
)


def load_brax(
    root: str | os.PathLike[str],
    *,
    folds: int | None = None,
    fold: int | None = None,
    seed: int = 0,
    require_images: bool = True,
) -> Dataset:
    """Load the images of BRAX that are on disk.

    Args:
        root: Folder with ``master_spreadsheet_update.csv``, and ``images/`` or
            ``Anonymized_DICOMs/``.
        folds: Number of folds, by patient; the release states no split.
        fold: The fold that is test; the next one is validation, the others are train.
        seed: Seed of the splits.
        require_images: Load only images that are on disk; if False, all that are listed.

    Returns:
        The data set "brax", with the 14 labels of CheXpert. Ages are groups of five years.

    Raises:
        DatasetError: If there is no table or no image.
    """
    root = Path(root)
    notes: list[str] = []
    file = require_table(root, *_TABLES)
    table = read_table(file, [*_COLUMNS, *CHEXPERT_LABELS], notes)
    cells, _ = read_labels(table[[*CHEXPERT_LABELS]], file=file)
    images = table[["PngPath", "PatientID", "PatientSex", "PatientAge", "ViewPosition"]].set_axis(
        ["id", "patient", "sex", "age", "view"], axis="columns"
    )
    # Numbers of studies are unique only within a patient.
    images["study"] = table["PatientID"] + "/" + table["AccessionNumber"]
    listing = Listing(
        file=file,
        images=images,
        paths=[table["PngPath"], table["DicomPath"]],
        cells=cells,
        label_names=CHEXPERT_LABELS,
        notes=notes,
    )
    return listing.dataset(
        "brax", root, folds=folds, fold=fold, seed=seed, require_images=require_images
    )


def is_brax(folder: Path) -> bool:
    """Return whether a folder has the table of BRAX."""
    return has_columns(find_table(folder, *_TABLES), _COLUMNS)
