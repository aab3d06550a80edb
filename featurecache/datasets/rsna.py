"""RSNA Pneumonia Detection Challenge 2018: 26,684 images of ChestX-ray14 with new labels.

Shih et al., "Augmenting the NIH Chest Radiograph Dataset with Expert Annotations of Possible
Pneumonia" (Radiology: AI 2019). The column ``patientId`` is the number of an image: patients are in
``pneumonia-challenge-dataset-mappings_2018.json`` only.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from featurecache.datasets.release import Listing, find_table, read_table, require_table
from featurecache.errors import DatasetError
from featurecache.io.text import read_text

if TYPE_CHECKING:
    import pandas as pd

_LABELS: Final = "stage_2_train_labels.csv"
_CLASSES: Final = "stage_2_detailed_class_info.csv"
_MAPPING: Final = "pneumonia-challenge-dataset-mappings_2018.json"
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
    if (mapping := root / _MAPPING).is_file():
        images["patient"] = _read_patients(mapping, images["id"])
    if headers := find_table(root, *_HEADERS):
        columns = ["PatientID", "ViewPosition", "PatientSex", "PatientAge"]
        attributes = read_table(headers, columns, notes).drop_duplicates("PatientID")
        attributes = attributes.set_index("PatientID").reindex(images["id"], fill_value="")
        for role, column in zip(("view", "sex", "age"), columns[1:], strict=True):
            images[role] = attributes[column].to_numpy()
    return Listing(
        file=file,
        images=images,
        paths=[
            folder + images["id"] + suffix
            for folder in ("stage_2_train_images/", "")
            for suffix in (".dcm", ".png", ".jpg")
        ],
        cells=labels.to_numpy().astype(np.int8),
        label_names=tuple(labels.columns),
        notes=[*notes, "These are images of ChestX-ray14 (nih) under other names."],
    )


def is_rsna(folder: Path) -> bool:
    """Return whether a folder has the table of the challenge."""
    return find_table(folder, _LABELS) is not None


def _read_patients(file: Path, ids: "pd.Series[str]") -> "pd.Series[str]":
    """Return the NIH patient of each image: the first part of its name there."""
    import json

    try:
        entries = json.loads(read_text(file))
        patients = {e["subset_img_id"]: e["img_id"].partition("_")[0] for e in entries}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{file} cannot be read as the mapping of images: {error}") from error
    if not ids.isin(list(patients)).all():
        missing = ids[~ids.isin(list(patients))].iloc[0]
        raise DatasetError(f"{file} has no image {missing}: download it again")
    return ids.map(patients)
