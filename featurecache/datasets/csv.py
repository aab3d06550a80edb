"""Data sets listed in a table: a CSV, TSV, Excel or parquet file."""

import os
from collections.abc import Sequence
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
from featurecache.datasets.splits import complete_split
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
    import pandas as pd

    if sum(map(bool, (labels, multilabel, classes))) > 1:
        raise UsageError(
            "give one of `labels` (columns of one label each), `multilabel` (one column of joined "
            "labels) and `classes` (one column of classes)"
        )
    if (positive or negative) and not labels:
        raise UsageError("`positive` and `negative` are words in columns of `labels`: give these")
    if label_separator and not multilabel:
        raise UsageError("`label_separator` joins the labels of `multilabel`: give that column")
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
    label_columns = opened.expand(_as_list(labels))
    metadata = tuple(opened.expand(_as_list(metadata)))
    roles = {
        **{"id": id, "patient": patient, "study": study, "split": split},
        **{"view": view, "sex": sex, "age": age},
    }
    # One column may serve twice, for example the path as the id.
    columns = dict.fromkeys(
        filter(None, (path, *label_columns, multilabel, classes, *roles.values(), *metadata))
    )
    table = opened.read(list(columns))
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

    names, values, label_notes = _read_labels(
        table,
        label_columns,
        multilabel,
        classes,
        file=file,
        positive=_as_list(positive),
        negative=_as_list(negative),
        label_separator=label_separator,
    )
    if not names:
        label_notes = [describe_label_columns(_head(opened), columns, file)]
    notes += label_notes
    images = pd.DataFrame({role: table[column] for role, column in roles.items() if column})
    images["path"], root, path_notes = relative_paths(
        table[path], root, file=file, may_move_up=images_root is None, required=require_images
    )
    notes += path_notes
    for role, read in _ATTRIBUTES.items():
        if column := roles[role]:
            images[role], attribute_notes = read(table[column])
            notes += attribute_notes
    images[list(metadata)] = table[list(metadata)]
    # Before rows are joined, so that a blank cell does not contradict another.
    for role in images.columns.intersection(["patient", "study", "split"]):
        images[role] = images[role].where(~is_blank(images[role]), "")
    images, values, join_notes = join_rows(images, values, file=file, exclusive=bool(classes))
    notes += join_notes
    if not id:
        images["id"] = images["path"]
    if not patient and require_images:
        images, header_notes = read_dicom_headers(images, root, progress)
        notes += header_notes
    notes += fill_patients(images)
    if not patient or not (split or folds or fold):
        notes += describe_unused_columns(
            _head(opened), columns, patient=not patient, split=not (split or folds or fold)
        )
    completed = complete_split(
        images["patient"],
        values,
        names,
        stated=images["split"] if split else None,
        source=f"the column {split!r} of {file}",
        folds=folds,
        fold=fold,
        seed=seed,
    )
    images["split"] = completed.names
    return Dataset(
        name=safe_name(_without_suffix(file.name)),
        root=root,
        images=images.astype(str),
        labels=values,
        label_names=names,
        notes=[*notes, *completed.notes],
        split_draw=completed.draw,
        metadata=metadata,
        excluded={"row without a path": n_without_path},
    )


def _read_labels(
    table: "pd.DataFrame",
    columns: Sequence[str],
    multilabel: str | None,
    classes: str | None,
    *,
    file: Path,
    positive: Sequence[str],
    negative: Sequence[str],
    label_separator: str | None,
) -> tuple[tuple[str, ...], NDArray[np.int8], list[str]]:
    """Return the names of the labels, their (N, C) values, and notes."""
    if multilabel:
        return label_matrix(table[multilabel], file=file, separator=label_separator)
    if classes:
        return class_matrix(table[classes], file=file)
    values, notes = read_labels(
        table[list(columns)], file=file, positive=positive, negative=negative
    )
    return tuple(columns), values, notes


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
