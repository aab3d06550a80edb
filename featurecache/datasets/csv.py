"""Any CSV file of images and labels."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from featurecache.datasets.csv_reader import read_columns
from featurecache.datasets.dataset import UNKNOWN_PATIENTS, Dataset, safe_name
from featurecache.datasets.label_strings import label_matrix
from featurecache.datasets.splits import SPLIT_ALIASES, patient_split
from featurecache.errors import DatasetError, UsageError

if TYPE_CHECKING:
    import pandas as pd

_VALUES = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": -1, "-1.0": -1, "": -1}


def load_csv(
    csv: Path,
    *,
    root: Path | None = None,
    path_column: str = "path",
    label_columns: Sequence[str] | None = None,
    multilabel_column: str | None = None,
    id_column: str | None = None,
    patient_column: str | None = None,
    split_column: str | None = None,
    view_column: str | None = None,
    sex_column: str | None = None,
    age_column: str | None = None,
    seed: int = 0,
) -> Dataset:
    """Load a data set from a CSV file with one row per image.

    Files that do not exist are not dropped here; extraction records them as failures.

    Args:
        csv: The file, in UTF-8, or a folder that holds one CSV file.
        root: Folder that the paths start from; the file's own where it is not given.
        path_column: Column of paths, with "/" between folders.
        label_columns: Columns of one label each, with 1, 0, or blank or -1 for unknown. Give
            either these or ``multilabel_column``.
        multilabel_column: One column of labels joined by "|"; blank or "No Finding" is none.
        id_column: Column of unique ids; the paths where it is not given.
        patient_column: Column of patients; each image is its own where it is not given.
        split_column: Column of train, val (or valid, validation, dev) and test; a split by
            patient where it is not given.
        view_column: Column of views such as PA; blank is unknown.
        sex_column: Column of sexes such as F; blank is unknown.
        age_column: Column of ages in years; blank is unknown.
        seed: Decides the split where there is no column for it.

    Returns:
        A manifest named after the file.

    Raises:
        DatasetError: the file cannot be read or lacks a column, the root is no folder, or a cell
            has a value that it cannot have; the message names the line.
        UsageError: both or neither of ``label_columns`` and ``multilabel_column`` are given.
    """
    import pandas as pd

    if bool(label_columns) == bool(multilabel_column):
        raise UsageError(
            "a table needs either label columns (one per label) or a labels column (labels "
            "joined by '|'): give exactly one of the two"
        )
    csv = _find_csv(csv)
    if root is not None and not root.is_dir():
        raise DatasetError(f"the root {root} is no folder: give the one that the paths start from")
    described = {"view": view_column, "sex": sex_column, "age": age_column}
    optional = (multilabel_column, id_column, patient_column, split_column, *described.values())
    named = [path_column, *(label_columns or ()), *(column for column in optional if column)]
    # One column may serve twice, the path as the id for example.
    table = read_columns(csv, list(dict.fromkeys(named)))

    paths = table[path_column]
    _refuse_backslashes(paths, csv)
    if multilabel_column:
        names, labels = label_matrix(table[multilabel_column], None, csv=csv)
    else:
        names = tuple(label_columns or ())
        labels = np.column_stack([_label_values(table[name], csv) for name in names])
    ids = table[id_column] if id_column else paths
    patients = table[patient_column] if patient_column else ids
    notes = [] if patient_column else [UNKNOWN_PATIENTS]
    if split_column:
        split = _canonical_split(table[split_column], csv)
    else:
        split = pd.Series(patient_split(patients, labels, seed=seed), table.index, dtype=str)
        notes.append("The split is by patient, 70 % train, 10 % validation, 20 % test.")
    return Dataset(
        name=safe_name(csv.name.removesuffix(".gz").removesuffix(".csv")),
        root=csv.parent if root is None else root,
        images=pd.DataFrame(
            {
                "id": ids,
                "path": paths,
                "patient": patients,
                "split": split,
                **{
                    name: table[column] if column else pd.Series("", table.index, dtype=str)
                    for name, column in described.items()
                },
            }
        ),
        labels=labels,
        label_names=names,
        notes=tuple(notes),
    )


def _find_csv(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = sorted(file.name for file in path.iterdir() if file.name.endswith((".csv", ".csv.gz")))
    if len(found) != 1:
        raise DatasetError(
            f"{path} holds {len(found)} CSV files{': ' if found else ''}{', '.join(found)}; "
            "give the one CSV file that lists the images"
        )
    return path / found[0]


def _refuse_backslashes(paths: "pd.Series[str]", csv: Path) -> None:
    if (wrong := paths.str.contains("\\", regex=False).to_numpy(dtype=bool)).any():
        first = int(np.argmax(wrong))
        raise DatasetError(
            f"line {paths.index[first]} of {csv} has a backslash in the path "
            f"{paths.iloc[first]!r}: write the paths with '/'"
        )


def _label_values(cells: "pd.Series[str]", csv: Path) -> npt.NDArray[np.int8]:
    codes, texts = _known_texts(cells, _VALUES, csv, "1, 0, -1 or blank")
    return np.array([_VALUES[text] for text in texts], dtype=np.int8)[codes]


def _canonical_split(cells: "pd.Series[str]", csv: Path) -> "pd.Series[str]":
    import pandas as pd

    codes, texts = _known_texts(cells, SPLIT_ALIASES, csv, ", ".join(SPLIT_ALIASES))
    splits = pd.array([SPLIT_ALIASES[text] for text in texts], dtype="str")
    return pd.Series(splits.take(codes), cells.index)


def _known_texts(
    cells: "pd.Series[str]", known: Collection[str], csv: Path, told: str
) -> tuple[npt.NDArray[np.intp], list[str]]:
    """Which of the texts that occur each cell is, and these texts, in lower case and all known."""
    import pandas as pd

    codes, texts = pd.factorize(cells)
    for code, text in enumerate(texts):
        if text.lower() not in known:
            line = cells.index[int(np.argmax(codes == code))]
            raise DatasetError(
                f"line {line} of {csv} has {text!r} in the column {cells.name!r}: "
                f"it has to be one of {told}"
            )
    return codes, [text.lower() for text in texts]
