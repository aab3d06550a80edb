"""Input standardization, which is part of a head and saved with it."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_CHUNK_ROWS = 4096
"""Vectors that are computed at a time."""


class Standardize(nn.Module):
    """Scale embeddings to unit length, then each dimension to mean 0 and variance 1.

    Mean and standard deviation are those of the training rows; of tokens, those of all tokens.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))

    @torch.no_grad()
    def fit(self, embedding: NDArray[np.floating], rows: NDArray[np.intp]) -> None:
        """Compute mean and standard deviation of rows of (N, D) embeddings, or (N, T, D) tokens."""
        dim = embedding.shape[-1]
        center = torch.zeros(dim)
        total = torch.zeros(dim, dtype=torch.float64)
        squares = torch.zeros_like(total)
        for index, chunk in enumerate(_iter_chunks(embedding, rows)):
            unit = l2_normalize(chunk).reshape(-1, dim)
            if index == 0:
                center = unit.mean(dim=0)
            # Squared distances from a point near the mean do not cancel in single precision.
            offset = unit - center
            total += offset.sum(dim=0)
            squares += offset.square_().sum(dim=0)
        number = len(rows) * math.prod(embedding.shape[1:-1])
        mean = total / number
        self.mean = (center + mean).float()
        deviation = (squares / number - mean.square()).clamp(min=0).sqrt()
        # Dividing a constant dimension by its deviation would amplify rounding errors.
        self.deviation = torch.where(deviation > 1e-6, deviation, 1.0).float()

    @torch.no_grad()
    def transform(
        self, embedding: NDArray[np.floating], rows: NDArray[np.intp], dtype: torch.dtype
    ) -> Tensor:
        """Return n rows of embeddings or tokens standardized, computed in chunks."""
        standardized = torch.empty((len(rows), *embedding.shape[1:]), dtype=dtype)
        start = 0
        for chunk in _iter_chunks(embedding, rows):
            standardized[start : start + len(chunk)] = self(chunk)
            start += len(chunk)
        return standardized

    def forward(self, embedding: Tensor) -> Tensor:
        """Standardize (B, D) embeddings, or (B, T, D) tokens, of any length."""
        return (nn.functional.normalize(embedding, dim=-1) - self.mean) / self.deviation


def l2_normalize(embedding: Tensor) -> Tensor:
    """Scale (N, D) embeddings, or (N, T, D) tokens, to unit length, in float32."""
    return nn.functional.normalize(embedding.float(), dim=-1)


def _iter_chunks(embedding: NDArray[np.floating], rows: NDArray[np.intp]) -> Iterator[Tensor]:
    stored = torch.from_numpy(embedding)
    step = max(1, _CHUNK_ROWS // math.prod(embedding.shape[1:-1]))
    for start in range(0, len(rows), step):
        yield stored.index_select(0, torch.from_numpy(rows[start : start + step])).float()
