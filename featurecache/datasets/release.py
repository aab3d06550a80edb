"""What loaders of released data sets share: tables, image files, official splits and notes.

The module of a release reads its tables into a ``Listing``; ``Listing.dataset`` does the rest.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.datasets.cell_values import read_ages, read_sexes, read_views
from featurecache.datasets.dataset import UNKNOWN_PATIENTS, Dataset
from featurecache.datasets.splits import complete_split
from featurecache.datasets.table_reader import open_table
from featurecache.errors import DatasetError, UnknownNameError
from featurecache.label_cells import LabelPolicy
from featurecache.provenance.names import images_of
from featurecache.wording import count_noun

if TYPE_CHECKING:
    import pandas as pd

SPLIT_CHOICES: Final = ("auto", "official", "patient")

CHEXPERT_LABELS: Final = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
"""Labels of the CheXpert labeler, which several data sets have, in the order of CheXpert."""

_MAX_COLUMNS: Final = 3
"""Columns of a release that a message names."""

_ATTRIBUTES: Final = {"view": read_views, "sex": read_sexes, "age": read_ages}


def find_table(root: Path, *names: str) -> Path | None:
    """Return the first of these files, plain or compressed (``.gz``), that is in a folder."""
    for name in names:
        for file in (root / name, root / f"{name}.gz"):
            if file.is_file():
                return file
    return None


def require_table(root: Path, *names: str) -> Path:
    """Return the first of these files that is in a folder.

    Raises:
        DatasetError: None is there.
    """
    if (file := find_table(root, *names)) is None:
        raise DatasetError(
            f"no {' or '.join(names)} in {root}: give the folder of the release that holds it"
        )
    return file


def has_columns(file: Path | None, columns: Sequence[str]) -> bool:
    """Return whether a file is a table with these columns."""
    try:
        return file is not None and set(columns) <= set(open_table(file).header)
    except DatasetError:
        return False


def read_table(
    file: Path, columns: Sequence[str], notes: list[str], *, optional: Sequence[str] = ()
) -> "pd.DataFrame":
    """Read columns of a table of a release as text, and append notes on how it was read.

    Args:
        file: The table.
        columns: Columns that it must have.
        notes: List that is extended.
        optional: Columns that are "" where a version of the release lacks them.

    Raises:
        DatasetError: It lacks a column, or see ``Table.read``.
    """
    opened = open_table(file)
    notes += opened.notes
    if missing := [name for name in columns if name not in opened.header]:
        shown = ", ".join(map(repr, missing[:_MAX_COLUMNS]))
        more = f" and {len(missing) - _MAX_COLUMNS} more" if len(missing) > _MAX_COLUMNS else ""
        raise DatasetError(
            f"{file} is not the table of this release: it has no column {shown}{more}, but "
            f"{opened.names()}"
        )
    present = [name for name in optional if name in opened.header]
    table = opened.read([*columns, *present])
    return table.assign(**{name: "" for name in optional if name not in present})


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The images that the tables of a release list.

    Attributes:
        files: The tables that state the labels, for messages.
        images: N rows of text: ``id`` and, where the release states them, ``patient``, ``study``,
            ``view``, ``sex``, ``age`` and ``split``, as they are written there.
        paths: (N,) paths of the images relative to the root, and further places where versions of
            the release have them; the first that exists is taken.
        cells: (N, C) int8; see ``featurecache.label_cells``.
        label_names: C names.
        collection: Published collection whose ids and patients these are; "" if they are of no
            other data set.
        split_file: Name of the file that states the official split, for messages; "" if no release
            has one.
        notes: Sentences for the user.
        excluded: Number of images that are left out of the list, by reason.
        boxes: Boxes around findings; see ``Dataset``.
    """

    files: Sequence[Path]
    images: "pd.DataFrame"
    paths: "Sequence[pd.Series[str]]"
    cells: NDArray[np.int8]
    label_names: Sequence[str]
    collection: str = ""
    split_file: str = ""
    notes: Sequence[str] = ()
    excluded: Mapping[str, int] = field(default_factory=dict)
    boxes: "pd.DataFrame | None" = None

    def dataset(
        self,
        name: str,
        root: Path,
        policy: LabelPolicy | None = None,
        /,
        *,
        split: str = "auto",
        folds: int | None = None,
        fold: int | None = None,
        seed: int = 0,
        require_images: bool = True,
    ) -> Dataset:
        """Return the data set of the images that are on disk.

        Args:
            name: Name of the data set, and of the collection of its images.
            root: Folder that the paths are relative to.
            policy: What uncertain and blank cells count as where a split is drawn.
            split: "official" is the split that the release states, with validation taken from
                train by patient where it states none; "patient" ignores it; "auto" is the official
                one where there is one and no folds are asked for.
            folds: Number of folds, by patient, instead of these splits.
            fold: The fold that is test; the next one is validation, the others are train.
            seed: Seed of the splits that the release does not state.
            require_images: Load only images that are on disk; if False, all that are listed.

        Raises:
            DatasetError: No image is on disk, or there is no official split.
            UnknownNameError: There is no such split.
        """
        if split not in SPLIT_CHOICES:
            raise UnknownNameError(f"split of {name}", split, SPLIT_CHOICES)
        has_split = "split" in self.images
        if split == "official" and not has_split:
            raise DatasetError(
                f"the official split needs {root / self.split_file}: download it, or choose "
                "`split` patient"
                if self.split_file
                else f"{name} has no official split: leave out `split`"
            )
        is_official = has_split and split != "patient" and folds is None

        tables = ", ".join(dict.fromkeys(file.name for file in self.files))
        path, on_disk = self._find_files(root)
        missing = 0
        images, cells = self.images.assign(path=path), self.cells
        if require_images:
            missing = int((~on_disk).sum())
            if missing == len(images):
                raise DatasetError(
                    f"none of the {count_noun(missing, 'image')} of {tables} is in {root}: "
                    f"unpack them there; the first is {path.iloc[0]}"
                )
            images, cells = images[on_disk], cells[on_disk]
        notes = [f"The labels are those of {tables}.", *self.notes]
        if missing:
            notes.append(
                f"Left out: {missing:,} of {count_noun(len(path), 'image')} of {tables}, "
                "not on disk."
            )
        for role, read in _ATTRIBUTES.items():
            if role in images:
                images[role], attribute_notes = read(images[role])
                notes += attribute_notes
        if "patient" not in images:
            images["patient"] = images["id"]
            notes.append(UNKNOWN_PATIENTS)
        if self.collection:
            notes.append(f"Ids and patients are those of {self.collection}.")
        elif others := images_of(name):
            notes.append(f"It holds images of {' and '.join(others)}, under other ids.")
        if is_official:
            notes.append("The split is the official one.")
        elif self.split_file:
            notes.append(
                "The split is not the official one, so scores are not comparable with published "
                "ones."
            )
        else:
            notes.append("The release states no split.")
        completed = complete_split(
            images["patient"],
            (policy or LabelPolicy()).resolve(cells, self.label_names),
            self.label_names,
            stated=images["split"] if is_official else None,
            source="the official split",
            folds=folds,
            fold=fold,
            seed=seed,
        )
        images["split"] = completed.names
        return Dataset(
            name=name,
            collection=self.collection or name,
            root=root,
            images=images.astype(str),
            cells=cells,
            label_names=self.label_names,
            notes=[*notes, *completed.notes],
            split_draw=completed.draw,
            excluded={**self.excluded, "listed, but not on disk": missing},
            boxes=self.boxes,
        )

    def _find_files(self, root: Path) -> "tuple[pd.Series[str], NDArray[np.bool_]]":
        """Return the path of each image, and whether it is on disk."""
        path = self.paths[0].copy()
        on_disk = np.zeros(len(path), dtype=bool)
        folder = os.fspath(root)
        for candidate in self.paths:
            rows = np.flatnonzero(~on_disk)
            # Text is much faster than a Path for each of 200,000 images.
            places = candidate.iloc[rows].tolist()
            parents = [place.rpartition("/")[0] for place in places]
            there = {name for name in set(parents) if os.path.isdir(f"{folder}/{name}")}  # noqa: PTH112
            is_file = [
                parent in there and os.path.isfile(f"{folder}/{place}")  # noqa: PTH113
                for parent, place in zip(parents, places, strict=True)
            ]
            found = rows[np.array(is_file, dtype=bool)]
            path.iloc[found] = candidate.iloc[found]
            on_disk[found] = True
        return path, on_disk
