"""Losses over multi-label targets of which some are unknown."""

import torch
from torch import Tensor, nn


def masked_bce(logits: Tensor, targets: Tensor, *, positive_weight: Tensor | None = None) -> Tensor:
    """Binary cross-entropy with logits, averaged over the labels that are known.

    Args:
        logits: (B, C).
        targets: (B, C) float of 1, 0, or -1 for unknown, which takes no part.
        positive_weight: (C,) factor on the loss of positives; None for 1.

    Returns:
        A scalar; 0 where nothing is known.
    """
    known = targets >= 0
    weight = None if positive_weight is None else positive_weight.expand_as(targets)[known]
    # Selected, not multiplied by 0: an infinite logit at an unknown label would become NaN.
    total = nn.functional.binary_cross_entropy_with_logits(
        logits[known], targets[known], pos_weight=weight, reduction="sum"
    )
    return total / known.sum().clamp(min=1)


def balanced_positive_weight(targets: Tensor) -> Tensor:
    """Negatives over positives of each label, (N, C) of 1, 0, -1 to (C,); 1 without positives."""
    positives = (targets == 1).sum(dim=0)
    negatives = (targets == 0).sum(dim=0)
    weight = negatives / positives.clamp(min=1)
    return torch.where((positives > 0) & (negatives > 0), weight, torch.ones_like(weight))
