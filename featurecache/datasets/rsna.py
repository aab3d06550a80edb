"""RSNA Pneumonia Detection Challenge 2018: 26,684 images of ChestX-ray14 with new labels.

Shih et al., "Augmenting the NIH Chest Radiograph Dataset with Expert Annotations of Possible
Pneumonia" (Radiology: AI 2019). The column ``patientId`` is the number of an image: which image of
which patient of ChestX-ray14 it is, only ``pneumonia-challenge-dataset-mappings_2018.json`` states.
"""

from pathlib import Path
from typing import Final

import numpy as np

from featurecache.datasets.boxes import RSNA, read_boxes
from featurecache.datasets.image_mapping import names_in_nih
from featurecache.datasets.nih import TEST_LIST, official_split
from featurecache.datasets.release import (
    Listing,
    find_table,
    read_table,
    require_table,
)

_LABELS: Final = "stage_2_train_labels.csv"
_CLASSES: Final = "stage_2_detailed_class_info.csv"
_HEADERS: Final = (
    "stage_2_train_images_dicom_headers.csv",
    "kaggle_stage_2_train_images_dicom_headers.csv",
)


def list_rsna(root: Path) -> Listing:
    """List the labeled images of the RSNA Pneumonia Detection Challenge.

    Args:
        root: Folder with ``stage_2_train_labels.csv`` and ``stage_2_train_images/``. Where they
            are there too, ``stage_2_detailed_class_info.csv`` adds three labels,
            ``pneumonia-challenge-dataset-mappings_2018.json`` the patients, and
            ``stage_2_train_images_dicom_headers.csv`` views, sexes and ages.

    Returns:
        The images, with the label ``Target`` (opacity suggestive of pneumonia) and those
        of the classes.

    Raises:
        DatasetError: If there is no table, or the mapping cannot be read.
    """
    notes: list[str] = []
    file = require_table(root, _LABELS)
    # One row for each box.
    table = read_table(file, ["patientId", "Target"], notes)
    target = (table["Target"] == "1").groupby(table["patientId"]).any()
    labels = target.to_frame("Target")
    if classes := find_table(root, _CLASSES):
        stated = read_table(classes, ["patientId", "class"], notes).drop_duplicates()
        for name in sorted(stated["class"].unique()):
            labels[name] = labels.index.isin(stated["patientId"][stated["class"] == name])
    images = labels.index.to_frame(index=False, name="id")
    names = images["id"]
    if headers := find_table(root, *_HEADERS):
        columns = ["PatientID", "ViewPosition", "PatientSex", "PatientAge"]
        attributes = read_table(headers, columns, notes).drop_duplicates("PatientID")
        attributes = attributes.set_index("PatientID").reindex(names, fill_value="")
        for role, column in zip(("view", "sex", "age"), columns[1:], strict=True):
            images[role] = attributes[column].to_numpy()
    in_nih = names_in_nih(root, names)
    if in_nih is not None:
        images["id"] = in_nih
        images["patient"] = images["id"].str.partition("_")[0]
        split = official_split(root, images["id"], names.notna())
        if split is not None:
            images["split"] = split
            notes.append(f"The official split is that of ChestX-ray14, in {TEST_LIST}.")
    return Listing(
        files=[file, *([classes] if classes else [])],
        images=images,
        paths=[
            folder + names + suffix
            for folder in ("stage_2_train_images/", "")
            for suffix in (".dcm", ".png", ".jpg")
        ],
        cells=labels.to_numpy().astype(np.int8),
        label_names=tuple(labels.columns),
        collection="" if in_nih is None else "nih",
        notes=notes,
        boxes=read_boxes(file, RSNA, notes),
    )


def is_rsna(folder: Path) -> bool:
    """Return whether a folder has the table of the challenge."""
    return find_table(folder, _LABELS) is not None
