"""Data sets listed in a table: a CSV, TSV, Excel or parquet file."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurecache.datasets.cell_values import (
    is_blank,
    read_ages,
    read_labels,
    read_sexes,
    read_views,
)
from featurecache.datasets.dataset import Dataset, safe_name
from featurecache.datasets.image_paths import HEAD_ROWS, find_path_column, relative_paths
from featurecache.datasets.image_rows import join_rows
from featurecache.datasets.label_columns import describe_label_columns, describe_unused_columns
from featurecache.datasets.label_strings import class_matrix, label_matrix
from featurecache.datasets.patients import fill_patients, read_dicom_headers
from featurecache.datasets.splits import CompleteSplit, complete_split
from featurecache.datasets.table_reader import TABLE_SUFFIXES, Table, open_table, tables_in
from featurecache.errors import DatasetError, UsageError
from featurecache.progress import Progress
from featurecache.wording import count_noun

if TYPE_CHECKING:
    import pandas as pd

_ATTRIBUTES = {"view": read_views, "sex": read_sexes, "age": read_ages}


def load_csv(
    file: str | os.PathLike[str],
    *,
    path: str | None = None,
    labels: str | Sequence[str] | None = None,
    multilabel: str | None = None,
    classes: str | None = None,
    id: str | None = None,
    patient: str | None = None,
    study: str | None = None,
    split: str | None = None,
    view: str | None = None,
    sex: str | None = None,
    age: str | None = None,
    metadata: str | Sequence[str] = (),
    images_root: str | os.PathLike[str] | None = None,
    positive: str | Sequence[str] = (),
    negative: str | Sequence[str] = (),
    label_separator: str | None = None,
    separator: str | None = None,
    encoding: str | None = None,
    folds: int | None = None,
    fold: int | None = None,
    seed: int = 0,
    require_images: bool = True,
    progress: Progress | None = None,
) -> Dataset:
    """Load a data set from a CSV, TSV, Excel or parquet file that lists images.

    Rows without a path are left out, and rows with the same path are joined. Some image files that
    do not exist are not dropped here; extraction records them as failures.

    Args:
        file: The table, or a folder that contains one. Text may be compressed (``.gz``).
        path: Column of image paths; by default ``path``, or the only column that names images.
        labels: Columns of one label each, or patterns such as ``Finding_*``: 1, 0, -1 for
            uncertain, and empty; or words such as yes, True, negative and unclear. Give at most
            one of ``labels``, ``multilabel`` and ``classes``; without any, the images have no
            labels.
        multilabel: Column of positive labels, joined by "|", ";" or ",", or written as a Python
            list; empty or "No Finding" for none.
        classes: Column of classes, which exclude each other; each becomes a label.
        id: Column of unique image ids; by default the paths.
        patient: Column of patients. By default, the patients in the headers if all images are
            DICOM files; where unknown, each study, or each image without one, is its own patient.
        study: Column of studies, the examinations that images belong to; each is of one patient.
        split: Column of splits: train, val and test, or similar names, or the numbers of folds. By
            default the images are split by patient.
        view: Column of views such as PA; empty for unknown.
        sex: Column of sexes such as F; empty for unknown.
        age: Column of ages such as 58, 058Y or 18M; empty for unknown.
        metadata: Further columns to keep in ``Dataset.images``, or patterns, such as a column of
            reports for ``retrieve`` to show; they are in no cache.
        images_root: Folder that the paths are relative to; by default the folder of the file.
        positive: Words for positive in the columns ``labels``.
        negative: Words for negative; "" for empty cells.
        label_separator: What joins the labels of ``multilabel``; detected by default.
        separator: Separator of the columns; by default commas, semicolons, tabs and bars are
            detected.
        encoding: Encoding of the text; by default UTF-8, UTF-16 and cp1252 are detected.
        folds: Number of folds, by patient, instead of a column of splits.
        fold: The fold that is test; the next one is validation, the others are train.
        seed: Seed of what the column of splits does not state.
        require_images: Refuse a table if none of its images is on disk. If False, no image is
            opened.
        progress: Called with the number of headers read and their total.

    Returns:
        A data set named after the file.

    Raises:
        DatasetError: If the file cannot be read or lacks a column, ``images_root`` is not a
            folder, no path exists, a cell has an invalid value, or it can be read in several ways;
            the message names the line.
        UsageError: If several of ``labels``, ``multilabel`` and ``classes`` are given, or an option
            of those that are not.
    """
    file = _find_table(Path(file))
    root = file.parent if images_root is None else Path(images_root).expanduser()
    if not root.is_dir():
        raise DatasetError(
            f"{root} is not a folder: give the folder that the paths are relative to"
        )
    opened = open_table(file, separator=separator, encoding=encoding)
    notes = list(opened.notes)
    if path is None:
        path, path_notes = find_path_column(opened, _head(opened), root)
        notes += path_notes
    columns = TableColumns.of(
        opened,
        labels=labels,
        multilabel=multilabel,
        classes=classes,
        positive=positive,
        negative=negative,
        label_separator=label_separator,
        roles={
            **{"id": id, "patient": patient, "study": study, "split": split},
            **{"view": view, "sex": sex, "age": age},
        },
        metadata=metadata,
    )
    table = opened.read(columns.names(path))
    has_path = ~is_blank(table[path])
    if not has_path.any():
        raise DatasetError(f"the column {path!r} of {file} is empty in every row: check the column")
    n_without_path = len(table) - int(has_path.sum())
    table = table[has_path]
    if n_without_path:
        notes.append(
            f"{count_noun(n_without_path, 'row has', 'rows have')} no path, and "
            f"{'is' if n_without_path == 1 else 'are'} left out."
        )
    stated = columns.read(table, used=path)
    notes += stated.notes
    images = stated.images
    images["path"], root, path_notes = relative_paths(
        table[path], root, file=file, may_move_up=images_root is None, required=require_images
    )
    notes += path_notes
    images, values, join_notes = join_rows(images, stated.cells, file=file, exclusive=bool(classes))
    notes += join_notes
    if not id:
        images["id"] = images["path"]
    if not patient and require_images:
        images, header_notes = read_dicom_headers(images, root, progress)
        notes += header_notes
    names = stated.label_names
    patient_notes, completed = columns.complete(
        images, values, names, used=path, folds=folds, fold=fold, seed=seed
    )
    images["split"] = completed.names
    return Dataset(
        name=safe_name(_without_suffix(file.name)),
        root=root,
        images=images.astype(str),
        labels=values,
        label_names=names,
        notes=[*notes, *patient_notes, *completed.notes],
        split_draw=completed.draw,
        metadata=columns.metadata,
        excluded={"row without a path": n_without_path},
    )


@dataclass(frozen=True)
class StatedImages:
    """What a table states of N images.

    Attributes:
        images: N rows of text, indexed by line of the table: the columns ``id``, ``patient``,
            ``study``, ``split``, ``view``, ``sex`` and ``age`` as far as the table has them, ""
            where unknown, and those of ``metadata``.
        label_names: Label names (C,).
        cells: (N, C) int8; see ``featurecache.label_cells``.
        notes: Sentences on how the cells were read.
    """

    images: "pd.DataFrame"
    label_names: tuple[str, ...]
    cells: NDArray[np.int8]
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class TableColumns:
    """Which columns of a table state what of its images.

    Attributes:
        table: The table.
        labels: Columns of one label each.
        multilabel: Column of joined labels.
        classes: Column of classes.
        positive: Words for positive in the columns ``labels``.
        negative: Words for negative.
        label_separator: What joins the labels of ``multilabel``.
        roles: Columns by what they state: ``id``, ``patient``, ``study``, ``split``, ``view``,
            ``sex`` and ``age``.
        metadata: Further columns to keep.
    """

    table: Table
    labels: tuple[str, ...]
    multilabel: str | None
    classes: str | None
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    label_separator: str | None
    roles: Mapping[str, str]
    metadata: tuple[str, ...]

    @classmethod
    def of(
        cls,
        table: Table,
        *,
        labels: str | Sequence[str] | None = None,
        multilabel: str | None = None,
        classes: str | None = None,
        positive: str | Sequence[str] = (),
        negative: str | Sequence[str] = (),
        label_separator: str | None = None,
        roles: Mapping[str, str | None],
        metadata: str | Sequence[str] = (),
    ) -> "TableColumns":
        """Return the columns that the arguments of ``load_csv`` name.

        Raises:
            UsageError: If they contradict each other.
            DatasetError: If no column matches a pattern.
        """
        if sum(map(bool, (labels, multilabel, classes))) > 1:
            raise UsageError(
                "give one of `labels` (columns of one label each), `multilabel` (one column of "
                "joined labels) and `classes` (one column of classes)"
            )
        if (positive or negative) and not labels:
            raise UsageError(
                "`positive` and `negative` are words in columns of `labels`: give these"
            )
        if label_separator and not multilabel:
            raise UsageError("`label_separator` joins the labels of `multilabel`: give that column")
        return cls(
            table=table,
            labels=tuple(table.expand(_as_list(labels))),
            multilabel=multilabel,
            classes=classes,
            positive=tuple(_as_list(positive)),
            negative=tuple(_as_list(negative)),
            label_separator=label_separator,
            roles={role: column for role, column in roles.items() if column},
            metadata=tuple(table.expand(_as_list(metadata))),
        )

    def names(self, *others: str) -> list[str]:
        """Return these columns after others, each once: one may serve twice, such as for ids."""
        chosen = (self.multilabel, self.classes, *self.roles.values(), *self.metadata)
        return list(dict.fromkeys(filter(None, (*others, *self.labels, *chosen))))

    def read(self, cells: "pd.DataFrame", *, used: str) -> StatedImages:
        """Return what cells mean.

        Args:
            cells: The columns ``names``, of N rows, as ``Table.read`` returns them.
            used: Another column that is no label.

        Raises:
            DatasetError: If a cell has an invalid value; the message names the line.
        """
        import pandas as pd

        file = self.table.path
        if self.multilabel:
            names, values, notes = label_matrix(
                cells[self.multilabel], file=file, separator=self.label_separator
            )
        elif self.classes:
            names, values, notes = class_matrix(cells[self.classes], file=file)
        else:
            names = self.labels
            values, notes = read_labels(
                cells[list(names)], file=file, positive=self.positive, negative=self.negative
            )
        if not names:
            notes = [describe_label_columns(_head(self.table), self.names(used), file)]
        images = pd.DataFrame({role: cells[column] for role, column in self.roles.items()})
        for role, read in _ATTRIBUTES.items():
            if column := self.roles.get(role):
                images[role], attribute_notes = read(cells[column])
                notes += attribute_notes
        images[list(self.metadata)] = cells[list(self.metadata)]
        # Before rows are joined, so that a blank cell does not contradict another.
        for role in images.columns.intersection(["patient", "study", "split"]):
            images[role] = images[role].where(~is_blank(images[role]), "")
        return StatedImages(images, names, values, notes)

    def complete(
        self,
        images: "pd.DataFrame",
        cells: NDArray[np.int8],
        names: Sequence[str],
        *,
        used: str,
        folds: int | None,
        fold: int | None,
        seed: int,
    ) -> tuple[list[str], CompleteSplit]:
        """Fill in unknown patients, and the splits that the table does not state.

        Args:
            images: N rows with ``id``; the column ``patient`` is filled in place.
            cells: (N, C) labels.
            names: Label names (C,).
            used: Another column that is in use.
            folds: See ``load_csv``.
            fold: See ``load_csv``.
            seed: See ``load_csv``.

        Returns:
            Notes, and the splits.

        Raises:
            DatasetError: If a split has no valid name.
            UsageError: If ``folds`` and ``fold`` are contradictory.
        """
        has_patients = "patient" in images and not is_blank(images["patient"]).any()
        notes = fill_patients(images)
        split = self.roles.get("split")
        # Headers of DICOM files may state more than the chosen columns.
        missing = [role for role in _ATTRIBUTES if role not in images]
        missing += [] if has_patients or "patient" in self.roles else ["patient"]
        missing += [] if split or folds or fold else ["split"]
        if missing:
            notes += describe_unused_columns(_head(self.table), self.names(used), missing)
        completed = complete_split(
            images["patient"],
            cells,
            names,
            stated=images["split"] if split else None,
            source=f"the column {split!r} of {self.table.path}",
            folds=folds,
            fold=fold,
            seed=seed,
        )
        return notes, completed


def _as_list(words: str | Sequence[str] | None) -> list[str]:
    return [words] if isinstance(words, str) else list(words or ())


def _head(table: Table) -> "pd.DataFrame":
    """Return the first rows of a table, with all columns whose names are unique."""
    names = [name for name in table.header if name and table.header.count(name) == 1]
    return table.read(names, limit=HEAD_ROWS)


def _find_table(path: Path) -> Path:
    if not path.is_dir():
        return path
    names = tables_in(path)
    if not names:
        raise DatasetError(
            f"{path} is a folder without a table: give the table that lists the images, and the "
            "folder that its paths are relative to as `images_root`"
        )
    if len(names) > 1:
        raise DatasetError(
            f"{path} contains {len(names)} tables: {', '.join(names)}; give the one that lists the "
            "images"
        )
    return path / names[0]


def _without_suffix(name: str) -> str:
    longest = max((s for s in TABLE_SUFFIXES if name.lower().endswith(s)), key=len, default="")
    return name[: len(name) - len(longest)]
