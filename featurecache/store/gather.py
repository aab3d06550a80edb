"""Gather embedding rows from several sources."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

ReadSource = Callable[[int, int, int], NDArray[np.float16]]
"""Reads rows ``start`` to ``stop`` of the source with this number: (stop - start, D) float16."""


def gather_rows(
    source: NDArray[np.integer], row: NDArray[np.integer], *, dim: int, read: ReadSource
) -> NDArray[np.float16]:
    """Return rows of several sources, (N, D) float16, with one read per source.

    Args:
        source: Number of the source of each row, (N,).
        row: Index in its source of each row, (N,). Within a source they are mostly ascending, so
            that little is read in between.
        dim: Length D of a row.
        read: Reads rows of a source.
    """
    block = np.empty((len(source), dim), dtype=np.float16)
    for number in np.unique(source):
        selected = source == number
        low, high = int(row[selected].min()), int(row[selected].max()) + 1
        block[selected] = read(int(number), low, high)[row[selected] - low]
    return block
