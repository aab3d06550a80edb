"""Corrections: labels that were read again, in a table, which replace those of a data set."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from featurecache.datasets.cell_values import read_labels
from featurecache.datasets.table_reader import Table, open_table
from featurecache.errors import DatasetError
from featurecache.label_cells import BLANK
from featurecache.wording import count_noun

if TYPE_CHECKING:
    import pandas as pd

    from featurecache.datasets.dataset import Dataset

_ID: Final = "id"
_LABEL: Final = "label"
_CORRECTED: Final = "corrected"
_HINT: Final = "an empty cell leaves the label as it is"


def correct_labels(dataset: "Dataset", file: str | os.PathLike[str]) -> "Dataset":
    """Return a data set with labels replaced by those of a table.

    Args:
        dataset: The data set.
        file: A table with the column ``id`` and either ``label`` and ``corrected``, one row per
            label or none, as ``audit`` writes it; or columns of labels, one row per image, as
            ``suggest`` does. Cells are 1, 0, -1 for uncertain, or words such as yes; an empty one
            changes nothing.

    Returns:
        The data set, with a note on how many labels were corrected.

    Raises:
        DatasetError: The file cannot be read, lacks a column, names an image or a label that the
            data set does not have, has another value, or corrects a label in two ways.
    """
    path = Path(file).expanduser()
    corrections = _read(open_table(path), dataset.label_names)
    rows = _positions(corrections[_ID], dataset.images[_ID].tolist(), path, dataset.name)
    columns = _positions(corrections[_LABEL], dataset.label_names, path, dataset.name)
    twice = corrections.assign(**{_ID: rows, _LABEL: columns}).drop_duplicates()
    if (conflicts := twice.duplicated([_ID, _LABEL])).any():
        line, column = twice.index[conflicts][0], twice[_LABEL][conflicts].iloc[0]
        raise DatasetError(
            f"{path}, line {line}: the label {dataset.label_names[column]!r} of this image is "
            "corrected in another way above: keep one of them"
        )
    cells = dataset.cells.copy()
    cells[rows, columns] = corrections[_CORRECTED]
    changed = cells != dataset.cells
    n_labels, n_images = int(changed.sum()), int(changed.any(axis=1).sum())
    note = (
        f"{path.name} corrects {count_noun(n_labels, 'label')} of {count_noun(n_images, 'image')}."
        if n_labels
        else f"{path.name} corrects nothing: it gives labels as they are."
        if len(corrections)
        else f"{path.name} corrects nothing: no cell of its labels is filled in."
    )
    return replace(dataset, cells=cells, notes=(*dataset.notes, note))


def _read(table: Table, label_names: Sequence[str]) -> "pd.DataFrame":
    """Return ids, labels and corrected cells, one row for each that is given, by line."""
    if _CORRECTED in table.header:
        frame = table.read([_ID, _LABEL, _CORRECTED], may_be_empty=True)
        cells, _ = read_labels(frame[[_CORRECTED]], file=table.path, hint=_HINT)
        frame[_CORRECTED] = cells[:, 0]
    else:
        names = [name for name in label_names if name in table.header]
        if not names:
            raise DatasetError(
                f"{table.path} has neither a column {_CORRECTED!r} nor one of the labels "
                f"{', '.join(label_names)}: it has {table.names()}"
            )
        wide = table.read([_ID, *names])
        cells, _ = read_labels(wide[names], file=table.path, hint=_HINT)
        wide[names] = cells
        frame = wide.melt(_ID, var_name=_LABEL, value_name=_CORRECTED, ignore_index=False)
    return frame[frame[_CORRECTED] != BLANK]


def _positions(
    cells: "pd.Series[str]", names: Sequence[str], path: Path, dataset_name: str
) -> list[int]:
    """Return where each of N cells is among names.

    Raises:
        DatasetError: One is not among them.
    """
    index = {name: position for position, name in enumerate(names)}
    positions = []
    for line, cell in cells.items():
        if (position := index.get(cell)) is None:
            raise DatasetError(
                f"{path}, line {line}: the data set {dataset_name} has no {cells.name} {cell!r}: "
                "give the table that was made from it"
            )
        positions.append(position)
    return positions
