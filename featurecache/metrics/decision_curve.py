"""Net benefit: what decisions by a probability are worth at each threshold (decision curve).

Vickers and Elkin (Medical Decision Making 26, 2006). To act from a probability of t on is to accept
(1 - t) / t false positives for a true one. Net benefit counts both in true positives.
"""

from dataclasses import dataclass

import numpy as np

from featurecache.metrics.ranking import AnyFloats, Floats, Labels, valid_mask


@dataclass(frozen=True, eq=False)
class DecisionCurve:
    """Net benefit by threshold probability, in true positives per image.

    Treating nobody has a net benefit of 0.

    Attributes:
        threshold: (T,) threshold probabilities.
        model: (T,) net benefit of treating whom the probability says.
        treat_all: (T,) net benefit of treating everybody.
    """

    threshold: Floats
    model: Floats
    treat_all: Floats


def decision_curve(truth: Labels, probability: AnyFloats, threshold: Floats) -> DecisionCurve:
    """Compute net benefit, TP / n - FP / n * t / (1 - t), over the known labels.

    Args:
        truth: (N,) labels 1, 0 or -1 (unknown).
        probability: (N,) probabilities in 0 to 1; they should be calibrated.
        threshold: (T,) threshold probabilities, above 0 and below 1.

    Returns:
        The curve; NaN without known labels.

    Raises:
        ValueError: A threshold is not above 0 and below 1, or as `valid_mask`.
    """
    if not ((threshold > 0) & (threshold < 1)).all():
        raise ValueError("threshold probabilities must be above 0 and below 1")
    valid = valid_mask(truth, probability)
    n, odds = max(int(valid.sum()), 1), threshold / (1 - threshold)

    def treated(label: int) -> Floats:
        """Return the share of all images that have the label and reach each threshold."""
        scores = np.sort(probability[valid & (truth == label)])
        reached: Floats = (len(scores) - np.searchsorted(scores, threshold)) / n
        return reached

    model = treated(1) - odds * treated(0)
    prevalence = (truth[valid] == 1).sum() / n
    treat_all = prevalence - odds * (1 - prevalence)
    if not valid.any():
        model, treat_all = np.full_like(model, np.nan), np.full_like(model, np.nan)
    return DecisionCurve(threshold, model, treat_all)
