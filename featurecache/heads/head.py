"""What all heads have in common."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from featurecache.heads.config import HeadConfig
from featurecache.heads.gradient import fit_by_gradient
from featurecache.heads.layers import GaussianNoise
from featurecache.heads.standardize import Standardize
from featurecache.heads.types import TrainedHead, Training


class Head(nn.Module):
    """Maps image embeddings, (B, D) of any length, to one logit a label, (B, C)."""

    def fit(self, training: Training, rows: NDArray[np.intp]) -> TrainedHead:
        """Learn from these training rows, choosing by the validation rows."""
        raise NotImplementedError

    def resize_buffers_for(self, state: Mapping[str, Tensor]) -> None:
        """Before a state is loaded: take the sizes of what has as many rows as were learned from.

        Raises:
            ValueError: the state cannot be this head's.
        """


class GradientHead(Head):
    """A head that learns in epochs, on embeddings that ``Standardize`` standardised."""

    def __init__(self, dim: int, config: HeadConfig) -> None:
        super().__init__()
        self.scaling = Standardize(dim)
        self.noise = GaussianNoise(config.noise)

    def fit(self, training: Training, rows: NDArray[np.intp]) -> TrainedHead:
        """Train by gradient."""
        return fit_by_gradient(self, training, rows)

    def logits(self, scaled: Tensor) -> Tensor:
        """(B, D) standardised embeddings to (B, C) logits; in training, noise is added to them."""
        raise NotImplementedError

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, D) embeddings of any length to (B, C) logits."""
        return self.logits(self.scaling(embedding))
