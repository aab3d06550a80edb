"""Cosine similarity: L2 normalization and exact nearest neighbors, in memory."""

from collections.abc import Iterator
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import UsageError
from featurecache.progress import Progress

Floats: TypeAlias = NDArray[np.float64]
Embeddings: TypeAlias = NDArray[np.floating[Any]]
Directions: TypeAlias = NDArray[np.float32]

_TILE: Final = 1024
"""Rows of a tile: a matrix product of two of them stays in the processor's cache."""
_DENSE: Final = 64
"""A tile with more than one in so many possible pairs is computed as one matrix product."""
_SAMPLE: Final = 8192
"""Rows that principal components are estimated from."""
_MARGIN: Final = 1e-5

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


def nearest_of_other_groups(
    directions: Directions,
    groups: NDArray[Any],
    *,
    top: int,
    progress: Progress | None = None,
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Find, for each row, the rows of other groups with the highest cosine similarity.

    The search is exact. Each pair of tiles of rows is compared once, for both of its sides, and
    first by an upper bound of the cosine that takes an eighth of the time: the product in the first
    principal components, plus the product of the norms of what is left (Cauchy-Schwarz). Only
    pairs that can be among the nearest are computed in full. The steeper the spectrum of the
    embeddings, the fewer these are.

    Args:
        directions: (N, D), of unit length, or zero.
        groups: (N,), such as splits.
        top: Number of rows to find for each row.
        progress: Called while rows are compared.

    Returns:
        Row indices and cosines, (N, top) each, in descending order of the cosine. Among equal
        cosines, the lower index comes first. Where other groups have fewer rows, indices are -1
        and cosines -inf.

    Raises:
        ValueError: ``top`` is less than 1.
    """
    if top < 1:
        raise ValueError(f"`top` must be 1 or more, not {top}")
    best = _Nearest(len(directions), top)
    _, group = np.unique(groups, return_inverse=True)
    order = np.argsort(group, kind="stable")
    group = group[order].astype(np.min_scalar_type(len(order)))  # fewer bytes to compare
    bounds = _bounding_vectors(directions)[order]
    # The system would have to clear new memory for each product.
    space = np.empty((2, _TILE**2), dtype=np.float32)
    tiles = list(row_chunks(len(order), _TILE))
    pairs = [
        (a, b)
        for number, a in enumerate(tiles)
        for b in tiles[number:]
        if group[a][0] != group[b][-1]
    ]
    for done, (a, b) in enumerate(pairs, start=1):
        sides = [(a, order[b], False)] if a == b else [(a, order[b], False), (b, order[a], True)]
        differ = group[a][:, np.newaxis] != group[b]
        bound, cosines = (buffer[: differ.size].reshape(differ.shape) for buffer in space)
        np.matmul(bounds[a], bounds[b].T, out=bound)
        possible = bound >= best.lowest(a)[:, np.newaxis]
        if a != b:
            possible |= bound >= best.lowest(b)
        possible &= differ
        if np.count_nonzero(possible) > possible.size / _DENSE:
            np.matmul(directions[order[a]], directions[order[b]].T, out=cosines)
            cosines[~differ] = -np.inf
            for rows, others, transposed in sides:
                best.add_tile(rows, others, cosines.T if transposed else cosines)
        else:
            # In one dimension, numpy skips zeros several times as fast.
            row, column = np.divmod(np.flatnonzero(possible), possible.shape[1])
            left, right = order[a][row], order[b][column]
            of_pairs = np.vecdot(directions[left], directions[right])
            best.add(a.start + row, right, of_pairs)
            if a != b:
                best.add(b.start + column, left, of_pairs)
        if progress is not None:
            progress(done, len(pairs))
    inverse = np.argsort(order)
    return best.rows[inverse], best.cosines[inverse]


def _bounding_vectors(directions: Directions) -> Directions:
    """Return (N, K) vectors whose products are upper bounds of the products of the directions."""
    n_rows, dim = directions.shape
    sample = directions[:: max(n_rows // _SAMPLE, 1)].astype(np.float64)
    axes = np.linalg.eigh(sample.T @ sample)[1][:, -max(dim // 8, 1) :].astype(np.float32)
    projected = directions @ axes
    # The margin is larger than the rounding of the product of two vectors.
    rest = np.sqrt(np.maximum(1 - np.vecdot(projected, projected), 0) + _MARGIN)
    return np.column_stack([projected, rest])


class _Nearest:
    """The nearest rows that were found so far, (N, top), nearest first."""

    def __init__(self, n_rows: int, top: int) -> None:
        self.rows = np.full((n_rows, top), -1, dtype=np.intp)
        self.cosines = np.full((n_rows, top), -np.inf, dtype=np.float32)

    def lowest(self, rows: slice) -> NDArray[np.float32]:
        """Return the cosines that a new row has to reach."""
        return self.cosines[rows, -1]

    def add_tile(self, rows: slice, others: NDArray[np.intp], cosines: NDArray[np.float32]) -> None:
        """Add the cosines (R, M) of a slice of R rows with M others."""
        lowest, top = self.lowest(rows), self.rows.shape[1]
        if np.isneginf(lowest).any() and len(others) > top:
            lowest = np.maximum(lowest, np.partition(cosines, -top, axis=1)[:, -top])
        near = np.nonzero(cosines >= lowest[:, np.newaxis])
        self.add(rows.start + near[0], others[near[1]], cosines[near])

    def add(
        self, rows: NDArray[np.intp], others: NDArray[np.intp], cosines: NDArray[np.float32]
    ) -> None:
        """Add pairs, (P,) each; those of -inf come after the -1 that they start with."""
        near = cosines >= self.cosines[rows, -1]
        rows, others, cosines = rows[near], others[near], cosines[near]
        changed, top = np.unique(rows), self.rows.shape[1]
        rows = np.concatenate([np.repeat(changed, top), rows])
        others = np.concatenate([self.rows[changed].ravel(), others])
        cosines = np.concatenate([self.cosines[changed].ravel(), cosines])
        order = np.lexsort((others, -cosines, rows))
        first = order[np.searchsorted(rows[order], changed)[:, np.newaxis] + np.arange(top)]
        self.rows[changed], self.cosines[changed] = others[first], cosines[first]
