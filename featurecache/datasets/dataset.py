"""The Dataset: what every data set becomes, a table of images and a matrix of labels."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from featurecache.datasets.path_safety import links_leaving_root
from featurecache.datasets.splits import SPLITS
from featurecache.errors import DatasetError, UnknownNameError

if TYPE_CHECKING:
    import pandas as pd

    from featurecache.datasets.pseudonymize import IdKey

COLUMNS = ("id", "path", "patient", "split", "view", "sex", "age")

OPTIONAL_COLUMNS = ("sex", "age")

OLDEST = 120
"""Years; more is a slip of the pen. The first release of ChestX-ray14 has ages above 400."""

UNKNOWN_PATIENTS = (
    "No patients are known: each image counts as its own patient, so images of one person may be "
    "in more than one split, and intervals over patients are intervals over images."
)

IMAGE_LEVEL_SPLIT = (
    "IMAGE-LEVEL SPLIT: images of one patient may be in both the training and the test images, so "
    "its scores are optimistic and do not compare with those of a split by patient."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """One data set: its images, their labels, and what was left out and why.

    Construction checks everything and sorts the rows by id, so a manifest that exists is sound.
    Where the given ``images`` have an index named "line" (line numbers of a CSV file), messages
    name the line as well; the index is not kept.

    Attributes:
        name: Name of the data set, fit to be a folder's name.
        root: Folder that the paths start from.
        images: N rows of strings, in the columns ``id`` (unique), ``path`` (posix, relative to
            the root), ``patient``, ``split`` ("train", "val" or "test"), ``view``, ``sex`` and
            ``age`` in years ("" where unknown), sorted by id. The last two may be left out of
            what is given: then they are unknown.
        labels: (N, C) int8, read-only: 1, 0, or -1 where unknown.
        label_names: C names.
        notes: Sentences for the user: what was left out, which split was used.
        image_level_split: Whether a patient may be in two splits; such a manifest says so in
            its notes.
        collection: Name of the published films that the images are of: data sets of one
            collection share ids. The data set's name where none is given.
        key: What the ids and patients are hashed with; None where they are as they were.

    Raises:
        DatasetError: there are no images; a column is missing or not text; an id is not unique;
            a path leaves the root; a split is unknown; a patient is in two splits; a label has no
            name of its own or a value other than 1, 0, -1; an age is no number of years; the name
            does not fit a folder.
    """

    name: str
    root: Path
    images: "pd.DataFrame"
    labels: npt.NDArray[np.int8]
    label_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    image_level_split: bool = False
    collection: str = ""
    key: "IdKey | None" = None

    def __post_init__(self) -> None:
        if self.name != safe_name(self.name):
            raise DatasetError(
                f"the data set name {self.name!r} does not fit a folder: "
                f"use for example {safe_name(self.name)!r}"
            )
        if not self.collection:
            object.__setattr__(self, "collection", self.name)
        absent = [column for column in OPTIONAL_COLUMNS if column not in self.images.columns]
        object.__setattr__(self, "images", self.images.assign(**dict.fromkeys(absent, "")))
        _check_columns(self.images)
        _check_ids(self.images)
        _check_paths(self.images, self.root)
        _check_splits(self.images)
        _check_ages(self.images)
        if not self.image_level_split:
            _check_patients(self.images)
        elif IMAGE_LEVEL_SPLIT not in self.notes:
            object.__setattr__(self, "notes", (*self.notes, IMAGE_LEVEL_SPLIT))
        _check_labels(self.images, self.labels, self.label_names)

        order = self.images["id"].argsort().to_numpy()
        images = self.images.loc[:, list(COLUMNS)].iloc[order].astype(str).reset_index(drop=True)
        labels = np.asarray(self.labels)[order].astype(np.int8)
        labels.flags.writeable = False
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", labels)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)

    def files(self) -> dict[str, Path]:
        """Where each image lies, by its id."""
        paths = (self.root / path for path in self.images["path"])
        return dict(zip(self.images["id"], paths, strict=True))

    def take(self, rows: npt.NDArray[np.intp]) -> "Dataset":
        """The data set with only these images.

        Raises:
            DatasetError: there are none.
        """
        return replace(self, images=self.images.iloc[rows], labels=self.labels[rows])

    def rows(self, split: str) -> npt.NDArray[np.intp]:
        """The row numbers, ascending, of the images in one split.

        Raises:
            UnknownNameError: there is no such split.
        """
        if split not in SPLITS:
            raise UnknownNameError("split", split, SPLITS)
        return np.flatnonzero(self.images["split"].to_numpy() == split)


def safe_name(text: str) -> str:
    """A name made fit for a folder: letters, digits, ``_``, ``-`` and ``.``, no dot in front.

    Raises:
        DatasetError: nothing of the text can be kept.
    """
    name = re.sub(r"[^\w.-]+", "-", text).strip("-.")
    if not name:
        raise DatasetError(f"no data set can be named after {text!r}: rename the file or folder")
    return name


def _row(images: "pd.DataFrame", where: npt.NDArray[np.bool_]) -> str:
    """How messages call the first of the marked rows: its id, and its line where known."""
    position = int(np.argmax(where))
    name = repr(images["id"].iloc[position])
    return f"{name} (line {images.index[position]})" if images.index.name == "line" else name


def _check_columns(images: "pd.DataFrame") -> None:
    from pandas.api.types import infer_dtype

    missing = [column for column in COLUMNS if column not in images.columns]
    if missing:
        raise DatasetError(
            f"the table of images lacks {', '.join(missing)}: it needs "
            f"{', '.join(column for column in COLUMNS if column not in OPTIONAL_COLUMNS)}"
        )
    if images.empty:
        raise DatasetError("the data set has no images: check the folder")
    for column in COLUMNS:
        # A nullable text column counts as text whatever it lacks, hence the second question.
        if infer_dtype(images[column], skipna=False) != "string" or images[column].hasnans:
            raise DatasetError(f"the column {column} of the table of images is not all text")
        if (cut := images[column].str.contains("\0", regex=False).to_numpy(dtype=bool)).any():
            raise DatasetError(
                f"the {column} of image {_row(images, cut)} has a character of value 0, which no "
                "cache can hold: take it out"
            )
    for column in ("id", "path", "patient"):
        if (empty := (images[column] == "").to_numpy()).any():
            raise DatasetError(f"the {column} of image {_row(images, empty)} is empty: fill it in")


def _check_ids(images: "pd.DataFrame") -> None:
    # Side by side in their order: a table of hashes takes more memory than the images do.
    ordered = images["id"].sort_values().array
    if (ordered[1:] == ordered[:-1]).any():
        repeated = images["id"].duplicated().to_numpy()
        raise DatasetError(
            f"the id {_row(images, repeated)} is there twice: keep one row for each image"
        )


def _check_paths(images: "pd.DataFrame", root: Path) -> None:
    paths = images["path"]
    # A drive letter makes a path absolute on Windows.
    absolute = paths.str.match(r"/|[A-Za-z]:").to_numpy(dtype=bool)
    if absolute.any():
        raise DatasetError(
            f"the path of image {_row(images, absolute)} is absolute: "
            f"write it relative to the root, {root}"
        )
    upwards = paths.str.contains(r"(?:^|/)\.\.(?:/|$)").to_numpy(dtype=bool)
    if upwards.any():
        raise DatasetError(
            f"the path of image {_row(images, upwards)} leaves the root with '..': "
            f"give a root that holds every image, or mend the path"
        )
    linked = links_leaving_root(root, paths)
    if linked.any():
        raise DatasetError(
            f"the path of image {_row(images, linked)} leaves the root {root} through a symbolic "
            "link: give the folder that the link leads to, or put the images inside the root"
        )


def _check_splits(images: "pd.DataFrame") -> None:
    if (unknown := ~images["split"].isin(SPLITS).to_numpy()).any():
        found = images["split"].iloc[int(np.argmax(unknown))]
        raise DatasetError(
            f"the split of image {_row(images, unknown)} is {found!r}: "
            f"it has to be {', '.join(SPLITS[:-1])} or {SPLITS[-1]}"
        )


def _check_ages(images: "pd.DataFrame") -> None:
    import pandas as pd

    years = pd.to_numeric(images["age"].where(images["age"] != "", "0"), errors="coerce")
    if (wrong := ~years.between(0, OLDEST).to_numpy()).any():
        found = images["age"].iloc[int(np.argmax(wrong))]
        raise DatasetError(
            f"the age of image {_row(images, wrong)} is {found!r}: it has to be a number of years "
            f"from 0 to {OLDEST}, or blank where it is unknown"
        )


def _check_patients(images: "pd.DataFrame") -> None:
    # Side by side in their order, as the ids are.
    order = images["patient"].argsort(kind="stable").to_numpy()
    patients, splits = (images[name].array.take(order) for name in ("patient", "split"))
    same = np.asarray(patients[1:] == patients[:-1], dtype=np.bool_)
    differ = np.asarray(splits[1:] != splits[:-1], dtype=np.bool_)
    places = np.flatnonzero(same & differ)
    if len(places):
        # The first in the table, whatever the order of the names.
        row = int(order[places + 1].min())
        patient, split = images[["patient", "split"]].iloc[row]
        other = (images["patient"] == patient) & (images["split"] != split)
        at = np.arange(len(images)) == row
        raise DatasetError(
            f"patient {patient!r} is in two splits: image {_row(images, at)} is in {split}, "
            f"image {_row(images, other.to_numpy())} is not: put all images of a patient into one"
        )


def _check_labels(
    images: "pd.DataFrame", labels: npt.NDArray[np.int8], names: tuple[str, ...]
) -> None:
    if not names or not all(names):
        raise DatasetError(f"the labels {names} need a name each, and at least one label")
    if repeated := {name for name in names if names.count(name) > 1}:
        raise DatasetError(f"the label {min(repeated)!r} is there twice: name each label once")
    if np.shape(labels) != (len(images), len(names)):
        raise DatasetError(
            f"the labels have the shape {np.shape(labels)}, "
            f"{len(images)} images and {len(names)} names need {(len(images), len(names))}"
        )
    wrong = (labels != 1) & (labels != 0) & (labels != -1)
    if wrong.any():
        where = np.asarray(wrong.any(axis=1))
        column = int(np.argmax(wrong[np.argmax(where)]))
        raise DatasetError(
            f"the label {names[column]} of image {_row(images, where)} is "
            f"{labels[np.argmax(where)][column]}: it has to be 1, 0 or -1 (unknown)"
        )
