"""MIMIC-CXR-JPG 2.0.0 and 2.1.0, and the DICOM files of MIMIC-CXR: 377,110 images.

Johnson et al., "MIMIC-CXR-JPG" (2019). Images are in
``files/p10/p10000032/s50414267/<dicom_id>.jpg``; labels are those of studies.
"""

from pathlib import Path
from typing import Final

import numpy as np

from featurecache.datasets.cell_values import read_labels
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

LABELERS: Final = ("chexpert", "negbio")

_METADATA: Final = "mimic-cxr-2.0.0-metadata.csv"
_SPLIT: Final = "mimic-cxr-2.0.0-split.csv"


def list_mimic_cxr_jpg(
    root: Path,
    *,
    labeler: str = "chexpert",
) -> Listing:
    """List the images of MIMIC-CXR-JPG, or of MIMIC-CXR.

    Args:
        root: Folder with ``mimic-cxr-2.0.0-metadata.csv.gz``, ``-chexpert.csv.gz`` or
            ``-negbio.csv.gz``, ``-split.csv.gz``, and the images in ``files/``, JPEG or DICOM.
        labeler: Program that labeled the reports: "chexpert" or "negbio".

    Returns:
        The images, with the 14 labels of the study of each image; they are blank
        where the labels have no such study.

    Raises:
        DatasetError: If a table is missing.
        UnknownNameError: If there is no such labeler.
    """
    if labeler not in LABELERS:
        raise UnknownNameError("labeler of mimic-cxr-jpg", labeler, LABELERS)
    notes: list[str] = []
    listed = require_table(root, _METADATA)
    table = read_table(listed, ["dicom_id", "subject_id", "study_id", "ViewPosition"], notes)
    images = table.set_axis(["id", "patient", "study", "view"], axis="columns")
    file = require_table(root, f"mimic-cxr-2.0.0-{labeler}.csv")
    stated = read_table(file, ["study_id", *CHEXPERT_LABELS], notes)
    values, _ = read_labels(stated[[*CHEXPERT_LABELS]], file=file)
    row_of_study = {study: row for row, study in enumerate(stated["study_id"])}
    rows = images["study"].map(row_of_study).fillna(-1).to_numpy(dtype=np.intp)
    cells = np.where((rows >= 0)[:, None], values[rows], np.int8(BLANK))
    if unlabeled := int((rows < 0).sum()):
        notes.append(
            f"{count_noun(unlabeled, 'image is', 'images are')} of studies without labels in "
            f"{file.name}."
        )
    if official := find_table(root, _SPLIT):
        splits = read_table(official, ["dicom_id", "split"], notes)
        images["split"] = images["id"].map(dict(zip(*splits.to_numpy().T, strict=True))).fillna("")
    folder = "files/p" + images["patient"].str[:2] + "/p" + images["patient"] + "/s"
    path = folder + images["study"] + "/" + images["id"]
    return Listing(
        file=file,
        images=images,
        paths=[path + suffix for suffix in (".jpg", ".dcm", ".png")],
        cells=cells,
        label_names=CHEXPERT_LABELS,
        split_file=f"{_SPLIT}.gz",
        notes=notes,
    )


def is_mimic_cxr_jpg(folder: Path) -> bool:
    """Return whether a folder has the table of images of MIMIC-CXR-JPG."""
    return find_table(folder, _METADATA) is not None
