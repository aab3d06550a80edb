"""The linear head: logistic regression, the probe that encoders are usually compared by."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featurecache.heads.config import HeadConfig
from featurecache.heads.cross_validation import assign_folds
from featurecache.heads.logistic import LogisticSolver, Weights, has_both_classes
from featurecache.heads.standardize import Standardize
from featurecache.heads.types import CROSS_VALIDATION, Candidate, Head, TrainedHead, TrainingJob
from featurecache.losses import masked_bce

STRENGTHS = (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0)
"""Candidates for scikit-learn's C, the inverse of the regularization strength."""


class Linear(Head):
    """``W x + b`` of standardized embeddings, with a penalty that ties the labels together.

    With v the weights of a logistic regression of "any finding" (images with a positive label
    against the others), this minimizes for each label c, over w_c and b_c::

        mean log loss of label c over its n_c known images + |w_c - s_c v|^2 / (2 C n_c)

    where s_c is the slope of a logistic regression of label c on v x alone. A label with few
    positives stays near the direction from healthy to ill, which all images inform, and leaves it
    as far as its own positives justify (Evgeniou and Pontil 2004, "Regularized multi-task
    learning"). If all images have a finding, or none has, v is 0 and the penalty the usual one.

    C is the same for all labels: chosen per label, it would rest on as few positives as the label
    has. It has the lowest log loss in cross-validation over the training patients, and so has the C
    of v, which is chosen first. The candidates are fitted from the strongest penalty on, each
    starting from the previous solution, until the loss rises.
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
        """Learn from the training rows, and choose C by cross-validation on them."""
        data = job.data
        self.scaling.fit(data.embedding, data.train)
        x = self.scaling.transform(data.embedding, data.train, torch.float32)
        targets = data.targets(data.train)
        folds = [torch.from_numpy(fold) for fold in assign_folds(data, seed=job.config.seed)]
        solver = LogisticSolver(x)
        zeros = [np.zeros((1, x.shape[1]))] * (len(folds) + 1)
        any_finding, any_history = _fit_at_best_strength(
            solver, any_positive(targets), folds, zeros, "any-finding C"
        )
        centers = [
            _scaled_direction(x, targets.masked_fill(fold[:, None], -1), weights.weight[0])
            for fold, weights in zip([*folds, torch.tensor([False])], any_finding, strict=True)
        ]
        labels, history = _fit_at_best_strength(solver, targets, folds, centers, "C")
        self.output.weight.copy_(torch.from_numpy(labels[-1].weight))
        self.output.bias.copy_(torch.from_numpy(labels[-1].intercept))
        return TrainedHead(
            self.eval(),
            job.config,
            data.train,
            (*any_history, *history),
            converged=any_finding[-1].converged and labels[-1].converged,
        )


def any_positive(targets: Tensor) -> Tensor:
    """Return whether any label is positive, (N, 1), of targets (N, C): 1, 0 or -1 for unknown.

    An image without a positive label counts as negative if some label is known.
    """
    known = (targets >= 0).any(dim=1, keepdim=True)
    positive = (targets == 1).any(dim=1, keepdim=True)
    return torch.where(known, positive.to(targets.dtype), -1)


def _scaled_direction(
    x: Tensor, targets: Tensor, direction: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the direction (D,), scaled for each label to fit its targets (N, C) best: (C, D)."""
    projection = x.double() @ torch.from_numpy(direction)[:, None]
    ones = Weights(np.ones((targets.shape[1], 1)), np.zeros(targets.shape[1]))
    # A penalty so small that it matters only where a finite scale does not exist.
    penalty = np.full(targets.shape[1], 1e-3)
    scale = LogisticSolver(projection).fit(targets, penalty, center=ones).weight
    return scale * direction


def _fit_at_best_strength(
    solver: LogisticSolver,
    targets: Tensor,
    folds: Sequence[Tensor],
    centers: Sequence[NDArray[np.float64]],
    name: str,
) -> tuple[list[Weights], list[Candidate]]:
    """Fit targets (N, C) with the strength of the lowest loss in cross-validation.

    Args:
        solver: The solver of the training rows.
        targets: 1, 0 or -1 for unknown.
        folds: The rows that each fold leaves out, (N,).
        centers: What the penalty pulls towards, (C, D): in each fold, then for all rows.
        name: Name of the strength in the history.

    Returns:
        The weights of each fold, then those of all rows; and the strengths that were tried.
    """
    rows_of = [targets.masked_fill(fold[:, None], -1) for fold in folds]

    def fit(index: int, rows: Tensor, strength: float, start: Weights | None) -> Weights:
        center = Weights(centers[index], np.zeros(targets.shape[1]))
        n_known = (rows >= 0).sum(dim=0).clamp(min=1).numpy()
        return solver.fit(rows, 1 / (2 * strength * n_known), center=center, start=start)

    starts: Sequence[Weights | None] = [None] * len(folds)
    best: list[Weights] = []
    losses: list[float] = []
    for strength in STRENGTHS:
        starts = fitted = [
            fit(index, rows, strength, start)
            for index, (rows, start) in enumerate(zip(rows_of, starts, strict=True))
        ]
        losses.append(_held_out_loss(solver, targets, folds, fitted))
        if losses[-1] > min(losses):
            break
        best = fitted
    chosen = int(np.argmin(losses))
    best.append(fit(-1, targets, STRENGTHS[chosen], None))
    return best, [
        Candidate("", f"{name}={strength:g}", loss, "loss", index == chosen, CROSS_VALIDATION)
        for index, (strength, loss) in enumerate(zip(STRENGTHS, losses, strict=False))
    ]


def _held_out_loss(
    solver: LogisticSolver, targets: Tensor, folds: Sequence[Tensor], fitted: Sequence[Weights]
) -> float:
    """Return the mean loss over the rows that the folds leave out.

    A label is left out of a fold whose other rows have it in one class only.
    """
    total, n_known = 0.0, 0
    for fold, weights in zip(folds, fitted, strict=True):
        truth = targets[fold].masked_fill(~has_both_classes(targets[~fold]), -1)
        known = int((truth >= 0).sum())
        total += known * masked_bce(solver.logits(weights, fold).float(), truth).item()
        n_known += known
    return total / max(n_known, 1)
