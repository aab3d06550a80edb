"""VinDr-CXR: 18,000 frontal images, read by three radiologists each, 22 findings and 6 diagnoses.

Nguyen et al., "VinDr-CXR" (Scientific Data 2022). PhysioNet has the images in ``train/`` and
``test/`` and the labels in ``annotations/``. The Kaggle challenge has 14 findings and no labels of
test images: ``train.csv``, with one row for each finding, box and reader.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.datasets.cell_values import read_labels
from featurecache.datasets.dataset import Dataset
from featurecache.datasets.release import (
    Listing,
    find_table,
    has_columns,
    read_table,
    require_table,
)
from featurecache.datasets.table_reader import open_table
from featurecache.errors import UsageError
from featurecache.wording import count_noun

if TYPE_CHECKING:
    import pandas as pd

_KAGGLE: Final = ("image_id", "class_name", "class_id", "rad_id")
_SUFFIXES: Final = (".dicom", ".dcm", ".png", ".jpg")


def load_vindr_cxr(
    root: str | os.PathLike[str],
    *,
    readers: str | int = "majority",
    split: str = "auto",
    folds: int | None = None,
    fold: int | None = None,
    seed: int = 0,
    require_images: bool = True,
) -> Dataset:
    """Load the images of VinDr-CXR that are on disk.

    Args:
        root: Folder of PhysioNet's release, with ``annotations/image_labels_train.csv`` and
            ``image_labels_test.csv``; or of the Kaggle challenge, with ``train.csv``.
        readers: How many readers have to state a finding: "any", "majority", or their number. Test
            images of PhysioNet have one consensus.
        split: "official": train and test of PhysioNet's release, with validation taken from train;
            "patient" ignores them; "auto" is the official split where there is one.
        folds: Number of folds instead of these splits.
        fold: The fold that is test; the next one is validation, the others are train.
        seed: Seed of the splits that the release does not state.
        require_images: Load only images that are on disk; if False, all that are listed.

    Returns:
        The data set "vindr-cxr", with the labels in their official names and order. Patients are
        unknown.

    Raises:
        DatasetError: If there is no table or no image.
        UsageError: If ``readers`` is none of these.
        UnknownNameError: If there is no such split.
    """
    root = Path(root)
    number = int(readers) if str(readers).isdecimal() else 0
    if readers not in ("any", "majority") and not number:
        raise UsageError(f"`readers` is {readers!r}: give 'any', 'majority' or a number")
    notes: list[str] = []
    annotations = root / "annotations"
    file = find_table(annotations, "image_labels_train.csv")
    if file is None:
        file = require_table(root, "train.csv", "annotations/image_labels_train.csv")
        votes, n_readers = _read_kaggle(file, notes)
        images = votes.index.to_frame(index=False, name="id").assign(folder="train")
    else:
        tables = {"train": _read_physionet(file, notes)}
        if test := find_table(annotations, "image_labels_test.csv"):
            tables["test"] = _read_physionet(test, notes)
        votes, n_readers, images = _join(tables)
    majority = n_readers // 2 + 1
    needed = majority if readers == "majority" else np.minimum(n_readers, number or 1)
    counts = votes.to_numpy()
    notes.append(
        f"Findings are positive if {'a majority' if readers == 'majority' else readers} of the "
        "readers state them (`readers`). Readers disagree on "
        f"{count_noun(int(_disagree(counts, n_readers).sum()), 'image')}."
    )
    path = images["folder"] + "/" + images["id"]
    if "test" in set(images["folder"]):
        images["split"] = images["folder"]
    listing = Listing(
        file=file,
        images=images.drop(columns="folder"),
        paths=[path + suffix for suffix in _SUFFIXES],
        cells=(counts >= needed[:, None]).astype(np.int8),
        label_names=tuple(votes.columns),
        notes=notes,
    )
    return listing.dataset(
        "vindr-cxr",
        root,
        split=split,
        folds=folds,
        fold=fold,
        seed=seed,
        require_images=require_images,
    )


def is_vindr_cxr(folder: Path) -> bool:
    """Return whether a folder has the tables of VinDr-CXR."""
    columns = ["image_id", "rad_id", "Aortic enlargement"]
    return has_columns(find_table(folder, "train.csv"), _KAGGLE) or has_columns(
        find_table(folder / "annotations", "image_labels_train.csv"), columns
    )


def _disagree(votes: NDArray[np.int_], n_readers: NDArray[np.int_]) -> NDArray[np.bool_]:
    return np.asarray(((votes > 0) & (votes < n_readers[:, None])).any(axis=1))


def _read_kaggle(file: Path, notes: list[str]) -> "tuple[pd.DataFrame, NDArray[np.int_]]":
    """Return the (N, C) numbers of readers that state each class, by image, and of all readers."""
    table = read_table(file, _KAGGLE, notes)
    classes = table[["class_name", "class_id"]].drop_duplicates()
    order = classes["class_name"].iloc[classes["class_id"].astype(int).argsort()].tolist()
    # A reader may draw several boxes of one class.
    stated = table[["image_id", "rad_id", "class_name"]].drop_duplicates()
    votes = stated.groupby(["image_id", "class_name"]).size().unstack(fill_value=0)[order]
    n_readers = stated.groupby("image_id")["rad_id"].nunique().loc[votes.index]
    return votes.rename_axis(columns=None), np.array(n_readers, dtype=np.int_)


def _read_physionet(file: Path, notes: list[str]) -> "tuple[pd.DataFrame, NDArray[np.int_]]":
    """Return the same of a table with one row for each image and reader."""
    names = [name for name in open_table(file).header if name not in ("image_id", "rad_id")]
    table = read_table(file, ["image_id", *names], notes)
    values, _ = read_labels(table[names], file=file)
    rows = table[["image_id"]].assign(**dict(zip(names, (values == 1).astype(int).T, strict=True)))
    # The table of train calls it "Other diseases".
    by_image = rows.rename(columns={"Other diseases": "Other disease"}).groupby("image_id")
    return by_image.sum(), np.array(by_image.size(), dtype=np.int_)


def _join(
    tables: "dict[str, tuple[pd.DataFrame, NDArray[np.int_]]]",
) -> "tuple[pd.DataFrame, NDArray[np.int_], pd.DataFrame]":
    import pandas as pd

    votes = pd.concat([found for found, _ in tables.values()])[tables["train"][0].columns]
    folders = [folder for folder, (found, _) in tables.items() for _ in range(len(found))]
    images = votes.index.to_frame(index=False, name="id").assign(folder=folders)
    return votes, np.concatenate([n_readers for _, n_readers in tables.values()]), images
