"""A head of your own: similarity to the most typical positive image, the medoid."""

import torch
from torch import Tensor

import featurecache as fc
from featurecache.heads.config import HeadConfig
from featurecache.heads.models.platt_scaled import PlattScaledHead
from featurecache.heads.types import TrainedHead, TrainingJob


class Medoid(PlattScaledHead):
    medoid: Tensor

    def __init__(self, dim: int, labels: int, texts: None, config: HeadConfig) -> None:
        super().__init__(labels)
        self.register_buffer("medoid", torch.zeros(labels, dim))  # saved with the run

    def scores(self, unit: Tensor) -> Tensor:  # (B, D) of length 1 -> (B, C)
        return unit @ self.medoid.T

    @torch.no_grad()
    def fit(self, job: TrainingJob) -> TrainedHead:
        data = job.data
        unit, labels = data.normalized(data.train), data.targets(data.train)
        for label in range(labels.shape[1]):
            positives = unit[labels[:, label] == 1]
            if len(positives):
                self.medoid[label] = positives[(positives @ positives.T).sum(dim=1).argmax()]
        scores = self.scores(data.normalized(data.val)).numpy()
        self.calibrate(data.labels[data.val], scores)  # slope and intercept, on validation images
        return TrainedHead(self.eval(), job.config, data.train)


fc.register_head("medoid", Medoid, summary="similarity to the most typical positive image")
