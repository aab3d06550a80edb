"""The nearest-neighbour head: what the most similar training images have."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featurecache.heads.config import HeadConfig
from featurecache.heads.models.platt_scaled import (
    PlattScaledHead,
    in_chunks,
    select_by_validation_auroc,
)
from featurecache.heads.standardize import l2_normalize, l2_normalize_tensor
from featurecache.heads.types import TrainedHead, Training

NEIGHBOURS = (1, 3, 10, 30, 100, 300)


class Knn(PlattScaledHead):
    """The share of positives among the K training images with the highest cosines.

    K has the highest macro AUROC on validation. Neighbours of which a label is not known take no
    part in its share; where it is known of none, the share is that of all training images. The head
    holds the training embeddings as they are in the cache.
    """

    keys: Tensor
    labels: Tensor
    neighbours: Tensor

    def __init__(self, dim: int, labels: int, texts: None, config: HeadConfig) -> None:
        super().__init__(labels)
        self.register_buffer("keys", torch.zeros(1, dim, dtype=torch.float16))
        self.register_buffer("labels", torch.zeros(1, labels, dtype=torch.int8))
        self.register_buffer("neighbours", torch.tensor(1))

    def resize_buffers_for(self, state: Mapping[str, Tensor]) -> None:
        """Take the number of training images."""
        rows = len(state["keys"])
        self.keys = torch.zeros(rows, self.keys.shape[1], dtype=state["keys"].dtype)
        self.labels = torch.zeros(rows, self.labels.shape[1], dtype=torch.int8)

    def scores(self, unit: Tensor) -> Tensor:
        """(B, D) embeddings of length 1 to (B, C) shares."""
        number = int(self.neighbours)
        return self._shares(self._nearest(unit, number), number)

    def _nearest(self, unit: Tensor, number: int) -> Tensor:
        """(B, number) the training images with the highest cosines, from the highest down."""
        return (unit @ l2_normalize_tensor(self.keys).T).topk(number, dim=1).indices

    def _shares(self, nearest: Tensor, number: int) -> Tensor:
        labels = self.labels[nearest[:, :number]]
        known = (labels >= 0).sum(dim=1)
        positive = (labels == 1).sum(dim=1)
        everywhere = (self.labels == 1).sum(dim=0) / (self.labels >= 0).sum(dim=0).clamp(min=1)
        return torch.where(known > 0, positive / known.clamp(min=1), everywhere)

    @torch.no_grad()
    def fit(self, training: Training, rows: NDArray[np.intp]) -> TrainedHead:
        """Keep the training rows; choose K by the validation rows."""
        data = training.data
        self.keys = torch.from_numpy(np.array(data.embedding[rows]))
        self.labels = torch.from_numpy(data.labels[rows])
        possible = [number for number in NEIGHBOURS if number <= len(rows)]
        val = l2_normalize(data.embedding, data.val)
        nearest = in_chunks(lambda part: self._nearest(part, possible[-1]), val)
        truth = data.labels[data.val]
        best, scores, history = select_by_validation_auroc(
            truth,
            [(number, f"k={number}", self._shares(nearest, number).numpy()) for number in possible],
        )
        self.neighbours.fill_(best)
        self.calibrate(truth, scores)
        return TrainedHead(self.eval(), training.config, history, None, rows)
