"""The linear head: logistic regression on the embedding, the probe that encoders are judged by."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featurecache.heads.config import HeadConfig
from featurecache.heads.head import Head
from featurecache.heads.logistic import Weights, fit_logistic
from featurecache.heads.standardize import Standardize, targets
from featurecache.heads.types import Candidate, TrainedHead, Training
from featurecache.losses import masked_bce

STRENGTHS = tuple(10.0**power for power in range(-5, 2))
"""sklearn's C that are tried: the larger, the less a probe is held back."""


class Linear(Head):
    """``W x + b`` with an L2 penalty on W, of standardised embeddings.

    Each label has the strength with the least validation loss, tried from the strongest penalty to
    the weakest, each search beginning where the last one ended.
    """

    def __init__(self, dim: int, labels: int, texts: None, config: HeadConfig) -> None:
        super().__init__()
        self.scaling = Standardize(dim)
        self.output = nn.Linear(dim, labels)

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, D) embeddings of any length to (B, C) logits."""
        logits: Tensor = self.output(self.scaling(embedding))
        return logits

    @torch.no_grad()
    def fit(self, training: Training, rows: NDArray[np.intp]) -> TrainedHead:
        """Learn from the training rows; strengths by the validation rows."""
        data = training.data
        self.scaling.fit(data.embedding, rows)
        x, x_val = (
            self.scaling.scaled(data.embedding, of, torch.float32) for of in (rows, data.val)
        )
        y, y_val = (targets(data.labels, of) for of in (rows, data.val))
        labels, dim = self.output.weight.shape
        known = (y >= 0).sum(dim=0).clamp(min=1).numpy()
        center = Weights(np.zeros((labels, dim)), np.zeros(labels))
        found, losses = center, np.full((len(STRENGTHS), labels), np.nan)
        for number, strength in enumerate(STRENGTHS):
            found = fit_logistic(x, y, 1 / (2 * strength * known), center=center, start=found)
            logits = torch.addmm(
                torch.from_numpy(found.intercept).float(),
                x_val,
                torch.from_numpy(found.weight).float().T,
            )
            for c in range(labels):
                losses[number, c] = masked_bce(logits[:, c], y_val[:, c]).item()
            better = losses[number] <= np.nanmin(losses[: number + 1], axis=0)
            self.output.weight[better] = torch.from_numpy(found.weight[better]).float()
            self.output.bias[better] = torch.from_numpy(found.intercept[better]).float()
        best = losses.argmin(axis=0)
        history = tuple(
            Candidate(str(c), f"C={strength:g}", float(loss[c]), "loss", bool(best[c] == number))
            for c in range(labels)
            for number, (strength, loss) in enumerate(zip(STRENGTHS, losses, strict=True))
        )
        return TrainedHead(self.eval(), training.config, history, None, rows)
