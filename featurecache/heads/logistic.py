"""Logistic regression of many labels at once, with a penalty on the distance to given weights."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featurecache.heads.config import MANY_IMAGES

Floats = NDArray[np.float64]

TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4}
"""Gradient at which the search ends, in coordinates in which the curvature is about 1."""
MAX_ITERATIONS = 1000


@dataclass(frozen=True)
class Weights:
    """Weights of C labels: ``logits = x @ weight.T + intercept``.

    Attributes:
        weight: (C, D).
        intercept: (C,).
        converged: Whether the search for them ended at a minimum.
    """

    weight: Floats
    intercept: Floats
    converged: bool = True


def has_both_classes(targets: Tensor) -> Tensor:
    """Return which labels have a positive and a negative, (C,), among targets (N, C)."""
    return (targets == 1).any(dim=0) & (targets == 0).any(dim=0)


class LogisticSolver:
    """Fits logistic regressions on the same features, all labels in one run of L-BFGS.

    For each label this minimizes ``mean log loss over known images + penalty * |w - center|^2``,
    with a free intercept. The labels are independent, but together they need one pass over the
    images per step instead of one pass each. In scikit-learn's terms ``C = 1 / (2 n penalty)``
    for n known images.

    L-BFGS searches along the principal axes of the features, each scaled by the curvature that the
    loss has there at the start. It then takes tens of steps where it takes hundreds along the
    features themselves, which are correlated.

    Args:
        x: (N, D) features.
    """

    def __init__(self, x: Tensor) -> None:
        # In single precision, the loss cannot tell the last steps from rounding errors. For many
        # images it is a sum of many such errors, and twice the time would matter.
        x = x.to(torch.float64 if len(x) < MANY_IMAGES else torch.float32)
        self._x = x
        self._mean = x.mean(dim=0)
        centered = x - self._mean
        n_rows, dim = x.shape
        if n_rows < dim:
            _, singular, axes = torch.linalg.svd(centered.double(), full_matrices=False)
            variance, axes = singular.square() / n_rows, axes.T
        else:
            variance, axes = torch.linalg.eigh((centered.T @ centered).double() / n_rows)
        self._axes = axes
        self._variance = variance.clamp(min=0)
        self._rotated = centered @ axes.to(x.dtype)

    def logits(self, weights: Weights, rows: Tensor) -> Tensor:
        """Return the logits (M, C) of the M rows where ``rows`` (N,) is true."""
        weight = torch.from_numpy(weights.weight).to(self._x.dtype)
        return self._x[rows] @ weight.T + torch.from_numpy(weights.intercept).to(self._x.dtype)

    def fit(
        self,
        targets: Tensor,
        penalty: NDArray[np.floating],
        *,
        center: Weights,
        start: Weights | None = None,
    ) -> Weights:
        """Fit one logistic regression per label.

        Args:
            targets: (N, C): 1, 0, or -1 for unknown, which is ignored.
            penalty: (C,) positive penalties.
            center: Weights that the penalty pulls towards. A label without known images keeps
                them; a label with images of one class keeps their weights.
            start: Where the search begins; None for ``center``.
        """
        from scipy.optimize import minimize

        known = targets >= 0
        positives = (targets == 1).sum(dim=0).double()
        negatives = (targets == 0).sum(dim=0).double()
        # No finite intercept is best for images of one class.
        learnable = has_both_classes(targets)
        prior = (positives + 0.5) / (positives + negatives + 1)
        intercept = torch.where(
            positives + negatives > 0, torch.logit(prior), torch.from_numpy(center.intercept)
        )
        if not learnable.any():
            return Weights(center.weight.copy(), intercept.numpy())

        dtype, rotated = self._x.dtype, self._rotated
        positive = (targets == 1).to(dtype)
        image_weight = (known & learnable).to(dtype) / known.sum(dim=0).clamp(min=1)
        center_weight = torch.from_numpy(center.weight)
        offset = self._x @ center_weight.to(dtype).T
        penalties = torch.from_numpy(np.asarray(penalty, dtype=np.float64))[:, None]
        curvature = (prior * (1 - prior))[:, None]
        scale = torch.cat(
            [(curvature * self._variance + 2 * penalties).rsqrt(), curvature.rsqrt()], dim=1
        )

        def loss_and_gradient(flat: Floats) -> tuple[float, Floats]:
            parameters = scale * torch.from_numpy(flat).view_as(scale)
            distance, shift = parameters[:, :-1], parameters[:, -1]
            logits = offset + torch.addmm(shift.to(dtype), rotated, distance.to(dtype).T)
            loss = (image_weight * (torch.nn.functional.softplus(logits) - positive * logits)).sum(
                dtype=torch.float64
            )
            residual = image_weight * (torch.sigmoid(logits) - positive)
            gradient = torch.empty_like(scale)
            gradient[:, :-1] = (residual.T @ rotated).double() + 2 * penalties * distance
            gradient[:, -1] = residual.sum(dim=0, dtype=torch.float64)
            total = loss + (penalties * distance.square()).sum()
            return float(total), (scale * gradient).reshape(-1).numpy()

        begin = torch.zeros_like(scale)
        begin[:, -1] = intercept - offset.double().mean(dim=0)
        if start is not None:
            begin[:, :-1] = (torch.from_numpy(start.weight) - center_weight) @ self._axes
            begin[:, -1] = torch.from_numpy(start.intercept) + (
                (torch.from_numpy(start.weight) - center_weight) @ self._mean.double()
            )
        result = minimize(
            loss_and_gradient,
            (begin / scale).reshape(-1).numpy(),
            jac=True,
            method="L-BFGS-B",
            # The sum over labels converges to single precision long before a rare label does.
            options={"maxiter": MAX_ITERATIONS, "ftol": 0, "gtol": TOLERANCE[dtype]},
        )
        parameters = scale * torch.from_numpy(result.x).view_as(scale)
        distance = parameters[:, :-1] @ self._axes.T
        shift = parameters[:, -1] - distance @ self._mean.double()
        weight = torch.where(learnable[:, None], center_weight + distance, center_weight)
        return Weights(
            weight.numpy(),
            torch.where(learnable, shift, intercept).numpy(),
            # Rounding may end the search just above the tolerance.
            converged=bool(np.abs(result.jac).max() < 10 * TOLERANCE[dtype]),
        )


def fit_logistic(
    x: Tensor, targets: Tensor, penalty: NDArray[np.floating], *, center: Weights
) -> Weights:
    """Fit one logistic regression per label; see ``LogisticSolver``."""
    return LogisticSolver(x).fit(targets, penalty, center=center)
