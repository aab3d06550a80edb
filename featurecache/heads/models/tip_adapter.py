"""Tip-Adapter: the zero-shot score, and the labels of similar training images beside it."""

from collections.abc import Mapping
from functools import partial
from itertools import product

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
from featurecache.heads.text_features import LabelTexts
from featurecache.heads.types import TrainedHead, Training

SHARPNESS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""beta: films look so much alike that their cosines differ in the second digit."""
WEIGHTS = (0.0, *(10.0**power for power in np.arange(-1, 4.5, 0.5)))
"""alpha; with 0, training images have no say."""


class TipAdapter(PlattScaledHead):
    """``s <x, t> + alpha / n * sum over positives i of exp(-beta (1 - <x, x_i>))`` for each label.

    Zhang et al. 2022, "Tip-Adapter: training-free adaption of CLIP for few-shot classification",
    for several labels at once: n is the number of a label's positives, t its text less its negative
    text. alpha and beta have the highest macro AUROC on validation. The head holds the training
    embeddings as they are in the cache.
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
        """Take the number of training images."""
        rows = len(state["keys"])
        self.keys = torch.zeros(rows, self.keys.shape[1], dtype=state["keys"].dtype)
        self.values = torch.zeros(rows, self.values.shape[1])

    def scores(self, unit: Tensor) -> Tensor:
        """(B, D) embeddings of length 1 to (B, C) scores."""
        return self._text(unit) + self.alpha * self._affinity(unit, float(self.beta))

    def _text(self, unit: Tensor) -> Tensor:
        return unit @ self.contrast.T

    def _affinity(self, unit: Tensor, beta: float) -> Tensor:
        return torch.exp(-beta * (1 - unit @ l2_normalize_tensor(self.keys).T)) @ self.values

    @torch.no_grad()
    def fit(self, training: Training, rows: NDArray[np.intp]) -> TrainedHead:
        """Keep the training rows; choose alpha and beta by the validation rows."""
        data = training.data
        positive = torch.from_numpy(data.labels[rows] == 1).float()
        self.keys = torch.from_numpy(np.array(data.embedding[rows]))
        self.values = positive / positive.sum(dim=0).clamp(min=1)
        val, truth = l2_normalize(data.embedding, data.val), data.labels[data.val]
        text = self._text(val)
        affinity = {beta: in_chunks(partial(self._affinity, beta=beta), val) for beta in SHARPNESS}
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
        return TrainedHead(self.eval(), training.config, history, None, rows)
