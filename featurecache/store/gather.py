"""Rows of one embedding that lie in several places."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

ReadSource = Callable[[int, int, int], NDArray[np.float16]]
"""Of a source, by its number, the rows ``start`` to ``stop``: (stop - start, D) float16."""


def gather_rows(
    source: NDArray[np.integer], row: NDArray[np.integer], *, dim: int, read: ReadSource
) -> NDArray[np.float16]:
    """Rows of several sources, (N, D), with one read of each.

    Args:
        source: (N,) which source each row lies in.
        row: (N,) its place there; of one source they ascend nearly everywhere, so that little is
            read beside what is wanted.
        dim: D.
        read: reads a source.
    """
    block = np.empty((len(source), dim), dtype=np.float16)
    for number in np.unique(source):
        mine = source == number
        low, high = int(row[mine].min()), int(row[mine].max()) + 1
        block[mine] = read(int(number), low, high)[row[mine] - low]
    return block
