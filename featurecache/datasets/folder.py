"""Any folder of images sorted into one folder per class."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from featurecache.datasets.dataset import UNKNOWN_PATIENTS, Dataset, safe_name
from featurecache.datasets.scan import scan_folder
from featurecache.datasets.splits import SPLIT_ALIASES, carve_validation, patient_split
from featurecache.errors import DatasetError


def load_folder(root: str | os.PathLike[str], *, seed: int = 0) -> Dataset:
    """Load ``root/<class>/*`` or ``root/<split>/<class>/*``: one label per class.

    Args:
        root: The folder. Where its folders are called train, val (or valid, validation, dev) and
            test, they are the split; without a val folder, a tenth of train becomes validation.
        seed: Decides the parts of the split that no folder decides.

    Returns:
        A manifest named after the folder, with the classes, sorted, as labels; each image has
        the label of its class and none of the others.

    Raises:
        DatasetError: there are fewer than two classes, a class without images, a folder inside a
            class, or splits and classes side by side.
    """
    import pandas as pd

    root = Path(root)
    splits = _split_folders(root)
    ids: list[str] = []
    classes: list[str] = []
    split: list[str] = []
    notes = [UNKNOWN_PATIENTS]
    for folder, split_name in splits.items():
        for name in _class_folders(root / folder):
            place = f"{folder}/{name}" if folder else name
            listing = scan_folder(root / place)
            if listing.folders:
                raise DatasetError(
                    f"the class folder {root / place} holds the folder {listing.folders[0]!r}: put "
                    "the images of a class directly into its folder, or list them in a CSV file "
                    "and load that as a table"
                )
            if not listing.images:
                raise DatasetError(f"the class folder {root / place} has no images: remove it")
            if listing.others:
                notes.append(
                    f"Files left out of {place} because they are no images: "
                    f"{len(listing.others):,}."
                )
            ids += [f"{place}/{image}" for image in listing.images]
            classes += [name] * len(listing.images)
            split += [split_name] * len(listing.images)

    names = sorted(set(classes))
    if len(names) < 2:
        raise DatasetError(
            f"{root} has only one class, {names[0]!r}: sort the images into two or more class "
            "folders, or list them in a CSV file and load that as a table"
        )
    labels = (np.array(classes)[:, None] == np.array(names)).astype(np.int8)
    if "" in splits:
        assigned = patient_split(ids, labels, seed=seed)
        notes.append("The split is stratified by class, 70 % train, 10 % validation, 20 % test.")
    elif "val" not in splits.values():
        assigned = carve_validation(ids, labels, split, seed=seed)
        notes.append("There is no val folder: a tenth of train is validation.")
    else:
        assigned = np.array(split)
    return Dataset(
        name=safe_name(root.resolve().name),
        root=root,
        images=pd.DataFrame(
            {"id": ids, "path": ids, "patient": ids, "split": assigned, "view": ""}, dtype=str
        ),
        labels=labels,
        label_names=tuple(names),
        notes=tuple(notes),
    )


def _split_folders(root: Path) -> Mapping[str, str]:
    """The split that each folder stands for; the empty name where folders are classes."""
    listing = scan_folder(root)
    if listing.images:
        raise DatasetError(
            f"the image {listing.images[0]} lies directly in {root} and so has no class: put it "
            "into the folder of its class"
        )
    splits = {
        name: SPLIT_ALIASES[name.lower()]
        for name in listing.folders
        if name.lower() in SPLIT_ALIASES
    }
    if not splits:
        return {"": ""}
    if classes := [name for name in listing.folders if name not in splits]:
        raise DatasetError(
            f"{root} holds the split folder {next(iter(splits))!r} beside {classes[0]!r}: keep "
            "splits only, or classes only"
        )
    if len(set(splits.values())) < len(splits):
        raise DatasetError(
            f"{root} holds two folders for one split ({', '.join(splits)}): keep one of each"
        )
    return splits


def _class_folders(folder: Path) -> tuple[str, ...]:
    listing = scan_folder(folder)
    if listing.images:
        raise DatasetError(
            f"the image {listing.images[0]} lies directly in {folder} and so has no class: put it "
            "into the folder of its class"
        )
    if not listing.folders:
        raise DatasetError(f"{folder} holds no class folders: put one folder per class there")
    return listing.folders
