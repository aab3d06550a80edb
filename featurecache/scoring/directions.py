"""Embeddings at unit length: what a cosine compares is their directions."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Embeddings: TypeAlias = npt.NDArray[np.floating[Any]]


def unit_rows(embeddings: Embeddings, kind: str, *, first: int = 0) -> Floats:
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
