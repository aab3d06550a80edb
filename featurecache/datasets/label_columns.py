"""Columns of a table that look like labels, patients or other roles, but were not chosen."""

import re
from collections.abc import Collection, Container, Iterable
from typing import TYPE_CHECKING, Final

from featurecache.datasets.cell_values import MISSING, are_label_cells, read_sexes, read_views
from featurecache.datasets.label_strings import label_matrix
from featurecache.datasets.splits import SPLIT_ALIASES
from featurecache.errors import DatasetError
from featurecache.views import side_of_view

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

_MAX_CLASSES: Final = 50
_NAMES: Final = {
    "patient": re.compile(
        r"(patient(s|en|in)?|subjects?|pat|pt|proband(en)?)"
        r"[ _.-]?(ids?|nr|no|num|number|nummer|key|code|name)"
        r"|patients?|subjects?|pat|pt|pid|mrn|proband(en)?",
        re.IGNORECASE,
    ),
    "view": re.compile(
        r"views?([ _.-]?pos(ition)?)?|projection|ap/pa|frontal/lateral", re.IGNORECASE
    ),
    "sex": re.compile(r"(patient('?s)?[ _.-]?)?(sex|gender)([ _.-]?dicom)?", re.IGNORECASE),
    "age": re.compile(r"(patient('?s)?[ _.-]?)?age([ _.-]?(in[ _.-]?)?years)?", re.IGNORECASE),
}
"""Names of columns, by what they state: also those of NIH, CheXpert, PadChest and DICOM."""

_PLURALS: Final = {
    **{"patient": "patients", "split": "splits"},
    **{"view": "views", "sex": "sexes", "age": "ages"},
}


def describe_label_columns(head: "pd.DataFrame", used: Container[str], file: "Path") -> str:
    """Return a note for a table without labels: which columns to choose, and how.

    Args:
        head: The first rows of the table, all columns.
        used: Columns that are used for something else.
        file: The table.
    """
    columns: dict[str, list[str]] = {"labels": [], "multilabel": [], "classes": []}
    for column in head.columns:
        is_patient = bool(patient_columns([column]))
        if column not in used and not is_patient and (kind := _kind(head[column], file)):
            columns[kind].append(column)
    found = [
        f"{', '.join(map(repr, names[:20]))}{' and more' if len(names) > 20 else ''} (as `{kind}`)"
        for kind, names in columns.items()
        if names
    ]
    looks = f"These columns look like labels: {'; '.join(found)}." if found else ""
    return f"No columns of labels were chosen, so the images have no labels. {looks}".strip()


def describe_unused_columns(
    head: "pd.DataFrame", used: Container[str], roles: Collection[str]
) -> list[str]:
    """Return notes on columns that look like roles that no column was chosen for.

    Args:
        head: The first rows of the table, all columns.
        used: Columns that are used for something else.
        roles: Roles to look for: ``patient``, ``view``, ``sex`` and ``age``, by the names of the
            columns, and ``split``, by the words in them.
    """
    columns = [column for column in head.columns if column not in used]
    alike = {
        role: [column for column in columns if pattern.fullmatch(column.strip())]
        for role, pattern in _NAMES.items()
    }
    alike["split"] = [column for column in columns if _looks_like_splits(head[column])]
    return [
        f"The column {column!r} looks like {_PLURALS[role]}: to use it, give it as `{role}`."
        for role in _PLURALS
        if role in roles
        for column in alike[role]
    ]


def patient_columns(columns: Iterable[str]) -> list[str]:
    """Return the columns whose names look like those of patients."""
    return [column for column in columns if _NAMES["patient"].fullmatch(column.strip())]


def _looks_like_splits(cells: "pd.Series[str]") -> bool:
    words = {text.strip().casefold() for text in cells.unique().tolist()}
    return len(words) > 1 and words <= SPLIT_ALIASES.keys()


def _kind(cells: "pd.Series[str]", file: "Path") -> str:
    """Return the argument that reads a column as labels; "" if it does not look like any."""
    texts = [text for text in cells.unique().tolist() if text.casefold() not in MISSING]
    if are_label_cells(texts):
        return "labels"
    if len(texts) < 2 or all(re.fullmatch(r"[\d.,:/ -]+", text) for text in texts):
        return ""
    if {text.casefold() for text in texts} <= SPLIT_ALIASES.keys() or _is_attribute(cells):
        return ""
    joined = any(separator in text for text in texts for separator in "|;,[")
    if not joined:
        return "classes" if len(texts) <= min(_MAX_CLASSES, len(cells) / 2) else ""
    try:
        names, _, _ = label_matrix(cells, file=file)
    except DatasetError:
        return ""
    return "multilabel" if len(names) <= min(_MAX_CLASSES, len(cells) / 2) else ""


def _is_attribute(cells: "pd.Series[str]") -> bool:
    if all(view == "" or side_of_view(view) for view in read_views(cells)[0].unique()):
        return True
    try:
        sexes, _ = read_sexes(cells)
    except DatasetError:
        return False
    return bool((sexes != "").mean() > 0.5)
