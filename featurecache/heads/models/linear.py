"""The linear head: logistic regression, the probe that encoders are usually compared by."""

import numpy as np
import torch
from torch import Tensor, nn

from featurecache.heads.config import HeadConfig
from featurecache.heads.logistic import Weights, fit_logistic
from featurecache.heads.standardize import Standardize
from featurecache.heads.types import Candidate, Head, TrainedHead, TrainingJob
from featurecache.losses import masked_bce

STRENGTHS = tuple(10.0**power for power in range(-5, 2))
"""Candidates for scikit-learn's C, the inverse of the regularization strength."""


class Linear(Head):
    """``W x + b`` with an L2 penalty on W, of standardized embeddings.

    Each label uses the C with the lowest validation loss. The candidates are fitted from the
    strongest penalty to the weakest, each starting from the previous solution.
    """

    def __init__(self, dim: int, labels: int, texts: None, config: HeadConfig) -> None:
        super().__init__()
        self.scaling = Standardize(dim)
        self.output = nn.Linear(dim, labels)

    def forward(self, embedding: Tensor) -> Tensor:
        """Return the logits (B, C) of embeddings (B, D) of any length."""
        logits: Tensor = self.output(self.scaling(embedding))
        return logits

    @torch.no_grad()
    def fit(self, job: TrainingJob) -> TrainedHead:
        """Learn from the training rows; choose each label's C on the validation rows."""
        data = job.data
        self.scaling.fit(data.embedding, data.train)
        x, x_val = (
            self.scaling.transform(data.embedding, rows, torch.float32)
            for rows in (data.train, data.val)
        )
        y, y_val = data.targets(data.train), data.targets(data.val)
        labels, dim = self.output.weight.shape
        n_known = (y >= 0).sum(dim=0).clamp(min=1).numpy()
        center = Weights(np.zeros((labels, dim)), np.zeros(labels))
        fitted, losses = center, np.full((len(STRENGTHS), labels), np.nan)
        for index, strength in enumerate(STRENGTHS):
            fitted = fit_logistic(x, y, 1 / (2 * strength * n_known), center=center, start=fitted)
            logits = torch.addmm(
                torch.from_numpy(fitted.intercept).float(),
                x_val,
                torch.from_numpy(fitted.weight).float().T,
            )
            for c in range(labels):
                losses[index, c] = masked_bce(logits[:, c], y_val[:, c]).item()
            improved = losses[index] <= np.nanmin(losses[: index + 1], axis=0)
            self.output.weight[improved] = torch.from_numpy(fitted.weight[improved]).float()
            self.output.bias[improved] = torch.from_numpy(fitted.intercept[improved]).float()
        best = losses.argmin(axis=0)
        history = tuple(
            Candidate(str(c), f"C={strength:g}", float(loss[c]), "loss", bool(best[c] == index))
            for c in range(labels)
            for index, (strength, loss) in enumerate(zip(STRENGTHS, losses, strict=True))
        )
        return TrainedHead(self.eval(), job.config, data.train, history)
