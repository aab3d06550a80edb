"""PadChest-GR: 4,555 images of PadChest with grounded reports.

de Castro et al., "PadChest-GR" (2024). ``grounded_reports_20240819.json`` has the findings of each
study, ``master_table.csv`` patients, sexes and the split, in one row for each study and label.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np

from featurecache.datasets.boxes import read_json_boxes
from featurecache.datasets.json_records import read_records
from featurecache.datasets.release import (
    Listing,
    find_table,
    read_table,
    require_table,
)
from featurecache.errors import DatasetError

_REPORTS: Final = "grounded_reports_20240819.json"
_TABLE: Final = "master_table.csv"


def list_padchest_gr(root: Path) -> Listing:
    """List the images of PadChest-GR.

    Args:
        root: Folder with ``grounded_reports_20240819.json``, ``master_table.csv`` (unpacked), and
            the images in ``Padchest_GR_files/PadChest_GR/``, ``PadChest_GR/`` or ``images/``.

    Returns:
        The images, with all labels that occur in the reports, sorted, in the names of PadChest.

    Raises:
        DatasetError: If a file is missing or cannot be read, or a study is not in the table.
    """
    notes: list[str] = []
    file = require_table(root, _REPORTS)
    reports = read_records(file, ["StudyID", "ImageID", "findings"])
    listed = require_table(root, _TABLE)
    columns = ["StudyID", "PatientID", "split"]
    table = read_table(listed, columns, notes, optional=["PatientSex_DICOM"])
    studies = table.drop_duplicates("StudyID").set_index("StudyID")
    if (missing := ~reports["StudyID"].isin(studies.index)).any():
        raise DatasetError(f"{listed} has no study {reports['StudyID'][missing].iloc[0]}")
    found = [_labels(findings) for findings in reports["findings"]]
    label_names = sorted(set().union(*found))
    images = reports[["ImageID", "StudyID"]].astype(str).set_axis(["id", "study"], axis="columns")
    for role, column in (("patient", "PatientID"), ("split", "split"), ("sex", "PatientSex_DICOM")):
        images[role] = images["study"].map(studies[column])
    folders = ("Padchest_GR_files/PadChest_GR/", "PadChest_GR/", "Padchest_GR_files/", "images/")
    return Listing(
        files=[file],
        images=images,
        paths=[folder + images["id"] for folder in (*folders, "")],
        cells=np.array([[name in names for name in label_names] for names in found], dtype=np.int8),
        label_names=label_names,
        collection="padchest",
        boxes=read_json_boxes(file, notes),
        notes=notes,
    )


def is_padchest_gr(folder: Path) -> bool:
    """Return whether a folder has the reports of PadChest-GR."""
    return find_table(folder, _REPORTS) is not None


def _labels(findings: list[dict[str, Any]]) -> set[str]:
    """Return the labels of a report; normal findings may have none."""
    return {name.strip() for finding in findings for name in finding.get("labels") or ()} - {""}
