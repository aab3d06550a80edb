"""Exact nearest neighbours by cosine, in memory."""

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from featurecache.scoring.directions import Embeddings, unit_rows

Directions: TypeAlias = npt.NDArray[np.float32]

_ROWS_AT_ONCE: Final = 8192


def gallery_of(embeddings: Embeddings) -> Directions:
    """Embeddings (N, D) at unit length in float32: N * D * 4 bytes.

    A million rows of 768 take 3 GB, and a query over them is one pass through memory; kept as
    float16 they would have to be converted for every query, which takes several times as long.

    Raises:
        ValueError: an embedding has no direction (zero, NaN or infinite).
    """
    directions = np.empty(embeddings.shape, dtype=np.float32)
    for start in range(0, len(embeddings), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        directions[rows] = unit_rows(embeddings[rows], "image", first=start)
    return directions


def nearest(
    query: npt.NDArray[np.float32], gallery: Directions, *, top: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """The rows of a gallery that are nearest to a query, by cosine.

    Every row is looked at; nothing is approximate. Of rows that are equally near, the lower number
    comes first.

    Args:
        query: (D,) at unit length.
        gallery: (N, D) at unit length.
        top: how many; all N where there are no more.

    Returns:
        Row numbers and cosines, (min(top, N),) each, the nearest first.

    Raises:
        ValueError: ``top`` is less than 1, or the dimensions differ.
    """
    if top < 1:
        raise ValueError(f"the number of rows to find must be 1 or more, not {top}")
    cosines = gallery @ query
    top = min(top, len(cosines))
    edge = np.partition(cosines, len(cosines) - top)[len(cosines) - top]
    above = np.flatnonzero(cosines > edge)
    level = np.flatnonzero(cosines == edge)[: top - len(above)]
    rows = np.concatenate([above, level])
    rows = rows[np.lexsort((rows, -cosines[rows]))]
    return rows, cosines[rows]
