"""The nearest-neighbor head: the labels of the most similar training images."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from featurecache.heads.config import HeadConfig
from featurecache.heads.models.platt_scaled import (
    PlattScaledHead,
    in_chunks,
    select_by_validation_auroc,
)
from featurecache.heads.standardize import l2_normalize
from featurecache.heads.types import TrainedHead, TrainingJob
from featurecache.metrics.similarity import content_order

NEIGHBOR_COUNTS = (1, 3, 10, 30, 100, 300)


class Knn(PlattScaledHead):
    """The fraction of positives among the K training images of highest cosine similarity.

    K has the highest macro AUROC on validation images. Neighbors whose label is unknown are ignored
    for that label; if it is unknown for all of them, the fraction among all training images is
    used. The head stores the training embeddings as they are in the cache.
    """

    keys: Tensor
    labels: Tensor
    neighbors: Tensor

    def __init__(self, dim: int, labels: int, texts: None, config: HeadConfig) -> None:
        super().__init__(labels)
        self.register_buffer("keys", torch.zeros(1, dim, dtype=torch.float16))
        self.register_buffer("labels", torch.zeros(1, labels, dtype=torch.int8))
        self.register_buffer("neighbors", torch.tensor(1))

    def resize_buffers_for(self, state: Mapping[str, Tensor]) -> None:
        """Take the number of training images from the state."""
        n_images = len(state["keys"])
        self.keys = torch.zeros(n_images, self.keys.shape[1], dtype=state["keys"].dtype)
        self.labels = torch.zeros(n_images, self.labels.shape[1], dtype=torch.int8)

    def scores(self, unit: Tensor) -> Tensor:
        """Return the fractions (B, C) for embeddings (B, D) of unit length."""
        k = int(self.neighbors)
        return self._positive_fraction(self._nearest(unit, k), k)

    def _nearest(self, unit: Tensor, k: int) -> Tensor:
        """Return the indices (B, k) of the most similar training images, most similar first."""
        return (unit @ l2_normalize(self.keys).T).topk(k, dim=1).indices

    def _positive_fraction(self, nearest: Tensor, k: int) -> Tensor:
        labels = self.labels[nearest[:, :k]]
        known = (labels >= 0).sum(dim=1)
        positive = (labels == 1).sum(dim=1)
        overall = (self.labels == 1).sum(dim=0) / (self.labels >= 0).sum(dim=0).clamp(min=1)
        return torch.where(known > 0, positive / known.clamp(min=1), overall)

    @torch.no_grad()
    def fit(self, job: TrainingJob) -> TrainedHead:
        """Store the training rows; choose K on the validation rows."""
        data = job.data
        keys = np.array(data.embedding[data.train])
        order = content_order(keys)
        self.keys = torch.from_numpy(keys[order])
        self.labels = torch.from_numpy(data.labels[data.train[order]])
        counts = [k for k in NEIGHBOR_COUNTS if k <= len(data.train)]
        nearest = in_chunks(
            lambda chunk: self._nearest(chunk, counts[-1]), data.normalized(data.val)
        )
        truth = data.labels[data.val]
        best, scores, history = select_by_validation_auroc(
            truth, [(k, f"k={k}", self._positive_fraction(nearest, k).numpy()) for k in counts]
        )
        self.neighbors.fill_(best)
        self.calibrate(truth, scores)
        return TrainedHead(self.eval(), job.config, data.train, history)
