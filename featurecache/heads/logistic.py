"""Logistic regression of many labels at once, held to given weights."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Weights:
    """Of C labels: directions (C, D) and intercepts (C,), ``logits = x weight' + intercept``."""

    weight: Floats
    intercept: Floats


def fit_logistic(
    x: Tensor,
    targets: Tensor,
    penalty: NDArray[np.floating],
    *,
    center: Weights,
    start: Weights | None = None,
    steps: int = 1000,
) -> Weights:
    """The least of a convex sum, by L-BFGS (scipy's), all labels in one run.

    For each label, ``mean over its known images of log loss + penalty * |w - center|^2``, the
    intercept being free. The labels have no part in common; together they need one pass over the
    images where each would need its own. In sklearn's terms ``C = 1 / (2 n penalty)``, with n the
    label's known images.

    Args:
        x: (N, D) float32.
        targets: (N, C) of 1, 0, or -1 for unknown, which takes no part.
        penalty: (C,) of positive numbers.
        center: the weights that the penalty draws to; its intercepts are where the search begins.
        start: where the search begins; None for ``center``.
        steps: the most steps.
    """
    from scipy.optimize import minimize

    known = (targets >= 0).to(x.dtype)
    positive = (targets == 1).to(x.dtype)
    # A label of which nothing is known keeps its center.
    share = known / known.sum(dim=0).clamp(min=1)
    labels, dim = center.weight.shape
    strength = torch.from_numpy(np.asarray(penalty, dtype=np.float64))
    middle = torch.from_numpy(center.weight)

    def loss_and_gradient(flat: Floats) -> tuple[float, Floats]:
        both = torch.from_numpy(flat).view(labels, dim + 1)
        weight, intercept = both[:, :dim], both[:, dim]
        logits = torch.addmm(intercept.to(x.dtype), x, weight.to(x.dtype).T)
        loss = (share * (torch.nn.functional.softplus(logits) - positive * logits)).sum(
            dtype=torch.float64
        )
        residual = share * (torch.sigmoid(logits) - positive)
        off = weight - middle
        gradient = torch.empty_like(both)
        gradient[:, :dim] = (residual.T @ x).double() + 2 * strength[:, None] * off
        gradient[:, dim] = residual.sum(dim=0, dtype=torch.float64)
        total = loss + (strength * off.square().sum(dim=1)).sum()
        return float(total), gradient.reshape(-1).numpy()

    begin = start or center
    found = minimize(
        loss_and_gradient,
        np.column_stack([begin.weight, begin.intercept]).reshape(-1),
        jac=True,
        method="L-BFGS-B",
        # The sum over labels is flat to single precision long before a rare label is.
        options={"maxiter": steps, "maxfun": 2 * steps, "ftol": 1e-12, "gtol": 1e-7},
    )
    both = found.x.reshape(labels, dim + 1)
    return Weights(both[:, :dim].copy(), both[:, dim].copy())
