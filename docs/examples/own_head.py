"""A head of one's own: the likeness to the most typical positive, its medoid."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featurecache.heads.models.platt_scaled import PlattScaledHead
from featurecache.heads.standardize import l2_normalize
from featurecache.heads.types import TrainedHead, Training


class Medoid(PlattScaledHead):
    medoid: Tensor

    def __init__(self, dim: int, labels: int) -> None:
        super().__init__(labels)
        self.register_buffer("medoid", torch.zeros(labels, dim))

    def scores(self, unit: Tensor) -> Tensor:
        return unit @ self.medoid.T

    @torch.no_grad()
    def fit(self, training: Training, rows: NDArray[np.intp]) -> TrainedHead:
        data = training.data
        unit = l2_normalize(data.embedding, rows)
        for label in range(data.labels.shape[1]):
            positives = unit[torch.from_numpy(data.labels[rows, label] == 1)]
            if len(positives):
                self.medoid[label] = positives[(positives @ positives.T).sum(dim=1).argmax()]
        scores = self.scores(l2_normalize(data.embedding, data.val))
        self.calibrate(data.labels[data.val], scores.numpy())
        return TrainedHead(self.eval(), training.config, (), None, rows)
