"""Logistic regression of many labels at once, with a penalty on the distance to given weights."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Weights:
    """Weights of C labels: ``logits = x @ weight.T + intercept``.

    Attributes:
        weight: (C, D).
        intercept: (C,).
    """

    weight: Floats
    intercept: Floats


def fit_logistic(
    x: Tensor,
    targets: Tensor,
    penalty: NDArray[np.floating],
    *,
    center: Weights,
    start: Weights | None = None,
) -> Weights:
    """Fit one logistic regression per label with SciPy's L-BFGS, all labels in one run.

    For each label this minimizes ``mean log loss over known images + penalty * |w - center|^2``,
    with a free intercept. The labels are independent, but together they need one pass over the
    images per step instead of one pass each. In scikit-learn's terms ``C = 1 / (2 n penalty)``
    for n known images.

    Args:
        x: (N, D) float32 features.
        targets: (N, C): 1, 0, or -1 for unknown, which is ignored.
        penalty: (C,) positive penalties.
        center: Weights that the penalty pulls towards. A label without known images keeps them.
        start: Where the search begins; None for ``center``.
    """
    from scipy.optimize import minimize

    known = (targets >= 0).to(x.dtype)
    positive = (targets == 1).to(x.dtype)
    image_weight = known / known.sum(dim=0).clamp(min=1)
    labels, dim = center.weight.shape
    penalties = torch.from_numpy(np.asarray(penalty, dtype=np.float64))
    center_weight = torch.from_numpy(center.weight)

    def loss_and_gradient(flat: Floats) -> tuple[float, Floats]:
        parameters = torch.from_numpy(flat).view(labels, dim + 1)
        weight, intercept = parameters[:, :dim], parameters[:, dim]
        logits = torch.addmm(intercept.to(x.dtype), x, weight.to(x.dtype).T)
        loss = (image_weight * (torch.nn.functional.softplus(logits) - positive * logits)).sum(
            dtype=torch.float64
        )
        residual = image_weight * (torch.sigmoid(logits) - positive)
        offset = weight - center_weight
        gradient = torch.empty_like(parameters)
        gradient[:, :dim] = (residual.T @ x).double() + 2 * penalties[:, None] * offset
        gradient[:, dim] = residual.sum(dim=0, dtype=torch.float64)
        total = loss + (penalties * offset.square().sum(dim=1)).sum()
        return float(total), gradient.reshape(-1).numpy()

    begin = start or center
    result = minimize(
        loss_and_gradient,
        np.column_stack([begin.weight, begin.intercept]).reshape(-1),
        jac=True,
        method="L-BFGS-B",
        # The sum over labels converges to single precision long before a rare label does.
        options={"maxiter": 1000, "maxfun": 2000, "ftol": 1e-12, "gtol": 1e-7},
    )
    parameters = result.x.reshape(labels, dim + 1)
    return Weights(parameters[:, :dim].copy(), parameters[:, dim].copy())
