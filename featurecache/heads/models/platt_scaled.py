"""Heads whose scores rank images, and become log-odds by Platt scaling on validation images."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featurecache.heads.standardize import l2_normalize
from featurecache.heads.types import Candidate, Head
from featurecache.metrics.platt_scaling import fit_platt
from featurecache.metrics.ranking import Floats, Labels, auroc, macro

_CHUNK_ROWS = 1024

Setting = TypeVar("Setting")


class PlattScaledHead(Head):
    """Base class of heads that compute scores; logits are ``slope * score + intercept``.

    Args:
        labels: Number of labels, C.
    """

    slope: Tensor
    intercept: Tensor

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.register_buffer("slope", torch.ones(labels))
        self.register_buffer("intercept", torch.zeros(labels))

    def scores(self, unit: Tensor) -> Tensor:
        """Return scores (B, C) of embeddings (B, D) of unit length; higher is more likely."""
        raise NotImplementedError

    def forward(self, embedding: Tensor) -> Tensor:
        """Return the logits (B, C) of embeddings (B, D) of any length."""
        return self.slope * in_chunks(self.scores, l2_normalize(embedding)) + self.intercept

    def calibrate(self, truth: Labels, scores: NDArray[np.floating]) -> None:
        """Fit slope and intercept of each label on validation images.

        A label keeps slope 1 and intercept 0 if validation lacks positives or negatives, or if its
        scores rank validation images the wrong way round. The slope is always above 0, so that
        the head never ranks images against its scores.

        Args:
            truth: (N, C) labels of the validation images.
            scores: (N, C) their scores.
        """
        platt = fit_platt(truth, scores)
        fitted = ~np.isnan(platt.slope)
        self.slope.copy_(torch.from_numpy(np.where(fitted, platt.slope, 1)))
        self.intercept.copy_(torch.from_numpy(np.where(fitted, platt.intercept, 0)))


def select_by_validation_auroc(
    truth: Labels, candidates: Sequence[tuple[Setting, str, NDArray[np.floating]]]
) -> tuple[Setting, NDArray[np.floating], tuple[Candidate, ...]]:
    """Choose the setting with the highest macro AUROC on validation images; the first of equals.

    If no label has both classes in validation, nothing can be chosen, and the first setting is
    returned.

    Args:
        truth: (N, C) labels of the validation images.
        candidates: Of each setting its value, its name and its scores (N, C).

    Returns:
        The setting, its scores, and the history of all candidates.
    """
    aurocs = [float(macro(label_aurocs(truth, scores))) for _, _, scores in candidates]
    best, history = choose_highest_auroc([name for _, name, _ in candidates], aurocs)
    return candidates[best][0], candidates[best][2], history


def label_aurocs(truth: Labels, scores: NDArray[np.floating]) -> Floats:
    """Return the AUROC of each label, (C,), of labels and scores (N, C); NaN where undefined."""
    return np.array([auroc(truth[:, c], scores[:, c]) for c in range(truth.shape[1])])


def choose_highest_auroc(
    names: Sequence[str], aurocs: Sequence[float], *, chosen_by: str = "validation"
) -> tuple[int, tuple[Candidate, ...]]:
    """Return the index of the highest AUROC, the first of equals, and the history of all settings.

    Args:
        names: Name of each setting.
        aurocs: Their macro AUROC. If all are NaN, the first setting is chosen.
        chosen_by: See ``Candidate``.
    """
    best = 0 if np.isnan(aurocs).all() else int(np.nanargmax(aurocs))
    return best, tuple(
        Candidate("", name, value, "auroc", index == best, chosen_by)
        for index, (name, value) in enumerate(zip(names, aurocs, strict=True))
    )


def in_chunks(function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """Apply a row-wise function, (B, D) to (B, K), to all rows, a limited number at a time."""
    chunks = torch.tensor_split(rows, list(range(_CHUNK_ROWS, len(rows), _CHUNK_ROWS)))
    return torch.cat([function(chunk) for chunk in chunks])
