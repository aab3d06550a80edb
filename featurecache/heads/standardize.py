"""What every head does to an image embedding first; part of the head, so it is saved with it."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_ROWS = 4096
"""As many embeddings are looked at at once."""


class Standardize(nn.Module):
    """Scale embeddings to unit length, then each dimension to mean 0 and variance 1.

    The mean and deviation are those of the training rows.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))

    @torch.no_grad()
    def fit(self, embedding: NDArray[np.floating], rows: NDArray[np.intp]) -> None:
        """Take mean and deviation from these rows of (N, D) embeddings."""
        near = torch.zeros(len(self.mean))
        total = torch.zeros(len(self.mean), dtype=torch.float64)
        squares = torch.zeros_like(total)
        for number, part in enumerate(_iter_chunks(embedding, rows)):
            unit = nn.functional.normalize(part, dim=1)
            if number == 0:
                near = unit.mean(dim=0)
            # Counted from near the mean, squares lose nothing in single precision.
            off = unit - near
            total += off.sum(dim=0)
            squares += off.square_().sum(dim=0)
        mean = total / len(rows)
        self.mean.copy_(near + mean)
        deviation = (squares / len(rows) - mean.square()).clamp(min=0).sqrt()
        # A dimension that never varies says nothing; dividing by its deviation would blow it up.
        self.deviation.copy_(torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation)))

    @torch.no_grad()
    def scaled(
        self, embedding: NDArray[np.floating], rows: NDArray[np.intp], dtype: torch.dtype
    ) -> Tensor:
        """These rows of (N, D) embeddings, standardised once for many epochs."""
        found = torch.empty((len(rows), len(self.mean)), dtype=dtype)
        start = 0
        for part in _iter_chunks(embedding, rows):
            found[start : start + len(part)] = self(part)
            start += len(part)
        return found

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, D) embeddings of any length to (B, D) standardised ones."""
        return (nn.functional.normalize(embedding, dim=1) - self.mean) / self.deviation


def l2_normalize_tensor(embedding: Tensor) -> Tensor:
    """(N, D) of any float type to length 1, float32."""
    return nn.functional.normalize(embedding.float(), dim=1)


def l2_normalize(embedding: NDArray[np.floating], rows: NDArray[np.intp]) -> Tensor:
    """Rows of (N, D) embeddings, of length 1, float32."""
    return l2_normalize_tensor(torch.from_numpy(np.array(embedding[rows])))


def targets(labels: NDArray[np.int8], rows: NDArray[np.intp]) -> Tensor:
    """Rows of (N, C) labels as losses take them: float32 of 1, 0, or -1 for unknown."""
    return torch.from_numpy(labels[rows].astype(np.float32))


def _iter_chunks(embedding: NDArray[np.floating], rows: NDArray[np.intp]) -> Iterator[Tensor]:
    """Rows of embeddings, some at a time, in float32."""
    stored = torch.from_numpy(embedding)
    for start in range(0, len(rows), _ROWS):
        yield stored.index_select(0, torch.from_numpy(rows[start : start + _ROWS])).float()
