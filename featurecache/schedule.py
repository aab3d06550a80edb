"""Learning-rate schedule and history of every gradient-based training."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """One row of a training history.

    Attributes:
        epoch: Number of the epoch, from 1.
        learning_rate: Learning rate at the start of the epoch.
        train_loss: Mean training loss over the epoch.
        val_loss: Validation loss after the epoch.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    val_loss: float


def warmup_cosine(step: int, *, warmup: int, total: int) -> float:
    """Return the factor on the peak learning rate: linear warmup, then half a cosine.

    Args:
        step: Number of the step, from 0.
        warmup: Number of warmup steps; the last of them has the factor 1.
        total: Total number of steps; from there on the factor is 0.

    Returns:
        A factor between 0 and 1.
    """
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
