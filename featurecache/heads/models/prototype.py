"""The prototype head: the nearest class mean, without any setting."""

import torch
from torch import Tensor, nn

from featurecache.heads.config import HeadConfig
from featurecache.heads.models.platt_scaled import PlattScaledHead
from featurecache.heads.types import TrainedHead, TrainingJob


class Prototype(PlattScaledHead):
    """``<x, p+> - <x, p->`` with p the mean of a label's positives and negatives, at unit length.

    A label without positives, or without negatives, is scored by the other mean alone; one without
    either scores 0.
    """

    contrast: Tensor

    def __init__(self, dim: int, labels: int, texts: None, config: HeadConfig) -> None:
        super().__init__(labels)
        self.register_buffer("contrast", torch.zeros(labels, dim))

    def scores(self, unit: Tensor) -> Tensor:
        """Return the scores (B, C) of embeddings (B, D) of unit length."""
        return unit @ self.contrast.T

    @torch.no_grad()
    def fit(self, job: TrainingJob) -> TrainedHead:
        """Compute the means of the training rows."""
        data = job.data
        unit = data.normalized(data.train)
        labels = torch.from_numpy(data.labels[data.train])
        means = [
            nn.functional.normalize((labels == value).float().T @ unit, dim=1) for value in (1, 0)
        ]
        self.contrast.copy_(means[0] - means[1])
        scores = self.scores(data.normalized(data.val))
        self.calibrate(data.labels[data.val], scores.numpy())
        return TrainedHead(self.eval(), job.config, data.train)
