"""Cosine similarity: L2 normalization and exact nearest neighbors, in memory."""

from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Embeddings: TypeAlias = npt.NDArray[np.floating[Any]]
Directions: TypeAlias = npt.NDArray[np.float32]

_ROWS_AT_ONCE: Final = 8192
_COSINES_AT_ONCE: Final = 2**24


def l2_normalize(embeddings: Embeddings, kind: str, *, first: int = 0) -> Floats:
    """Rows at unit length, in float64: a large float16 squared is more than float16 holds.

    Args:
        embeddings: (N, D) of any length.
        kind: what they are of, for the error.
        first: the number of the first row, for the error.

    Raises:
        ValueError: a row has no direction (zero, NaN or infinite).
    """
    rows = embeddings.astype(np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, np.newaxis]
    bad = np.flatnonzero(~(np.isfinite(norms[:, 0]) & (norms[:, 0] > 0)))
    if len(bad):
        raise ValueError(
            f"{kind} embedding {first + bad[0]} has norm {norms[bad[0], 0]}, so no direction"
        )
    rows /= norms
    return rows


def normalize_rows(embeddings: Embeddings) -> Directions:
    """Embeddings (N, D) at unit length in float32: N * D * 4 bytes.

    A million rows of 768 take 3 GB, and a query over them is one pass through memory; kept as
    float16 they would have to be converted for every query, which takes several times as long.

    Raises:
        ValueError: an embedding has no direction (zero, NaN or infinite).
    """
    directions = np.empty(embeddings.shape, dtype=np.float32)
    for start in range(0, len(embeddings), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        directions[rows] = l2_normalize(embeddings[rows], "image", first=start)
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


def batch_nearest(
    queries: Directions, gallery: Directions, *, top: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """The rows of a gallery that are nearest to each of many queries, by cosine.

    As exact as ``nearest``, but a block of queries shares each pass through the gallery, so that
    the time is that of a product of matrices. Which of several rows that are equally near is the
    last to be found is left open.

    Args:
        queries: (Q, D) at unit length.
        gallery: (N, D) at unit length.
        top: how many; all N where there are no more.

    Returns:
        Row numbers and cosines, (Q, min(top, N)) each, the nearest first.

    Raises:
        ValueError: ``top`` is less than 1, the gallery is empty, or the dimensions differ.
    """
    if top < 1 or not len(gallery):
        raise ValueError(f"cannot find the {top} nearest of {len(gallery)} rows")
    top = min(top, len(gallery))
    rows = np.empty((len(queries), top), dtype=np.intp)
    found = np.empty((len(queries), top), dtype=np.float32)
    block = max(_COSINES_AT_ONCE // len(gallery), 1)
    for start in range(0, len(queries), block):
        some = slice(start, start + block)
        cosines = queries[some] @ gallery.T
        near = np.argpartition(-cosines, top - 1, axis=1)[:, :top]
        order = np.lexsort((near, -np.take_along_axis(cosines, near, axis=1)))
        rows[some] = np.take_along_axis(near, order, axis=1)
        found[some] = np.take_along_axis(cosines, rows[some], axis=1)
    return rows, found
