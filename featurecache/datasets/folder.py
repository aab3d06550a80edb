"""Data sets in a folder with one subfolder of images per class."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from featurecache.datasets.dataset import Dataset
from featurecache.datasets.images import (
    dataset_of_tree,
    patients_from_folders,
    table_of_images,
)
from featurecache.datasets.patients import fill_patients, read_dicom_headers
from featurecache.datasets.scan import only_folders, scan_folder, scan_tree
from featurecache.datasets.splits import SPLIT_ALIASES
from featurecache.errors import DatasetError
from featurecache.progress import Progress
from featurecache.wording import count_noun

CLASS_WORDS: Final = frozenset(
    {
        *(
            "normal",
            "healthy",
            "well",
            "abnormal",
            "ill",
            "sick",
            "disease",
            "negative",
            "positive",
        ),
        *("finding", "findings", "benign", "malignant", "cancer", "lesion", "opacity", "fracture"),
        *("pneumonia", "viral", "virus", "bacterial", "bacteria", "covid", "covid19", "silicosis"),
        *(
            "tuberculosis",
            "tb",
            "atelectasis",
            "cardiomegaly",
            "consolidation",
            "edema",
            "effusion",
        ),
        *("emphysema", "fibrosis", "hernia", "infiltration", "infiltrate", "mass", "nodule"),
        *("pleural", "pneumothorax"),
    }
)
"""Words in the names of folders that hold a class, and not the images of a patient."""

_IMAGE_FOLDER: Final = re.compile(r"images?|imgs?")


def load_folder(
    root: str | os.PathLike[str],
    *,
    patient_level: int | None = None,
    folds: int | None = None,
    fold: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Dataset:
    """Load ``root/<class>/*`` or ``root/<split>/<class>/*``, with one label per class.

    Args:
        root: The folder, or one that contains nothing but it. If its subfolders are named train,
            val and test, or similar, they are the splits; without validation, a tenth of train
            becomes validation.
        patient_level: Which folder of an image's path names its patient, 1 for the first, which
            is the class; 0 if patients are unknown. By default, the patients in the headers if
            all images are DICOM files, else the only folder between class and image, if every
            image has one.
        folds: Number of folds, by patient, if no folders are splits.
        fold: The fold that is test; the next one is validation, the others are train.
        seed: Seed of the splits that no folder defines.
        progress: Called with the number of headers read and their total.

    Returns:
        A data set named after the folder. Its labels are the sorted classes; each image is
        positive for its class and negative for all others.

    Raises:
        DatasetError: If there is no image, an image is in no class folder, or split and class
            folders are side by side.
        UsageError: If an image is in fewer folders than ``patient_level``.
    """
    given, root = Path(root), _folder_of_classes(Path(root))
    splits = _split_folders(root)
    tree = scan_tree(root)
    parts = [path.split("/") for path in tree.images]
    depth = 1 if splits else 0
    for path, (*folders, _) in zip(tree.images, parts, strict=True):
        if len(folders) <= depth:
            raise DatasetError(
                f"the image {path} of {root} is in no class folder: move it into the folder of its "
                "class, or give `dataset` images to embed images without labels"
            )
    if not tree.images:
        raise DatasetError(f"{root} holds no images in folders of classes: create one per class")
    classes = [path[depth] for path in parts]
    names = sorted(set(classes))
    notes = tree.notes()
    if root != given:
        notes.append(f"The classes are the folders of {root.relative_to(given).as_posix()}.")
    empty = sorted(set(_class_folders(root, splits)) - set(names))
    if empty:
        notes.append(f"Folders without images were skipped: {', '.join(empty)}.")
    if len(names) == 1:
        notes.append(
            f"All images are of one class, {names[0]}: they can be searched, but nothing can be "
            "learned from a label that is the same for all."
        )
    between = [
        ["" if _IMAGE_FOLDER.fullmatch(name.lower()) else name for name in path[depth + 1 : -1]]
        for path in parts
    ]
    images = table_of_images(tree)
    header_notes: list[str] = []
    if patient_level is None:
        images, header_notes = read_dicom_headers(images, root, progress)
        if "patient" not in images:
            patient_level = _patient_level(between, depth)
    if patient_level:
        images = table_of_images(tree)
        images["patient"] = patients_from_folders(tree.images, patient_level)
        notes.append(
            f"Patients are the folders at level {patient_level}, "
            f"{count_noun(images['patient'].nunique(), 'patient')}. If these folders are something "
            "else, give `patient_level` 0."
        )
    else:
        notes += [*header_notes, *fill_patients(images)]
        if images["patient"].equals(images["id"]) and any(map(any, between)):
            notes.append(
                "There are folders inside of the class folders: if one is the patient, give its "
                f"`patient_level`, {depth + 2} for the first."
            )
    labels = (np.array(classes)[:, None] == np.array(names)).astype(np.int8)
    return dataset_of_tree(
        tree,
        root,
        named_after=given,
        images=images,
        labels=labels,
        label_names=names,
        stated=[path[0] for path in parts] if splits else None,
        notes=notes,
        folds=folds,
        fold=fold,
        seed=seed,
    )


def has_classes(root: Path) -> bool:
    """Return whether the subfolders of a folder are classes beyond doubt.

    They are if the same two or more are in each of several split folders, or if one of two or more
    is named like a finding, or as normal, and they contain nothing but images.
    """
    root = _folder_of_classes(root)
    entries = scan_folder(root)
    if entries.images:
        return False
    splits = [name for name in entries.folders if name.lower() in SPLIT_ALIASES]
    if splits:
        below = [scan_folder(root / name) for name in splits]
        classes = {entry.folders for entry in below}
        return (
            splits == list(entries.folders)
            and len(splits) > 1
            and not any(entry.images for entry in below)
            and len(classes) == 1
            and len(next(iter(classes))) > 1
            and _hold_only_images(root / splits[0], below[0].folders)
        )
    is_named = any(CLASS_WORDS.intersection(_words(name)) for name in entries.folders)
    return is_named and len(entries.folders) > 1 and _hold_only_images(root, entries.folders)


def _folder_of_classes(root: Path) -> Path:
    """Return the folder that holds the folders of splits or classes: the root, or one in it."""
    *outer, innermost = only_folders(root)
    # A single folder of images is a class, and a single split is a split.
    is_class = bool(outer) and bool(scan_folder(innermost).images)
    while outer and (is_class or innermost.name.lower() in SPLIT_ALIASES):
        innermost, is_class = outer.pop(), False
    return innermost


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z]+\d*", name.lower())


def _hold_only_images(root: Path, folders: Sequence[str]) -> bool:
    scans = [scan_folder(root / folder) for folder in folders]
    return any(scan.images for scan in scans) and not any(scan.folders for scan in scans)


def _split_folders(root: Path) -> bool:
    """Return whether the subfolders are splits, and not classes."""
    folders = scan_folder(root).folders
    splits = [name for name in folders if name.lower() in SPLIT_ALIASES]
    if splits and (classes := [name for name in folders if name not in splits]):
        raise DatasetError(
            f"{root} contains the split folder {splits[0]!r} beside {classes[0]!r}: keep only "
            "splits, or only classes"
        )
    return bool(splits)


def _class_folders(root: Path, splits: bool) -> list[str]:
    folders = scan_folder(root).folders
    if not splits:
        return list(folders)
    return [name for split in folders for name in scan_folder(root / split).folders]


def _patient_level(between: Sequence[Sequence[str]], depth: int) -> int:
    """Return the level of the only folder between class and image, 0 if there is no such level.

    Args:
        between: The folders between class and image, for each image; "" for a folder that only
            says that images are in it.
        depth: Number of folders above the class.
    """
    positions = {tuple(i for i, name in enumerate(folders) if name) for folders in between}
    if len(positions) > 1:
        return 0
    (positions_of_all,) = positions
    if len(positions_of_all) != 1:
        return 0
    (at,) = positions_of_all
    return depth + 2 + at if len({folders[at] for folders in between}) > 1 else 0
