"""Findings joined by a bar, as in ``Effusion|Mass``, as a matrix of labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from featurecache.errors import DatasetError, UnknownNameError

if TYPE_CHECKING:
    import pandas as pd

NO_FINDING = "No Finding"


def label_matrix(
    cells: "pd.Series[str]", names: Sequence[str] | None, *, csv: Path
) -> tuple[tuple[str, ...], npt.NDArray[np.int8]]:
    """Turn cells such as ``Effusion|Mass`` into a matrix of labels.

    ``No Finding`` and the empty cell stand for the empty set.

    Args:
        cells: (N,) text, indexed by line of the file.
        names: The labels that there can be; None takes those that occur, sorted.
        csv: The file, for messages.

    Returns:
        The C names, and (N, C) int8 of 1 and 0.

    Raises:
        DatasetError: a cell has an empty or unknown finding, or ``No Finding`` beside another.
    """
    import pandas as pd

    # A hundred thousand rows hold a few hundred combinations: each is looked at once.
    codes, texts = pd.factorize(cells)
    combinations: list[frozenset[str]] = []
    for code, text in enumerate(texts):
        where = f"line {cells.index[int(np.argmax(codes == code))]} of {csv}"
        combinations.append(_findings(text, names, where))
    if names is None:
        names = sorted(frozenset().union(*combinations))
        if not names:
            raise DatasetError(f"no row of {csv} has a finding in {cells.name!r}: check the column")
    table = np.array(
        [[name in found for name in names] for found in combinations], dtype=np.int8
    ).reshape(len(combinations), len(names))
    return tuple(names), table[codes]


def _findings(text: str, names: Sequence[str] | None, where: str) -> frozenset[str]:
    if text in ("", NO_FINDING):
        return frozenset()
    found = frozenset(part.strip() for part in text.split("|"))
    if NO_FINDING in found:
        raise DatasetError(
            f"{where} has {NO_FINDING!r} together with a finding, {text!r}: keep one of the two"
        )
    if "" in found:
        raise DatasetError(f"{where} has an empty finding, {text!r}: mend the bars in the cell")
    for finding in sorted(found):
        if names is not None and finding not in names:
            reason = UnknownNameError("finding", finding, names)
            raise DatasetError(f"{where} has an {reason}")
    return found
