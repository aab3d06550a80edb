"""Points of ROC, precision-recall and reliability curves.

Labels are 1, 0 or -1; unknown labels (-1) are left out. An undefined curve has no points.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurecache.metrics.calibration import BINS, bin_of
from featurecache.metrics.ranking import Floats, Labels, valid_mask

_EMPTY = np.empty(0)


@dataclass(frozen=True, eq=False)
class Curve:
    """The points of a curve in order, (P,) each; no points where the curve is undefined."""

    x: Floats
    y: Floats

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.x)


@dataclass(frozen=True, eq=False)
class ReliabilityCurve:
    """Predicted against observed frequencies, one entry per non-empty bin of the probability.

    Attributes:
        predicted: (B,) mean predicted probability.
        observed: (B,) fraction of positives.
        n_images: (B,) number of images.
    """

    predicted: Floats
    observed: Floats
    n_images: NDArray[np.intp]


def roc_curve(truth: Labels, score: Floats) -> Curve:
    """Compute the ROC curve with scikit-learn, over the known labels.

    Args:
        truth: (N,) labels 1, 0 or -1.
        score: (N,) scores; higher means more positive.

    Returns:
        False positive rate (x) and true positive rate (y) from (0, 0) to (1, 1), without collinear
        points; empty unless both classes occur.

    Raises:
        ValueError: see `valid_mask`.
    """
    from sklearn import metrics

    valid = valid_mask(truth, score)
    if len(np.unique(truth[valid])) < 2:
        return Curve(_EMPTY, _EMPTY)
    false_positive_rate, true_positive_rate, _ = metrics.roc_curve(truth[valid], score[valid])
    return Curve(false_positive_rate, true_positive_rate)


def precision_recall_curve(truth: Labels, score: Floats) -> Curve:
    """Compute the precision-recall curve with scikit-learn, over the known labels.

    Args:
        truth: (N,) labels 1, 0 or -1.
        score: (N,) scores; higher means more positive.

    Returns:
        Recall (x) and precision (y) from recall 0, where precision is 1 by convention, to recall 1,
        where it is at least the prevalence; the last point is that of the lowest threshold. Empty
        without positives.

    Raises:
        ValueError: see `valid_mask`.
    """
    from sklearn import metrics

    valid = valid_mask(truth, score)
    if not (truth[valid] == 1).any():
        return Curve(_EMPTY, _EMPTY)
    precision, recall, _ = metrics.precision_recall_curve(
        truth[valid], score[valid], drop_intermediate=True
    )
    return Curve(recall[::-1], precision[::-1])


def reliability_curve(truth: Labels, probability: Floats) -> ReliabilityCurve:
    """Compare predicted probabilities with observed frequencies, in the bins of the ECE.

    Args:
        truth: (N,) labels 1, 0 or -1.
        probability: (N,) predicted probabilities in [0, 1].

    Raises:
        ValueError: see `valid_mask`.
    """
    # Not scikit-learn's calibration_curve, which does not return the size of the bins.
    valid = valid_mask(truth, probability)
    positive, probability = truth[valid] == 1, probability[valid]
    bins = bin_of(probability)
    n_images = np.bincount(bins, minlength=BINS)
    filled = n_images > 0
    predicted, observed = (
        np.bincount(bins, values, BINS)[filled] / n_images[filled]
        for values in (probability, positive)
    )
    return ReliabilityCurve(predicted, observed, n_images[filled])


def wilson_interval(proportion: Floats, n: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Compute the 95 % Wilson score interval (Wilson 1927) of proportions with SciPy.

    Args:
        proportion: (B,) observed proportions in [0, 1].
        n: (B,) numbers of independent observations, at least 1.

    Returns:
        Lower and upper bounds, (B,) each.
    """
    from scipy.stats import binomtest

    intervals = [
        binomtest(round(p * total), int(total)).proportion_ci(method="wilson")
        for p, total in zip(proportion, n, strict=True)
    ]
    return (
        np.array([interval.low for interval in intervals]),
        np.array([interval.high for interval in intervals]),
    )
