"""VinDr-CXR: 18,000 frontal images, read by three radiologists each, 22 findings and 6 diagnoses.

Nguyen et al., "VinDr-CXR" (Scientific Data 2022). PhysioNet has the images in ``train/`` and
``test/`` and the labels in ``annotations/``. The Kaggle challenge has 14 findings and no labels of
test images: ``train.csv``, with one row for each finding, box and reader.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.datasets.boxes import VINDR, read_boxes
from featurecache.datasets.cell_values import read_labels
from featurecache.datasets.release import (
    Listing,
    find_table,
    has_columns,
    read_table,
    require_table,
)
from featurecache.datasets.table_reader import open_table
from featurecache.errors import DatasetError
from featurecache.label_cells import NEGATIVE, POSITIVE, cells_of_votes
from featurecache.wording import count_noun

if TYPE_CHECKING:
    import pandas as pd

_KAGGLE: Final = ("image_id", "class_name", "class_id", "rad_id")
_SUFFIXES: Final = (".dicom", ".dcm", ".png", ".jpg")


def list_vindr_cxr(root: Path) -> Listing:
    """List the images of VinDr-CXR.

    Args:
        root: Folder of PhysioNet's release, with ``annotations/image_labels_train.csv`` and
            ``image_labels_test.csv``; or of the Kaggle challenge, with ``train.csv``.

    Returns:
        The images, with the labels in their official names and order, and how many of the readers
        state each. Test images of PhysioNet have one consensus. Patients are unknown.

    Raises:
        DatasetError: If there is no table.
    """
    notes: list[str] = []
    if files := _physionet_tables(root):
        read = _read_all(files, notes)
        drawn = [
            find_table(file.parent, f"annotations_{split}.csv") for split, file in files.items()
        ]
    else:
        files = {"train": require_table(root, "train.csv", "annotations/image_labels_train.csv")}
        read = _read_kaggle(files["train"], notes)
        drawn = [*files.values()]
    return _listing([*files.values()], read, notes, drawn)


def list_vindr_pcxr(root: Path) -> Listing:
    """List the images of VinDr-PCXR, of children under ten.

    Args:
        root: Folder with ``image_labels_train.csv`` and ``image_labels_test.csv``, or with these
            in ``annotations/``, and ``train/`` and ``test/``.

    Returns:
        The images, with the labels in their official names and order, misspelled
        ones too. Patients are unknown.

    Raises:
        DatasetError: If there is no table.
    """
    notes: list[str] = []
    files = _physionet_tables(root)
    if not files:
        require_table(root, "image_labels_train.csv", "annotations/image_labels_train.csv")
    return _listing([*files.values()], _read_all(files, notes), notes, [])


def is_vindr_cxr(folder: Path) -> bool:
    """Return whether a folder has the tables of VinDr-CXR."""
    return has_columns(find_table(folder, "train.csv"), _KAGGLE) or has_columns(
        _physionet_tables(folder).get("train"), ["image_id", "Aortic enlargement"]
    )


def is_vindr_pcxr(folder: Path) -> bool:
    """Return whether a folder has the tables of VinDr-PCXR."""
    return has_columns(_physionet_tables(folder).get("train"), ["image_id", "Bronchiolitis"])


@dataclass(frozen=True)
class _Votes:
    """What the readers of N images state.

    Attributes:
        images: N rows of text: ``id`` and ``folder``.
        positive: (N, C) number of readers that state each label.
        readers: (N,) number of readers.
    """

    images: "pd.DataFrame"
    positive: "pd.DataFrame"
    readers: NDArray[np.int_]


def _listing(
    files: Sequence[Path], votes: _Votes, notes: list[str], drawn: Sequence[Path | None]
) -> Listing:
    import pandas as pd

    cells = cells_of_votes(votes.positive.to_numpy(), votes.readers)
    disagree = ~np.isin(cells, (NEGATIVE, POSITIVE)).all(axis=1)
    if disagree.any():
        notes.append(
            f"Readers disagree on {count_noun(int(disagree.sum()), 'image')}. How many of them "
            "have to state a finding is chosen when the labels are used."
        )
    boxes = [read_boxes(file, VINDR, notes) for file in drawn if file is not None]
    images = votes.images
    path = images["folder"] + "/" + images["id"]
    if "test" in set(images["folder"]):
        images = images.assign(split=images["folder"])
    return Listing(
        files=files,
        images=images.drop(columns="folder"),
        paths=[path + suffix for suffix in _SUFFIXES],
        cells=cells,
        label_names=tuple(votes.positive.columns),
        split_file="annotations/image_labels_test.csv",
        notes=notes,
        boxes=pd.concat(boxes) if boxes else None,
    )


def _physionet_tables(root: Path) -> dict[str, Path]:
    """Return the tables of train and test, none without that of train."""
    files = {
        split: find_table(root / "annotations", name) or find_table(root, name)
        for split, name in (
            ("train", "image_labels_train.csv"),
            ("test", "image_labels_test.csv"),
        )
    }
    found = {split: file for split, file in files.items() if file is not None}
    return found if "train" in found else {}


def _read_kaggle(file: Path, notes: list[str]) -> _Votes:
    table = read_table(file, _KAGGLE, notes)
    classes = table[["class_name", "class_id"]].drop_duplicates()
    order = classes["class_name"].iloc[classes["class_id"].astype(int).argsort()].tolist()
    # A reader may draw several boxes of one class.
    stated = table[["image_id", "rad_id", "class_name"]].drop_duplicates()
    positive = stated.groupby(["image_id", "class_name"]).size().unstack(fill_value=0)[order]
    readers = stated.groupby("image_id")["rad_id"].nunique().loc[positive.index]
    images = positive.index.to_frame(index=False, name="id").assign(folder="train")
    return _Votes(images, positive, np.array(readers, dtype=np.int_))


def _read_all(files: dict[str, Path], notes: list[str]) -> _Votes:
    """Read tables with one row for each image and reader."""
    import pandas as pd

    positive, readers, folders = [], [], []
    for folder, file in files.items():
        header = open_table(file).header
        names = [name for name in header if name.lower() not in ("image_id", "rad_id")]
        table = read_table(file, ["image_id", *names], notes)
        values, _ = read_labels(table[names], file=file)
        stated = pd.DataFrame((values == 1).astype(int), columns=names)
        # The table of train of VinDr-CXR calls it "Other diseases".
        by_image = stated.rename(columns={"Other diseases": "Other disease"}).groupby(
            table["image_id"].to_numpy()
        )
        positive.append(by_image.sum())
        readers.append(np.array(by_image.size(), dtype=np.int_))
        folders += [folder] * len(positive[-1])
        if set(positive[-1]) != set(positive[0]):
            raise DatasetError(f"the labels of {file} are not those of {files['train']}")
    votes = pd.concat(positive)
    images = votes.index.to_frame(index=False, name="id").assign(folder=folders)
    return _Votes(images, votes, np.concatenate(readers))
