"""ChestX-Det: 3,578 images of ChestX-ray14 with boxes and outlines of 13 findings.

Lian et al., "A Structure-Aware Relation Network for Thoracic Diseases Detection and Segmentation"
(IEEE Transactions on Medical Imaging 2021). The official files are ``ChestX_Det_train.json``,
``ChestX_Det_test.json`` and the images, whose numbers are not those of ChestX-ray14.
"""

from pathlib import Path
from typing import Final

import numpy as np

from featurecache.datasets.boxes import read_json_boxes
from featurecache.datasets.json_records import read_records
from featurecache.datasets.release import Listing, find_table
from featurecache.datasets.scan import scan_tree
from featurecache.errors import DatasetError, UnknownNameError

LABELS: Final = (
    *("Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "Diffuse Nodule"),
    *("Effusion", "Emphysema", "Fibrosis", "Fracture", "Mass", "Nodule", "Pleural Thickening"),
    "Pneumothorax",
)

_FILES: Final = {"train": "ChestX_Det_train.json", "test": "ChestX_Det_test.json"}


def list_chestx_det(root: Path) -> Listing:
    """List the images of ChestX-Det.

    Args:
        root: Folder with ``ChestX_Det_train.json``, ``ChestX_Det_test.json`` and the images, at any
            depth.

    Returns:
        The images, with 13 labels in their official names and order. Patients are unknown.

    Raises:
        DatasetError: If neither file is there, or a finding is unknown.
    """
    import pandas as pd

    files = {split: find_table(root, name) for split, name in _FILES.items()}
    found = {split: file for split, file in files.items() if file is not None}
    if not found:
        raise DatasetError(f"no {' or '.join(_FILES.values())} in {root}")
    tables = []
    for split, file in found.items():
        table = read_records(file, ["file_name", "syms"])
        for line, names in table["syms"].items():
            if unknown := set(names).difference(LABELS):
                problem = UnknownNameError("finding", min(unknown), LABELS)
                raise DatasetError(f"{file}, image {line}: {problem}")
        tables.append(table.assign(split=split))
    notes: list[str] = []
    boxes = pd.concat([read_json_boxes(file, notes) for file in found.values()])
    images = pd.concat(tables, ignore_index=True).rename(columns={"file_name": "id"})
    places = {Path(path).name: path for path in scan_tree(root).images}
    return Listing(
        files=[*found.values()],
        images=images[["id", "split"]].astype(str),
        paths=[images["id"].map(lambda name: places.get(name, name))],
        cells=np.array([[name in syms for name in LABELS] for syms in images["syms"]], np.int8),
        label_names=LABELS,
        split_file=_FILES["test"],
        notes=notes,
        boxes=boxes,
    )


def is_chestx_det(folder: Path) -> bool:
    """Return whether a folder has the labels of ChestX-Det."""
    return any(find_table(folder, name) for name in _FILES.values())
