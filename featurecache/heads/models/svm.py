"""The support vector machine: the largest margin between a label's images and the others."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featurecache.heads.config import HeadConfig
from featurecache.heads.models.platt_scaled import PlattScaledHead, select_by_validation_auroc
from featurecache.heads.standardize import Standardize
from featurecache.heads.types import TrainedHead, Training

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""sklearn's C that are tried; embeddings are standardised."""


class Svm(PlattScaledHead):
    """scikit-learn's ``LinearSVC`` for each label, all with the C of the best macro AUROC.

    A label without both classes in training scores 0.
    """

    def __init__(self, dim: int, labels: int, texts: None, config: HeadConfig) -> None:
        super().__init__(labels)
        self.scaling = Standardize(dim)
        self.margin = nn.Linear(dim, labels)

    def scores(self, unit: Tensor) -> Tensor:
        """(B, D) embeddings of length 1 to (B, C) distances from the margin's middle."""
        scores: Tensor = self.margin(self.scaling(unit))
        return scores

    @torch.no_grad()
    def fit(self, training: Training, rows: NDArray[np.intp]) -> TrainedHead:
        """Learn from the training rows; C by the validation rows."""
        data = training.data
        self.scaling.fit(data.embedding, rows)
        x, x_val = (
            self.scaling.scaled(data.embedding, of, torch.float32).numpy()
            for of in (rows, data.val)
        )
        y = data.labels[rows]
        found = [self._machines(x, y, strength, training.config.seed) for strength in STRENGTHS]
        (weight, bias), scores, history = select_by_validation_auroc(
            data.labels[data.val],
            [
                (machines, f"C={strength:g}", x_val @ machines[0].T + machines[1])
                for machines, strength in zip(found, STRENGTHS, strict=True)
            ],
        )
        self.margin.weight.copy_(torch.from_numpy(weight))
        self.margin.bias.copy_(torch.from_numpy(bias))
        self.calibrate(data.labels[data.val], scores)
        return TrainedHead(self.eval(), training.config, history, None, rows)

    def _machines(
        self, x: NDArray[np.float32], y: NDArray[np.int8], strength: float, seed: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Directions (C, D) and biases (C,)."""
        from sklearn.svm import LinearSVC

        weight, bias = np.zeros((y.shape[1], x.shape[1])), np.zeros(y.shape[1])
        for c, column in enumerate(y.T):
            known = column >= 0
            if len(np.unique(column[known])) == 2:
                model = LinearSVC(C=strength, dual="auto", max_iter=10_000, random_state=seed)
                model.fit(x[known], column[known])
                weight[c], bias[c] = model.coef_[0], model.intercept_[0]
        return weight, bias
