"""Parse label strings such as ``Effusion|Mass`` into a label matrix."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import DatasetError, UnknownNameError

if TYPE_CHECKING:
    import pandas as pd

NO_FINDING = "No Finding"


def label_matrix(
    cells: "pd.Series[str]", names: Sequence[str] | None, *, csv: Path
) -> tuple[tuple[str, ...], NDArray[np.int8]]:
    """Parse cells such as ``Effusion|Mass`` into a label matrix.

    ``No Finding`` and the empty cell stand for no positive label.

    Args:
        cells: (N,) text, indexed by line of the file.
        names: Valid labels; None uses those that occur, sorted.
        csv: The file, for error messages.

    Returns:
        The C names, and (N, C) int8 of 1 and 0.

    Raises:
        DatasetError: If a cell has an empty or unknown label, or ``No Finding`` beside another.
    """
    import pandas as pd

    # 100,000 rows have a few hundred distinct combinations, so parse each once.
    codes, texts = pd.factorize(cells)
    combinations: list[frozenset[str]] = []
    for code, text in enumerate(texts):
        location = f"{csv}, line {cells.index[int(np.argmax(codes == code))]}"
        combinations.append(_parse_cell(text, names, location))
    if names is None:
        names = sorted(frozenset().union(*combinations))
        if not names:
            raise DatasetError(
                f"the column {cells.name!r} of {csv} has no labels: check the column"
            )
    matrix = np.array(
        [[name in labels for name in names] for labels in combinations], dtype=np.int8
    ).reshape(len(combinations), len(names))
    return tuple(names), matrix[codes]


def _parse_cell(text: str, names: Sequence[str] | None, location: str) -> frozenset[str]:
    if text in ("", NO_FINDING):
        return frozenset()
    labels = frozenset(label.strip() for label in text.split("|"))
    if NO_FINDING in labels:
        raise DatasetError(
            f"{location}: {NO_FINDING!r} together with a finding, {text!r}. Keep one of the two"
        )
    if "" in labels:
        raise DatasetError(f"{location}: empty label in {text!r}. Correct the bars in the cell")
    for label in sorted(labels):
        if names is not None and label not in names:
            raise DatasetError(f"{location}: {UnknownNameError('finding', label, names)}")
    return labels
