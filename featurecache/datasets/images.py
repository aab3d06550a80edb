"""All images below a folder, without labels."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurecache.datasets.dataset import Dataset, safe_name
from featurecache.datasets.patients import fill_patients, read_dicom_headers
from featurecache.datasets.scan import ImageTree, describe_suffixes, scan_tree
from featurecache.datasets.splits import SPLIT_ALIASES, complete_split
from featurecache.datasets.table_reader import tables_in
from featurecache.errors import DatasetError, UsageError
from featurecache.progress import Progress
from featurecache.wording import count_noun

if TYPE_CHECKING:
    import pandas as pd


def load_images(
    root: str | os.PathLike[str],
    *,
    patient_level: int | None = None,
    folds: int | None = None,
    fold: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Dataset:
    """Load every image below a folder, without labels.

    Images are recognized by their suffix or by their first bytes, DICOM included.

    Args:
        root: The folder. If all images are in subfolders named train, val or test, or similar,
            these are the splits.
        patient_level: Which folder of an image's path names its patient, 1 for the first; 0 if
            patients are unknown. By default, the patients in the headers if all images are DICOM
            files.
        folds: Number of folds, by patient, that the images are divided into.
        fold: The fold that is test; the next one is validation, the others are train.
        seed: Seed of the splits that no folder defines.
        progress: Called with the number of headers read and their total.

    Returns:
        A data set named after the folder. The ids are paths relative to it.

    Raises:
        DatasetError: If there is no image, or a folder cannot be read.
        UsageError: If an image is in fewer folders than ``patient_level``.
    """
    root = Path(root)
    tree = scan_tree(root)
    if not tree.images:
        seen = describe_suffixes(tree.others) or "no files"
        raise DatasetError(
            f"{root} holds no images: looked in it and in all folders below for PNG, JPEG, TIFF, "
            f"BMP, WebP, PPM and DICOM files of any name, and found {seen}"
        )
    folders = [path.split("/")[:-1] for path in tree.images]
    firsts = {parts[0].lower() if parts else "" for parts in folders}
    is_split = firsts <= SPLIT_ALIASES.keys()
    notes = ["There are no labels.", *tree.notes()]
    images = table_of_images(tree)
    if patient_level:
        images["patient"] = patients_from_folders(tree.images, patient_level)
        notes.append(
            f"Patients are the folders at level {patient_level}: "
            f"{count_noun(images['patient'].nunique(), 'patient')}."
        )
    else:
        if patient_level is None:
            images, header_notes = read_dicom_headers(images, root, progress)
            notes += header_notes
        notes += fill_patients(images)
        is_unknown = images["patient"].equals(images["id"])
        level = _first_varying_level(folders, after=int(is_split))
        if is_unknown and level:
            n_folders = len({parts[level - 1] for parts in folders})
            notes.append(
                f"The images are in {n_folders:,} folders, at level {level} of their paths. If "
                f"these are patients, give `patient_level` {level}; if they are classes, give "
                "`dataset` folder."
            )
    notes += _notes_on_tables(root)
    return dataset_of_tree(
        tree,
        root,
        named_after=root,
        images=images,
        stated=[parts[0] for parts in folders] if is_split else None,
        notes=notes,
        folds=folds,
        fold=fold,
        seed=seed,
    )


def _notes_on_tables(root: Path) -> list[str]:
    """Return what a reader has to know about the tables beside the images, which are not read."""
    tables = tables_in(root)
    empty = [name for name in tables if not (root / name).stat().st_size]
    notes = [f"{name} is empty, so it holds no labels: copy it here again." for name in empty]
    filled = [name for name in tables if name not in empty]
    if len(filled) == 1:
        notes.append(
            f"A table is beside the images, {filled[0]}: to read labels from it, give its columns "
            "as `labels`, `multilabel` or `classes`."
        )
    elif filled:
        notes.append(
            f"Tables are beside the images, {', '.join(filled)}: to read labels from one of them, "
            "give it as `root`, and its columns as `labels`, `multilabel` or `classes`."
        )
    return notes


def table_of_images(tree: ImageTree) -> "pd.DataFrame":
    """Return the ids and paths of n images, which are the same."""
    import pandas as pd

    return pd.DataFrame({"id": tree.images, "path": tree.images}, dtype=str)


def dataset_of_tree(
    tree: ImageTree,
    root: Path,
    *,
    named_after: Path,
    images: "pd.DataFrame",
    labels: NDArray[np.int8] | None = None,
    label_names: Sequence[str] = (),
    stated: Sequence[str] | None,
    notes: Sequence[str],
    folds: int | None,
    fold: int | None,
    seed: int,
) -> Dataset:
    """Return the data set of all images below a folder, with its splits completed.

    Args:
        tree: The n images, whose paths are their ids.
        root: The folder.
        named_after: The folder that names the data set.
        images: Their table, with patients.
        labels: (n, C) int8 of 1 and 0; None without labels.
        label_names: The C names.
        stated: Name of the split folder of each image; None if no folder states a split.
        notes: Notes, which those on the splits follow.
        folds: See ``load_images``, as for the two below.
        fold: See there.
        seed: See there.
    """
    completed = complete_split(
        images["patient"],
        np.empty((len(tree.images), 0), dtype=np.int8) if labels is None else labels,
        label_names,
        stated=stated,
        source=f"the folder {root}",
        folds=folds,
        fold=fold,
        seed=seed,
    )
    return Dataset(
        name=safe_name(named_after.resolve().name),
        root=root,
        images=images.assign(split=completed.names).astype(str),
        labels=labels,
        label_names=None if labels is None else label_names,
        notes=[*notes, *completed.notes],
        split_draw=completed.draw,
        excluded={"a mask": tree.masks},
    )


def _first_varying_level(folders: Sequence[Sequence[str]], *, after: int) -> int:
    """Return the first level, from 1, at which images are in different folders; 0 for none.

    Args:
        folders: Folders that each image is in, from the root.
        after: Number of levels that are something else.
    """
    levels = list(zip(*folders, strict=False))  # as deep as the image with the fewest folders
    varying = (level for level in range(after, len(levels)) if len(set(levels[level])) > 1)
    return 1 + next(varying, -1)


def patients_from_folders(paths: Sequence[str], level: int) -> list[str]:
    """Return the patient of each image: the name of a folder in its path.

    Args:
        paths: Paths relative to the root, with "/".
        level: Which folder, 1 for the first.

    Raises:
        UsageError: If the level is negative, or an image is in fewer folders.
    """
    if level < 1:
        raise UsageError(f"`patient_level` is {level}: give 1 for the first folder, or 0 for none")
    patients = []
    for path in paths:
        *folders, _ = path.split("/")
        if len(folders) < level:
            raise UsageError(
                f"`patient_level` is {level}, but the image {path} is in "
                f"{count_noun(len(folders), 'folder')}: move it, or give another level"
            )
        patients.append(folders[level - 1])
    return patients
