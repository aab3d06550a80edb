"""The support vector machine: a maximum-margin classifier per label."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featurecache.heads.config import HeadConfig
from featurecache.heads.models.platt_scaled import PlattScaledHead, select_by_validation_auroc
from featurecache.heads.standardize import Standardize
from featurecache.heads.types import TrainedHead, TrainingJob

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Candidates for scikit-learn's C, for standardized embeddings."""


class Svm(PlattScaledHead):
    """scikit-learn's ``LinearSVC`` for each label, with one C for all, of the best macro AUROC.

    A label without both classes in training scores 0.
    """

    def __init__(self, dim: int, labels: int, texts: None, config: HeadConfig) -> None:
        super().__init__(labels)
        self.scaling = Standardize(dim)
        self.margin = nn.Linear(dim, labels)

    def scores(self, unit: Tensor) -> Tensor:
        """Return the decision function (B, C) of embeddings (B, D) of unit length."""
        scores: Tensor = self.margin(self.scaling(unit))
        return scores

    @torch.no_grad()
    def fit(self, job: TrainingJob) -> TrainedHead:
        """Learn from the training rows; choose C on the validation rows."""
        data = job.data
        self.scaling.fit(data.embedding, data.train)
        x, x_val = (
            self.scaling.transform(data.embedding, rows, torch.float32).numpy()
            for rows in (data.train, data.val)
        )
        y, y_val = data.labels[data.train], data.labels[data.val]
        fitted = [_fit_machines(x, y, strength, job.config.seed) for strength in STRENGTHS]
        (weight, bias), scores, history = select_by_validation_auroc(
            y_val,
            [
                ((weight, bias), f"C={strength:g}", x_val @ weight.T + bias)
                for (weight, bias), strength in zip(fitted, STRENGTHS, strict=True)
            ],
        )
        self.margin.weight.copy_(torch.from_numpy(weight))
        self.margin.bias.copy_(torch.from_numpy(bias))
        self.calibrate(y_val, scores)
        return TrainedHead(self.eval(), job.config, data.train, history)


def _fit_machines(
    x: NDArray[np.float32], y: NDArray[np.int8], strength: float, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the weights (C, D) and biases (C,) of one machine per label."""
    from sklearn.svm import LinearSVC

    weight, bias = np.zeros((y.shape[1], x.shape[1])), np.zeros(y.shape[1])
    for c, column in enumerate(y.T):
        known = column >= 0
        if len(np.unique(column[known])) == 2:
            model = LinearSVC(C=strength, dual="auto", max_iter=10_000, random_state=seed)
            model.fit(x[known], column[known])
            weight[c], bias[c] = model.coef_[0], model.intercept_[0]
    return weight, bias
