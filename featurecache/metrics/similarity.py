"""Cosine similarity: L2 normalization and exact nearest neighbors, in memory."""

from collections.abc import Iterator
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import UsageError

Floats: TypeAlias = NDArray[np.float64]
Embeddings: TypeAlias = NDArray[np.floating[Any]]
Directions: TypeAlias = NDArray[np.float32]

_COSINES_PER_CHUNK: Final = 2**24

_FLOAT16: Final = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
"""Each float16 as float32. To look them up is twice as fast as numpy's conversion on x86."""

_Float = TypeVar("_Float", np.float32, np.float64)


def row_chunks(n_rows: int, size: int = 8192) -> Iterator[slice]:
    """Yield slices of at most ``size`` rows, to compute in float64 without copying all rows."""
    return (slice(start, start + size) for start in range(0, n_rows, size))


def l2_normalize(embeddings: Embeddings, kind: str, *, first: int = 0) -> Floats:
    """Scale each row to unit L2 norm.

    The computation is in float64: the square of a large float16 overflows float16.

    Args:
        embeddings: (N, D).
        kind: What the rows are embeddings of, for the error message.
        first: Index of the first row, for the error message.

    Returns:
        (N, D) float64.

    Raises:
        UsageError: A row has norm 0, NaN or infinity.
    """
    rows = embeddings.astype(np.float64)
    rows /= _norms(rows, kind, first)[:, np.newaxis]
    return rows


def _norms(rows: NDArray[_Float], kind: str, first: int) -> NDArray[_Float]:
    norms: NDArray[_Float] = np.sqrt(np.vecdot(rows, rows))
    bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    if len(bad):
        raise UsageError(
            f"{kind} embedding {first + bad[0]} has norm {norms[bad[0]]} and cannot be normalized"
        )
    return norms


def normalize_rows(embeddings: Embeddings) -> Directions:
    """Scale each image embedding to unit L2 norm, in float32 and chunk by chunk.

    A million rows of 768 values take 3 GB, and a query is one pass through memory. As float16 they
    would have to be converted for every query, which takes several times as long.

    Args:
        embeddings: (N, D).

    Returns:
        (N, D) float32.

    Raises:
        UsageError: An embedding has norm 0, NaN or infinity.
    """
    directions = np.empty(embeddings.shape, dtype=np.float32)
    for rows in row_chunks(len(embeddings)):
        directions[rows] = l2_normalize(embeddings[rows], "image", first=rows.start)
    return directions


def cosine_similarity(
    query: NDArray[np.float32], embeddings: Embeddings, *, first: int = 0
) -> NDArray[np.float32]:
    """Compute the cosines of one query with image embeddings.

    For many queries, normalize the embeddings once and multiply matrices.

    Args:
        query: (D,) at unit length.
        embeddings: (N, D), not normalized; a block of a larger array.
        first: Index of the first row, for the error message.

    Returns:
        (N,) float32. Equal embeddings have equal cosines, whatever block they are in.

    Raises:
        UsageError: An embedding has norm 0, NaN or infinity.
    """
    if embeddings.dtype == np.float16:
        rows = _FLOAT16.take(embeddings.view(np.uint16), mode="clip")  # checks no index
    else:
        rows = embeddings.astype(np.float32)
    # Row by row: the rounding of a matrix product depends on the position of a row.
    cosines: NDArray[np.float32] = np.vecdot(rows, query) / _norms(rows, "image", first)
    return cosines


def highest(cosines: NDArray[np.float32], *, top: int) -> NDArray[np.intp]:
    """Find the rows with the highest of N cosines.

    Args:
        cosines: (N,).
        top: Number of rows to return; all N if there are fewer.

    Returns:
        Row indices, (min(top, N),), in descending order of the cosine. Among rows with equal
        cosines, the one with the lower index comes first.

    Raises:
        ValueError: ``top`` is less than 1.
    """
    if top < 1:
        raise ValueError(f"`top` must be 1 or more, not {top}")
    top = min(top, len(cosines))
    lowest = np.partition(cosines, len(cosines) - top)[len(cosines) - top]
    above = np.flatnonzero(cosines > lowest)
    tied = np.flatnonzero(cosines == lowest)[: top - len(above)]
    rows = np.concatenate([above, tied])
    return rows[np.lexsort((rows, -cosines[rows]))]


def batch_nearest(
    queries: Directions, gallery: Directions, *, top: int
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Find the rows of a gallery with the highest cosine similarity to each of many queries.

    The search is exact: a chunk of queries shares one matrix product with the gallery. Among
    rows that tie for the last place, any may be returned.

    Args:
        queries: (Q, D) at unit length.
        gallery: (N, D) at unit length.
        top: Number of rows to return per query; all N if there are fewer.

    Returns:
        Row indices and cosines, (Q, min(top, N)) each, in descending order of the cosine.

    Raises:
        ValueError: ``top`` is less than 1, the gallery is empty, or the dimensions differ.
    """
    if top < 1 or not len(gallery):
        raise ValueError(f"cannot find the {top} nearest of {len(gallery)} rows")
    top = min(top, len(gallery))
    rows = np.empty((len(queries), top), dtype=np.intp)
    best_cosines = np.empty((len(queries), top), dtype=np.float32)
    for chunk in row_chunks(len(queries), max(_COSINES_PER_CHUNK // len(gallery), 1)):
        cosines = queries[chunk] @ gallery.T
        near = np.argpartition(-cosines, top - 1, axis=1)[:, :top]
        order = np.lexsort((near, -np.take_along_axis(cosines, near, axis=1)))
        rows[chunk] = np.take_along_axis(near, order, axis=1)
        best_cosines[chunk] = np.take_along_axis(cosines, rows[chunk], axis=1)
    return rows, best_cosines
