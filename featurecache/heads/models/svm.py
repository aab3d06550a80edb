"""The support vector machine: a maximum-margin classifier per label."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featurecache.heads.config import HeadConfig
from featurecache.heads.cross_validation import assign_folds
from featurecache.heads.models.platt_scaled import (
    PlattScaledHead,
    choose_highest_auroc,
    label_aurocs,
)
from featurecache.heads.standardize import Standardize
from featurecache.heads.types import CROSS_VALIDATION, TrainedHead, TrainingJob
from featurecache.metrics.ranking import macro

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Candidates for scikit-learn's C, for standardized embeddings."""


class Svm(PlattScaledHead):
    """scikit-learn's ``LinearSVC`` for each label, with one C for all.

    C has the highest macro AUROC in cross-validation over the training patients: each label's mean
    over the folds, then the mean over labels. A label without both classes in training scores 0.
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
        """Learn from the training rows, and choose C by cross-validation on them."""
        data = job.data
        self.scaling.fit(data.embedding, data.train)
        x, x_val = (
            self.scaling.transform(data.embedding, rows, torch.float32).numpy()
            for rows in (data.train, data.val)
        )
        y, seed = data.labels[data.train], job.config.seed
        folds = assign_folds(data, seed=seed)
        aurocs = [_held_out_auroc(x, y, folds, strength, seed) for strength in STRENGTHS]
        chosen, history = choose_highest_auroc(
            [f"C={strength:g}" for strength in STRENGTHS], aurocs, chosen_by=CROSS_VALIDATION
        )
        weight, bias = _fit_machines(x, y, STRENGTHS[chosen], seed)
        self.margin.weight.copy_(torch.from_numpy(weight))
        self.margin.bias.copy_(torch.from_numpy(bias))
        self.calibrate(data.labels[data.val], x_val @ weight.T + bias)
        return TrainedHead(self.eval(), job.config, data.train, history)


def _held_out_auroc(
    x: NDArray[np.float32],
    y: NDArray[np.int8],
    folds: Sequence[NDArray[np.bool_]],
    strength: float,
    seed: int,
) -> float:
    """Return the mean AUROC of the labels in the folds; NaN if it is undefined in all of them."""
    aurocs = np.full((len(folds), y.shape[1]), np.nan)
    for index, held_out in enumerate(folds):
        weight, bias = _fit_machines(x[~held_out], y[~held_out], strength, seed)
        # Scores of two folds are on different scales, so each fold has its own ranking.
        aurocs[index] = label_aurocs(y[held_out], x[held_out] @ weight.T + bias)
    return float(macro(macro(aurocs.T)))


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
