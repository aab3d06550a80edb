"""Join the rows of a table that list one image several times."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import DatasetError
from featurecache.label_cells import BLANK
from featurecache.provenance.names import patient_key
from featurecache.wording import count_noun

if TYPE_CHECKING:
    import pandas as pd

_SAME = ("id", "patient", "study", "split")
"""Columns that must be equal in all rows of an image, patients in any of their spellings."""


def join_rows(
    images: "pd.DataFrame", labels: NDArray[np.int8], *, file: Path, exclusive: bool
) -> "tuple[pd.DataFrame, NDArray[np.int8], list[str]]":
    """Join rows with the same path: tables of findings or boxes have one row for each.

    Args:
        images: N rows of text with the column ``path``, indexed by line of the file; "" where
            unknown.
        labels: (N, C) int8 cells; see ``featurecache.label_cells``.
        file: The file, for error messages.
        exclusive: Whether an image can be positive for one label only.

    Returns:
        One row for each path, in the order of their first rows, with the line of that; (M, C) int8
        labels, positive where a row is, else negative where a row is, else uncertain where a row
        is, else blank; and notes.

    Raises:
        DatasetError: If the rows of an image differ in id, patient or split, or in an exclusive
            label.
    """
    repeated = images["path"].duplicated(keep=False).to_numpy(dtype=bool)
    if not repeated.any():
        return images, labels, []
    codes, _ = images["path"].factorize()
    firsts = np.unique(codes, return_index=True)[1]
    joined = images.iloc[firsts].copy()
    n_images = len(firsts) - int((~repeated).sum())
    notes = [
        f"{count_noun(n_images, 'image is', 'images are')} listed in {repeated.sum():,} rows, "
        "which are joined."
    ]
    if labels.shape[1]:
        notes.append(
            "A label of joined rows is positive if it is in one of them, else negative if it is in "
            "one of them, else uncertain if it is in one of them."
        )
    for column in images.columns.drop("path"):
        filled = images[column].where(images[column] != "")
        first = filled.groupby(codes).first()
        compared, expected = filled, first
        if column == "patient":  # "1" and "01" are one patient
            compared, expected = (
                names.map(patient_key, na_action="ignore") for names in (filled, first)
            )
        differs = (compared.notna() & (compared != expected.loc[codes].to_numpy())).to_numpy(bool)
        if differs.any() and column in _SAME:
            _refuse(images, codes, int(np.argmax(differs)), f"differ in the {column}", file)
        first.loc[np.unique(codes[differs])] = ""
        if differs.any():
            notes.append(
                f"The rows of {count_noun(len(np.unique(codes[differs])), 'image')} differ in the "
                f"{column}, which is treated as unknown."
            )
        joined[column] = first.fillna("").to_numpy()
    values = np.full((len(firsts), labels.shape[1]), BLANK, dtype=np.int8)
    np.maximum.at(values, codes, labels)
    if exclusive and len(several := np.flatnonzero((values == 1).sum(axis=1) > 1)):
        _refuse(
            images,
            codes,
            int(np.flatnonzero(codes == several[0])[1]),
            "have different classes: for several labels per image, give the column as `multilabel`",
            file,
        )
    return joined.astype(str), values, notes


def _refuse(
    images: "pd.DataFrame", codes: NDArray[np.intp], row: int, problem: str, file: Path
) -> None:
    first = int(np.argmax(codes == codes[row]))
    raise DatasetError(
        f"{file}, lines {images.index[first]} and {images.index[row]}: two rows of the image "
        f"{images['path'].iloc[row]!r} {problem}"
    )
