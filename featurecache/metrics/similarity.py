"""Cosine similarity: L2 normalization and exact nearest neighbors, in memory."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import UsageError
from featurecache.progress import Progress

Floats: TypeAlias = NDArray[np.float64]
Embeddings: TypeAlias = NDArray[np.floating[Any]]
Directions: TypeAlias = NDArray[np.float32]

_TILE: Final = 512
"""Rows of a tile: a matrix product of two of them stays in the processor's cache."""
_DENSE: Final = 64
"""A tile with more than one in so many possible pairs is computed as one matrix product."""
_SAMPLE: Final = 8192
"""Rows that principal components are estimated from."""
_MARGIN: Final = 1e-5
"""Added to an upper bound of a cosine, against rounding."""

_FLOAT16: Final = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
"""Each float16 as float32. To look them up is twice as fast as numpy's conversion on x86."""

_Float = TypeVar("_Float", np.float32, np.float64)


def content_order(embedding: NDArray[np.floating[Any]]) -> NDArray[np.intp]:
    """Return the rows of embeddings (N, D) in the order of their first numbers.

    A trained model that holds embeddings of training images in this order does not tell in which
    order the images were, which is often that of their ids.
    """
    return np.lexsort(embedding[:, :8].T)


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
    at_least: float | NDArray[np.floating[Any]] = -np.inf,
    progress: Progress | None = None,
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Find, for each row, the rows of other groups with the highest cosine similarity.

    The search is exact. Each pair of tiles of rows is compared once, for both of its sides, and
    first by an upper bound of the cosine that takes an eighth of the time: the product in the first
    principal components, plus the product of the norms of what is left (Cauchy-Schwarz). Only
    pairs that can be among the nearest are computed in full, and tiles that are too far apart in
    the first component are skipped. The steeper the spectrum of the embeddings and the higher the
    minimum cosine, the less is computed.

    Args:
        directions: (N, D), of unit length, or zero.
        groups: (N,), such as splits.
        top: Number of rows to find for each row.
        at_least: Minimum cosine of the rows to find: one for all rows, or (N,) for each; infinity
            for rows whose nearest are not needed.
        progress: Called while rows are compared.

    Returns:
        Row indices and cosines, (N, top) each, in descending order of the cosine. Among equal
        cosines, the lower index comes first. Where there are fewer, indices are -1 and cosines
        -inf.

    Raises:
        ValueError: ``top`` is less than 1.
    """
    if top < 1:
        raise ValueError(f"`top` must be 1 or more, not {top}")
    _, group = np.unique(groups, return_inverse=True)
    lowest = np.full(len(group), at_least, dtype=np.float32)
    bounds = _bounding_vectors(directions)
    order = np.lexsort((bounds[:, 0], lowest, group))
    bounds = bounds[order]
    best = _Nearest(lowest[order], top)
    # The system would have to clear new memory for each product.
    space = np.empty(_TILE**2, dtype=np.float32)
    pairs = _pairs_of_tiles(group[order], bounds[:, 0])
    for done, (a, b, highest_bound) in enumerate(pairs, start=1):
        if highest_bound >= min(best.lowest[a].min(), best.lowest[b].min()):
            shape = a.stop - a.start, b.stop - b.start
            products = space[: shape[0] * shape[1]].reshape(shape)
            np.matmul(bounds[a], bounds[b].T, out=products)
            possible = best.find_possible(a, b, products)
            if dense := np.count_nonzero(possible) > possible.size / _DENSE:
                np.matmul(directions[order[a]], directions[order[b]].T, out=products)
                best.raise_lowest(a, b, products)
                possible = best.find_possible(a, b, products)
            # In one dimension, numpy skips zeros several times as fast.
            found = np.flatnonzero(possible)
            row, column = np.divmod(found, shape[1])
            left, right = order[a][row], order[b][column]
            cosines = (
                products.ravel()[found] if dense else np.vecdot(directions[left], directions[right])
            )
            best.add(a.start + row, right, cosines)
            best.add(b.start + column, left, cosines)
        if progress is not None:
            progress(done, len(pairs))
    inverse = np.argsort(order)
    return best.rows[inverse], best.cosines[inverse]


def _bounding_vectors(directions: Directions) -> Directions:
    """Return (N, K) vectors whose products are upper bounds of the products of the directions.

    Their squared norms are 1 plus a margin that is larger than the rounding of a product. The first
    column is the first principal component.
    """
    n_rows, dim = directions.shape
    sample = directions[:: max(n_rows // _SAMPLE, 1)].astype(np.float64)
    axes = np.linalg.eigh(sample.T @ sample)[1][:, : -1 - max(dim // 8, 1) : -1].astype(np.float32)
    projected = directions @ axes
    rest = np.sqrt(np.maximum(1 - np.vecdot(projected, projected), 0) + _MARGIN)
    return np.column_stack([projected, rest])


def _pairs_of_tiles(
    group: NDArray[np.intp], component: NDArray[np.float32]
) -> list[tuple[slice, slice, float]]:
    """Pair the tiles of different groups, those with similar components first.

    Args:
        group: (N,), sorted.
        component: (N,), a component of the bounding vectors.

    Returns:
        The tiles of each pair, and an upper bound of the cosines of their rows.
    """
    edges = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(group)]
    tiles = [
        slice(start, min(start + _TILE, stop))
        for first, stop in pairwise(edges)
        for start in range(first, stop, _TILE)
    ]
    low, high = (np.array([end(component[tile]) for tile in tiles]) for end in (np.min, np.max))
    of_tile = np.array([group[tile.start] for tile in tiles])
    a, b = np.nonzero(of_tile[:, np.newaxis] < of_tile)
    gap = np.maximum(np.maximum(low[a] - high[b], low[b] - high[a]), 0)
    # The squared distance of the vectors, 2 (1 + margin - product), is at least that of components.
    bound = 1 + _MARGIN - gap**2 / 2
    return [(tiles[a[pair]], tiles[b[pair]], bound[pair]) for pair in np.argsort(gap)]


class _Nearest:
    """The nearest rows that were found so far, (N, top), nearest first.

    ``lowest`` (N,) are the cosines that further ones have to reach.
    """

    def __init__(self, at_least: NDArray[np.float32], top: int) -> None:
        self.lowest = at_least
        self.rows = np.full((len(at_least), top), -1, dtype=np.intp)
        self.cosines = np.full((len(at_least), top), -np.inf, dtype=np.float32)

    def find_possible(self, a: slice, b: slice, cosines: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return which pairs of two tiles, (R, M), are high enough for one of their sides."""
        possible: NDArray[np.bool_] = cosines >= self.lowest[a][:, np.newaxis]
        possible |= cosines >= self.lowest[b]
        return possible

    def raise_lowest(self, a: slice, b: slice, cosines: NDArray[np.float32]) -> None:
        """Raise the cosines to reach of rows without one, before those of two tiles are added."""
        top = self.rows.shape[1]
        for rows, of_rows in ((a, cosines), (b, cosines.T)):
            if np.isneginf(self.lowest[rows]).any() and of_rows.shape[1] > top:
                nearest = np.partition(of_rows, -top, axis=1)[:, -top]
                self.lowest[rows] = np.maximum(self.lowest[rows], nearest)

    def add(
        self, rows: NDArray[np.intp], others: NDArray[np.intp], cosines: NDArray[np.float32]
    ) -> None:
        """Add pairs, (P,) each, if they are high enough."""
        near = cosines >= self.lowest[rows]
        rows, others, cosines = rows[near], others[near], cosines[near]
        changed, top = np.unique(rows), self.rows.shape[1]
        rows = np.concatenate([np.repeat(changed, top), rows])
        others = np.concatenate([self.rows[changed].ravel(), others])
        cosines = np.concatenate([self.cosines[changed].ravel(), cosines])
        order = np.lexsort((others, -cosines, rows))
        first = order[np.searchsorted(rows[order], changed)[:, np.newaxis] + np.arange(top)]
        self.rows[changed], self.cosines[changed] = others[first], cosines[first]
        self.lowest[changed] = np.maximum(self.lowest[changed], cosines[first[:, -1]])
