"""The learning-rate schedule of every training here."""

import math


def warmup_cosine(step: int, *, warmup: int, total: int) -> float:
    """The factor on the highest learning rate: rising over ``warmup`` steps, then half a cosine.

    Args:
        step: from 0.
        warmup: steps of rising; the last of them has the factor 1.
        total: steps in all; the factor is 0 from there on.
    """
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
