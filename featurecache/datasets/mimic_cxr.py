"""MIMIC-CXR-JPG 2.0.0 and 2.1.0, and the DICOM files of MIMIC-CXR: 377,110 images.

Johnson et al., "MIMIC-CXR-JPG" (2019). Images are in
``files/p10/p10000032/s50414267/<dicom_id>.jpg``; labels are those of studies.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

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

if TYPE_CHECKING:
    import pandas as pd

LABELERS: Final = {
    "chexpert": "mimic-cxr-2.0.0-chexpert.csv",
    "negbio": "mimic-cxr-2.0.0-negbio.csv",
    "radiologist": "mimic-cxr-2.1.0-test-set-labeled.csv",
}
"""Who labeled the reports, and the file of the labels."""

_METADATA: Final = "mimic-cxr-2.0.0-metadata.csv"
_SPLIT: Final = "mimic-cxr-2.0.0-split.csv"

_IMAGE_PATH: Final = re.compile(
    r"(?:.*/)?p(?P<group>\d\d)/p(?P<patient>(?P=group)\d{6})/s(?P<study>\d{8})/"
    r"(?P<id>[0-9a-f]{8}(?:-[0-9a-f]{8}){4})(?:\.\w+)?"
)


def list_mimic_cxr_jpg(
    root: Path,
    *,
    labeler: str = "chexpert",
) -> Listing:
    """List the images of MIMIC-CXR-JPG, or of MIMIC-CXR.

    Args:
        root: Folder with ``mimic-cxr-2.0.0-metadata.csv.gz``, ``-chexpert.csv.gz``,
            ``-negbio.csv.gz`` or ``mimic-cxr-2.1.0-test-set-labeled.csv``, ``-split.csv.gz``, and
            the images in ``files/``, JPEG or DICOM.
        labeler: Who labeled the reports: the program "chexpert" or "negbio", or the "radiologist"
            who read 687 of them. Images of all other studies are then left out.

    Returns:
        The images, with the 14 labels of the study of each image; they are blank where a program
        has no labels of the study.

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
    file = require_table(root, LABELERS[labeler])
    label_names: tuple[str, ...] = CHEXPERT_LABELS
    excluded = {}
    if labeler == "radiologist":
        label_names = tuple(
            name.replace("Lung Opacity", "Airspace Opacity") for name in label_names
        )
    stated = read_table(file, ["study_id", *label_names], notes)
    values, _ = read_labels(stated[[*label_names]], file=file)
    if labeler == "radiologist":
        is_read = images["study"].isin(stated["study_id"])
        excluded["not labeled by the radiologist"] = int((~is_read).sum())
        images = images[is_read]
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
        files=[file],
        images=images,
        paths=[path + suffix for suffix in (".jpg", ".dcm", ".png")],
        cells=cells,
        label_names=label_names,
        split_file=f"{_SPLIT}.gz",
        notes=notes,
        excluded=excluded,
    )


def parse_image_paths(paths: Iterable[str]) -> "pd.DataFrame | None":
    """Read what the paths of images, or of files for each image, state in MIMIC-CXR.

    Args:
        paths: N paths such as ``files/p10/p10000032/s50414267/<dicom_id>.dcm``, with any folders in
            front and any suffix or none.

    Returns:
        N rows of the columns ``id``, ``patient`` and ``study``, as in ``list_mimic_cxr_jpg``; None
        unless all paths are of this form.
    """
    import pandas as pd

    rows = []
    for path in paths:
        match = _IMAGE_PATH.fullmatch(path)
        if match is None:
            return None
        rows.append(match.group("id", "patient", "study"))
    return pd.DataFrame(rows, columns=["id", "patient", "study"], dtype=str)


def is_mimic_cxr_jpg(folder: Path) -> bool:
    """Return whether a folder has the table of images of MIMIC-CXR-JPG."""
    return find_table(folder, _METADATA) is not None
