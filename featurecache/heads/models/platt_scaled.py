"""Heads whose scores are no log-odds until validation has given them a slope and an intercept."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featurecache.heads.head import Head
from featurecache.heads.standardize import l2_normalize_tensor
from featurecache.heads.types import Candidate
from featurecache.metrics.calibration import fit_platt
from featurecache.metrics.ranking import Labels, auroc, macro

_ROWS = 1024
"""As many images are scored at once."""

Setting = TypeVar("Setting")


class PlattScaledHead(Head):
    """A head of scores (B, C) that rank, and of logits that are fitted to them on validation."""

    slope: Tensor
    intercept: Tensor

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.register_buffer("slope", torch.ones(labels))
        self.register_buffer("intercept", torch.zeros(labels))

    def scores(self, unit: Tensor) -> Tensor:
        """(B, D) embeddings of length 1 to (B, C) scores, the higher the likelier."""
        raise NotImplementedError

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, D) embeddings of any length to (B, C) logits."""
        return self.slope * in_chunks(self.scores, l2_normalize_tensor(embedding)) + self.intercept

    def calibrate(self, truth: Labels, scores: NDArray[np.floating]) -> None:
        """Take slope and intercept from validation images; (N, C) each.

        A label keeps its scores as they are where validation has not both classes, or where its
        scores rank validation the wrong way round, which a negative slope would hide.
        """
        platt = fit_platt(truth, scores)
        usable = platt.slope > 0  # not where it is NaN
        self.slope.copy_(torch.from_numpy(np.where(usable, platt.slope, 1)))
        self.intercept.copy_(torch.from_numpy(np.where(usable, platt.intercept, 0)))


def select_by_validation_auroc(
    truth: Labels, tried: Sequence[tuple[Setting, str, NDArray[np.floating]]]
) -> tuple[Setting, NDArray[np.floating], tuple[Candidate, ...]]:
    """The setting whose scores have the highest macro AUROC on validation; the first of equals.

    Args:
        truth: (N, C) labels of the validation images.
        tried: settings, how to call them, and their scores (N, C).

    Returns:
        The setting, its scores, and the history. Where no label has both classes in validation,
        nothing can be chosen, and it is the first.
    """
    areas = [
        float(macro(np.array([auroc(truth[:, c], scores[:, c]) for c in range(truth.shape[1])])))
        for _, _, scores in tried
    ]
    best = 0 if np.isnan(areas).all() else int(np.nanargmax(areas))
    history = tuple(
        Candidate("", name, area, "auroc", number == best)
        for number, ((_, name, _), area) in enumerate(zip(tried, areas, strict=True))
    )
    return tried[best][0], tried[best][2], history


def in_chunks(function: Callable[[Tensor], Tensor], unit: Tensor) -> Tensor:
    """A function of rows, (B, D) to (B, K), of all of them, some at a time."""
    parts = torch.tensor_split(unit, list(range(_ROWS, len(unit), _ROWS)))
    return torch.cat([function(part) for part in parts])
