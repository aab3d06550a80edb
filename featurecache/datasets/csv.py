"""Data sets listed in a table: a CSV, TSV, Excel or parquet file."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurecache.datasets.dataset import UNKNOWN_PATIENTS, Dataset, safe_name
from featurecache.datasets.label_strings import label_matrix
from featurecache.datasets.splits import complete_split
from featurecache.datasets.table_reader import TABLE_SUFFIXES, open_table
from featurecache.errors import DatasetError, UsageError

if TYPE_CHECKING:
    import pandas as pd

_LABEL_VALUES = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": -1, "-1.0": -1, "": -1}


def load_csv(
    file: str | os.PathLike[str],
    *,
    path: str = "path",
    labels: str | Sequence[str] | None = None,
    multilabel: str | None = None,
    id: str | None = None,
    patient: str | None = None,
    split: str | None = None,
    view: str | None = None,
    sex: str | None = None,
    age: str | None = None,
    images_root: str | os.PathLike[str] | None = None,
    separator: str | None = None,
    encoding: str | None = None,
    folds: int | None = None,
    fold: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Load a data set from a CSV, TSV, Excel or parquet file with one row per image.

    Image files that do not exist are not dropped here; extraction records them as failures.

    Args:
        file: The table, or a folder that contains one. Text may be compressed (``.gz``).
        path: Column of image paths, with "/" between folders.
        labels: Columns of one label each: 1, 0, and -1 or empty for unknown. Give either
            ``labels`` or ``multilabel``.
        multilabel: Column of positive labels joined by "|"; empty or "No Finding" for none.
        id: Column of unique image ids; by default the paths.
        patient: Column of patients; by default each image is its own patient.
        split: Column of splits: train, val and test, or similar names, or the numbers of folds. By
            default the images are split by patient.
        view: Column of views such as PA; empty for unknown.
        sex: Column of sexes such as F; empty for unknown.
        age: Column of ages in years; empty for unknown.
        images_root: Folder that the paths are relative to; by default the folder of the file.
        separator: Separator of the columns; by default commas, semicolons, tabs and bars are
            detected.
        encoding: Encoding of the text; by default UTF-8, UTF-16 and cp1252 are detected.
        folds: Number of folds, by patient, instead of a column of splits.
        fold: The fold that is test; the next one is validation, the others are train.
        seed: Seed of what the column of splits does not state.

    Returns:
        A data set named after the file.

    Raises:
        DatasetError: If the file cannot be read or lacks a column, ``images_root`` is not a
            folder, or a cell has an invalid value; the message names the line.
        UsageError: If both or neither of ``labels`` and ``multilabel`` are given.
    """
    import pandas as pd

    if isinstance(labels, str):
        labels = [labels]
    if bool(labels) == bool(multilabel):
        raise UsageError(
            "give either `labels` (columns of one label each) or `multilabel` (one column of "
            "labels joined by '|')"
        )
    file = _find_table(Path(file))
    root = file.parent if images_root is None else Path(images_root).expanduser()
    if not root.is_dir():
        raise DatasetError(
            f"{root} is not a folder: give the folder that the paths are relative to"
        )
    optional = {"view": view, "sex": sex, "age": age}
    columns = (path, *(labels or ()), multilabel, id, patient, split, *optional.values())
    # One column may serve twice, for example the path as the id.
    opened = open_table(file, separator=separator, encoding=encoding)
    table = opened.read(list(dict.fromkeys(column for column in columns if column)))

    paths = table[path]
    _check_slashes(paths, file)
    if multilabel:
        names, values = label_matrix(table[multilabel], None, csv=file)
    else:
        names = tuple(labels or ())
        values = np.column_stack(
            [_translate(table[name], _LABEL_VALUES, file, "1, 0, -1 or empty") for name in names]
        ).astype(np.int8)
    ids = table[id] if id else paths
    patients = table[patient] if patient else ids
    notes = [*opened.notes, *([] if patient else [UNKNOWN_PATIENTS])]
    completed = complete_split(
        patients,
        values,
        names,
        stated=table[split] if split else None,
        source=f"the column {split!r} of {file}",
        folds=folds,
        fold=fold,
        seed=seed,
    )
    return Dataset(
        name=safe_name(_without_suffix(file.name)),
        root=root,
        images=pd.DataFrame(
            {
                "id": ids,
                "path": paths,
                "patient": patients,
                "split": pd.Series(completed.names, table.index, dtype=str),
                **{name: table[column] for name, column in optional.items() if column},
            }
        ),
        labels=values,
        label_names=names,
        notes=[*notes, *completed.notes],
    )


def _find_table(path: Path) -> Path:
    if not path.is_dir():
        return path
    # A text file in a folder is more often a description or a list.
    suffixes = tuple(suffix for suffix in TABLE_SUFFIXES if suffix != ".txt")
    names = sorted(file.name for file in path.iterdir() if not file.name.startswith("."))
    names = [name for name in names if name.lower().endswith(suffixes)]
    if len(names) != 1:
        raise DatasetError(
            f"{path} contains {len(names)} tables{': ' if names else ''}{', '.join(names)}; "
            "give the one that lists the images"
        )
    return path / names[0]


def _without_suffix(name: str) -> str:
    longest = max((s for s in TABLE_SUFFIXES if name.lower().endswith(s)), key=len, default="")
    return name[: len(name) - len(longest)]


def _check_slashes(paths: "pd.Series[str]", file: Path) -> None:
    if (wrong := paths.str.contains("\\", regex=False).to_numpy(dtype=bool)).any():
        first = int(np.argmax(wrong))
        raise DatasetError(
            f"{file}, line {paths.index[first]}: the path {paths.iloc[first]!r} contains a "
            "backslash. Write paths with '/'"
        )


def _translate(
    cells: "pd.Series[str]", values: Mapping[str, int], file: Path, valid: str
) -> NDArray[np.int_]:
    """Return the value of each cell, ignoring case."""
    import pandas as pd

    codes, texts = pd.factorize(cells)
    for code, text in enumerate(texts):
        if text.lower() not in values:
            line = cells.index[int(np.argmax(codes == code))]
            raise DatasetError(
                f"{file}, line {line}: {text!r} in the column {cells.name!r} is not a valid "
                f"value. Use {valid}"
            )
    return np.array([values[text.lower()] for text in texts])[codes]
