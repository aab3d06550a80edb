"""Risk-coverage curves: how often answers are wrong if the least confident ones are withheld.

El-Yaniv and Wiener (JMLR 11, 2010); the area under the curve is that of Geifman, Uziel and
El-Yaniv (ICLR 2019).
"""

import numpy as np
from numpy.typing import NDArray

from featurecache.metrics.curves import Curve
from featurecache.metrics.platt_scaling import log_odds
from featurecache.metrics.ranking import AnyFloats, Floats


def decision_confidence(probability: AnyFloats, threshold: float) -> Floats:
    """Return how far probabilities (N,) are from the threshold, in log odds, (N,)."""
    distance: Floats = np.abs(log_odds(probability) - log_odds(np.array([threshold])))
    return distance


def risk_coverage_curve(wrong: NDArray[np.bool_], confidence: Floats) -> Curve:
    """Return the share of wrong answers among the k most confident, for each k.

    Which of several equally confident answers is withheld first is not defined; the risk is the
    expected one over all orders, so that the curve does not depend on the order of the images.

    Args:
        wrong: (N,) whether an answer is wrong.
        confidence: (N,) how confident it is; only the order counts.

    Returns:
        Coverage k / N (x) and risk (y), for k of 1 to N; empty without answers.

    Raises:
        ValueError: Shapes differ, or a confidence is NaN.
    """
    if wrong.shape != confidence.shape or np.isnan(confidence).any():
        raise ValueError(
            f"each of {len(wrong)} answers needs a confidence that is not NaN, "
            f"not {confidence.shape} of them"
        )
    _, level = np.unique(-confidence, return_inverse=True)
    n_level = np.bincount(level)
    # Within a level, each answer brings the mean number of errors of the level.
    errors = np.bincount(level, wrong) / np.maximum(n_level, 1)
    k = np.arange(1, len(wrong) + 1)
    return Curve(k / max(len(wrong), 1), np.cumsum(np.repeat(errors, n_level)) / k)


def aurc(curve: Curve) -> float:
    """Return the area under a risk-coverage curve, the mean risk over k; NaN for an empty one."""
    return float(curve.y.mean()) if len(curve) else float("nan")
