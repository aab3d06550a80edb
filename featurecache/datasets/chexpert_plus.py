"""CheXpert Plus: 223,462 images of CheXpert with reports, and labels of the reports.

Chambon et al., "CheXpert Plus" (2024). ``df_chexpert_plus_240401.csv`` lists the images;
``impression_fixed.json``, ``findings_fixed.json`` and ``report_fixed.json`` have the labels that
CheXbert found in that section of each report, one image on each line.
"""

from pathlib import Path
from typing import Final

import numpy as np

from featurecache.datasets.cell_values import read_labels
from featurecache.datasets.chexpert import parse_paths
from featurecache.datasets.json_records import read_records
from featurecache.datasets.release import (
    CHEXPERT_LABELS,
    Listing,
    find_table,
    read_table,
    require_table,
)
from featurecache.errors import UnknownNameError
from featurecache.label_cells import BLANK
from featurecache.wording import count_noun

SECTIONS: Final = ("impression", "findings", "report")

_TABLE: Final = "df_chexpert_plus_240401.csv"
_COLUMNS: Final = ("path_to_image", "path_to_dcm", "ap_pa", "sex", "age", "split")


def list_chexpert_plus(root: Path, *, section: str = "impression") -> Listing:
    """List the images of CheXpert Plus.

    Args:
        root: Folder with ``df_chexpert_plus_240401.csv``, the JSON files of labels, here or in
            ``chexbert_labels/``, and the images in ``PNG/`` or ``DICOM/``.
        section: Section of the reports that labels are from: "impression", "findings" or
            "report", the whole report.

    Returns:
        The images, with the 14 labels of CheXpert; they are blank where the file of labels has no
        such image.

    Raises:
        DatasetError: If a table is missing, or a path is not one of CheXpert.
        UnknownNameError: If there is no such value of ``section``.
    """
    if section not in SECTIONS:
        raise UnknownNameError("value of `section`", section, SECTIONS)
    notes: list[str] = []
    listed = require_table(root, _TABLE)
    table = read_table(listed, _COLUMNS, notes)
    images = parse_paths(table["path_to_image"], table["ap_pa"], file=listed).assign(
        sex=table["sex"], age=table["age"], split=table["split"].replace("valid", "test")
    )
    name = f"{section}_fixed.json"
    file = require_table(root, f"chexbert_labels/{name}", name)
    stated = read_records(file, ["path_to_image", *CHEXPERT_LABELS], per_line=True)
    labels = stated[[*CHEXPERT_LABELS]]
    cells, _ = read_labels(labels.where(labels.notna(), "").astype(str), file=file)
    row_of_image = {path: row for row, path in enumerate(stated["path_to_image"])}
    rows = table["path_to_image"].map(row_of_image).fillna(-1).to_numpy(dtype=np.intp)
    if unlabeled := int((rows < 0).sum()):
        notes.append(f"{count_noun(unlabeled, 'image has', 'images have')} no labels in {name}.")
    notes.append(
        f"The {count_noun(int((images['split'] == 'test').sum()), 'image')} of valid are test."
    )
    stem, dicom = images["id"].str.rpartition(".")[0], table["path_to_dcm"]
    return Listing(
        files=[file],
        images=images,
        paths=[
            *(folder + stem + ".png" for folder in ("PNG/", "PNG/PNG/", "")),
            *(f"DICOM/{folder}" + dicom for folder in ("", "Compressed/", "Uncompressed/")),
            *(images["id"], table["path_to_image"]),
        ],
        cells=np.where((rows >= 0)[:, None], cells[rows], np.int8(BLANK)),
        label_names=CHEXPERT_LABELS,
        collection="chexpert",
        notes=notes,
    )


def is_chexpert_plus(folder: Path) -> bool:
    """Return whether a folder has the table of CheXpert Plus."""
    return find_table(folder, _TABLE) is not None
