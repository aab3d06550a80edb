"""Data sets in a folder with one subfolder of images per class."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from featurecache.datasets.dataset import UNKNOWN_PATIENTS, Dataset, safe_name
from featurecache.datasets.scan import scan_folder
from featurecache.datasets.splits import SPLIT_ALIASES, complete_split
from featurecache.errors import DatasetError


def load_folder(
    root: str | os.PathLike[str],
    *,
    folds: int | None = None,
    fold: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Load ``root/<class>/*`` or ``root/<split>/<class>/*``, with one label per class.

    Args:
        root: The folder. If its subfolders are named train, val (or valid, validation, dev) and
            test, they are the splits; without a val folder, a tenth of train becomes validation.
        folds: Number of folds, by patient, if no folders are splits.
        fold: The fold that is test; the next one is validation, the others are train.
        seed: Seed of the splits that no folder defines.

    Returns:
        A data set named after the folder. Its labels are the sorted classes; each image is
        positive for its class and negative for all others.

    Raises:
        DatasetError: If there are fewer than two classes, a class without images, a folder inside
            a class folder, or split and class folders side by side.
    """
    import pandas as pd

    root = Path(root)
    splits = _split_folders(root)
    ids: list[str] = []
    classes: list[str] = []
    image_splits: list[str] = []
    notes = [UNKNOWN_PATIENTS]
    for split_folder, split in splits.items():
        class_names = _subfolders(root / split_folder)
        if not class_names:
            raise DatasetError(
                f"{root / split_folder} contains no class folders: create one folder per class"
            )
        for class_name in class_names:
            folder = f"{split_folder}/{class_name}" if split_folder else class_name
            entries = scan_folder(root / folder)
            if entries.folders:
                raise DatasetError(
                    f"the class folder {root / folder} contains the folder "
                    f"{entries.folders[0]!r}: put the images of a class directly into its folder, "
                    "or list them in a CSV file"
                )
            if not entries.images:
                raise DatasetError(f"the class folder {root / folder} has no images: remove it")
            if entries.others:
                notes.append(
                    f"Files in {folder} that are not images and were skipped: "
                    f"{len(entries.others):,}."
                )
            ids += [f"{folder}/{image}" for image in entries.images]
            classes += [class_name] * len(entries.images)
            image_splits += [split] * len(entries.images)

    names = sorted(set(classes))
    if len(names) < 2:
        raise DatasetError(
            f"{root} has only one class, {names[0]!r}: sort the images into two or more class "
            "folders, or list them in a CSV file"
        )
    labels = (np.array(classes)[:, None] == np.array(names)).astype(np.int8)
    completed = complete_split(
        ids,
        labels,
        names,
        stated=image_splits,
        source=f"the folder {root}",
        folds=folds,
        fold=fold,
        seed=seed,
    )
    return Dataset(
        name=safe_name(root.resolve().name),
        root=root,
        images=pd.DataFrame(
            {"id": ids, "path": ids, "patient": ids, "split": completed.names}, dtype=str
        ),
        labels=labels,
        label_names=names,
        notes=[*notes, *completed.notes],
    )


def _split_folders(root: Path) -> Mapping[str, str]:
    """Return the split of each split folder; {"": ""} if the subfolders are classes."""
    subfolders = _subfolders(root)
    splits = {
        name: SPLIT_ALIASES[name.lower()] for name in subfolders if name.lower() in SPLIT_ALIASES
    }
    if not splits:
        return {"": ""}
    if classes := [name for name in subfolders if name not in splits]:
        raise DatasetError(
            f"{root} contains the split folder {next(iter(splits))!r} beside {classes[0]!r}: keep "
            "only splits, or only classes"
        )
    if len(set(splits.values())) < len(splits):
        raise DatasetError(
            f"{root} contains two folders for one split ({', '.join(splits)}): keep one of each"
        )
    return splits


def _subfolders(folder: Path) -> tuple[str, ...]:
    """Return the names of the subfolders, and check that no image is beside them."""
    entries = scan_folder(folder)
    if entries.images:
        raise DatasetError(
            f"the image {entries.images[0]} is directly in {folder} and therefore has no class: "
            "move it into the folder of its class"
        )
    return entries.folders
