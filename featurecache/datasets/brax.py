"""BRAX 1.1.0 and 1.0.0: 40,967 images of 19,351 patients, with the labels of CheXpert.

Reis et al., "BRAX" (Scientific Data 2022). ``master_spreadsheet_update.csv`` (1.0.0:
``master_spreadsheet.csv``) lists the PNG files in ``images/`` and the DICOM files in
``Anonymized_DICOMs/``.
"""

from pathlib import Path
from typing import Final

from featurecache.datasets.cell_values import read_labels
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


def list_brax(root: Path) -> Listing:
    """List the images of BRAX.

    Args:
        root: Folder with ``master_spreadsheet_update.csv``, and ``images/`` or
            ``Anonymized_DICOMs/``.

    Returns:
        The images, with the 14 labels of CheXpert. Ages are groups of five years.

    Raises:
        DatasetError: If there is no table.
    """
    notes: list[str] = []
    file = require_table(root, *_TABLES)
    table = read_table(file, [*_COLUMNS, *CHEXPERT_LABELS], notes)
    cells, _ = read_labels(table[[*CHEXPERT_LABELS]], file=file)
    images = table[["PngPath", "PatientID", "PatientSex", "PatientAge", "ViewPosition"]].set_axis(
        ["id", "patient", "sex", "age", "view"], axis="columns"
    )
    # Numbers of studies are unique only within a patient.
    images["study"] = table["PatientID"] + "/" + table["AccessionNumber"]
    return Listing(
        files=[file],
        images=images,
        paths=[table["PngPath"], table["DicomPath"]],
        cells=cells,
        label_names=CHEXPERT_LABELS,
        notes=notes,
    )


def is_brax(folder: Path) -> bool:
    """Return whether a folder has the table of BRAX."""
    return has_columns(find_table(folder, *_TABLES), _COLUMNS)
