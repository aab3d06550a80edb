"""Tip-Adapter: the zero-shot score plus the labels of similar training images."""

from collections.abc import Mapping
from functools import partial
from itertools import product

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
from featurecache.heads.text_features import LabelTexts
from featurecache.heads.types import TrainedHead, TrainingJob
from featurecache.metrics.similarity import content_order

SHARPNESS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Candidates for beta. Chest X-rays are so similar that cosines differ in the second digit."""

WEIGHTS = (0.0, *(10.0**power for power in np.arange(-1, 4.5, 0.5)))
"""Candidates for alpha. With 0 the head is zero-shot."""


class TipAdapter(PlattScaledHead):
    """``s <x, t> + alpha / n * sum over positives i of exp(-beta (1 - <x, x_i>))`` for each label.

    Zhang et al. 2022, "Tip-Adapter: training-free adaption of CLIP for few-shot classification",
    for several labels at once: n is the number of a label's positives, t its positive minus its
    negative text. alpha and beta have the highest macro AUROC on validation images. The head stores
    the training embeddings as they are in the cache.
    """

    contrast: Tensor
    keys: Tensor
    values: Tensor
    alpha: Tensor
    beta: Tensor

    def __init__(self, dim: int, labels: int, texts: LabelTexts, config: HeadConfig) -> None:
        super().__init__(labels)
        contrast = texts.factor * torch.from_numpy(texts.contrast())
        self.register_buffer("contrast", contrast)
        self.register_buffer("keys", torch.zeros(1, dim, dtype=torch.float16))
        self.register_buffer("values", torch.zeros(1, labels))
        self.register_buffer("alpha", torch.tensor(0.0))
        self.register_buffer("beta", torch.tensor(1.0))

    def resize_buffers_for(self, state: Mapping[str, Tensor]) -> None:
        """Take the number of training images from the state."""
        n_images = len(state["keys"])
        self.keys = torch.zeros(n_images, self.keys.shape[1], dtype=state["keys"].dtype)
        self.values = torch.zeros(n_images, self.values.shape[1])

    def scores(self, unit: Tensor) -> Tensor:
        """Return the scores (B, C) of embeddings (B, D) of unit length."""
        return self._text_scores(unit) + self.alpha * self._affinity(unit, float(self.beta))

    def _text_scores(self, unit: Tensor) -> Tensor:
        return unit @ self.contrast.T

    def _affinity(self, unit: Tensor, beta: float) -> Tensor:
        return torch.exp(-beta * (1 - unit @ l2_normalize(self.keys).T)) @ self.values

    @torch.no_grad()
    def fit(self, job: TrainingJob) -> TrainedHead:
        """Store the training rows; choose alpha and beta on the validation rows."""
        data = job.data
        keys = np.array(data.embedding[data.train])
        order = content_order(keys)
        positive = torch.from_numpy(data.labels[data.train[order]] == 1).float()
        self.keys = torch.from_numpy(keys[order])
        self.values = positive / positive.sum(dim=0).clamp(min=1)
        unit, truth = data.normalized(data.val), data.labels[data.val]
        text = self._text_scores(unit)
        affinity = {beta: in_chunks(partial(self._affinity, beta=beta), unit) for beta in SHARPNESS}
        (alpha, beta), scores, history = select_by_validation_auroc(
            truth,
            [
                (
                    (alpha, beta),
                    f"alpha={alpha:g} beta={beta:g}",
                    (text + alpha * affinity[beta]).numpy(),
                )
                for alpha, beta in product(WEIGHTS, SHARPNESS)
            ],
        )
        self.alpha.fill_(alpha)
        self.beta.fill_(beta)
        self.calibrate(truth, scores)
        return TrainedHead(self.eval(), job.config, data.train, history)
