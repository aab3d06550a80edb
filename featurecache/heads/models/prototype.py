"""The prototype head: class means, and nothing to be tuned."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featurecache.heads.config import HeadConfig
from featurecache.heads.models.platt_scaled import PlattScaledHead
from featurecache.heads.standardize import l2_normalize
from featurecache.heads.types import TrainedHead, Training


class Prototype(PlattScaledHead):
    """``<x, p+> - <x, p->`` with p the mean of a label's positives, and negatives, at length 1.

    A label without positives or without negatives has only the other mean to go by; one with
    neither scores 0.
    """

    contrast: Tensor

    def __init__(self, dim: int, labels: int, texts: None, config: HeadConfig) -> None:
        super().__init__(labels)
        self.register_buffer("contrast", torch.zeros(labels, dim))

    def scores(self, unit: Tensor) -> Tensor:
        """(B, D) embeddings of length 1 to (B, C) scores."""
        return unit @ self.contrast.T

    @torch.no_grad()
    def fit(self, training: Training, rows: NDArray[np.intp]) -> TrainedHead:
        """Take the means of the training rows."""
        data = training.data
        unit = l2_normalize(data.embedding, rows)
        labels = torch.from_numpy(data.labels[rows])
        means = [
            torch.nn.functional.normalize((labels == value).float().T @ unit, dim=1)
            for value in (1, 0)
        ]
        self.contrast.copy_(means[0] - means[1])
        scores = self.scores(l2_normalize(data.embedding, data.val))
        self.calibrate(data.labels[data.val], scores.numpy())
        return TrainedHead(self.eval(), training.config, (), None, rows)
