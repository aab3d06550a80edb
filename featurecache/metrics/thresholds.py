"""Decision thresholds, chosen on validation images and never on the images that are scored."""

import numpy as np
from numpy.typing import NDArray

from featurecache.metrics.ranking import AnyFloats, Floats, Labels, valid_mask


def best_f1_thresholds(truth: Labels, probability: AnyFloats) -> Floats:
    """Return the threshold with the highest F1 for each label.

    Decisions are ``probability >= threshold``. A threshold lies midway between two adjacent scores
    (0 is adjacent to the lowest one), so that it does not depend on a single image. Among
    thresholds with the same F1 the highest is chosen: the fewest false positives. Takes
    O(N log N) per label.

    Args:
        truth: (N, C) labels 1, 0 or -1 (unknown).
        probability: (N, C) in 0 to 1.

    Returns:
        (C,), NaN for a label without positives.

    Raises:
        ValueError: A probability lies outside 0 to 1, or as ``valid_mask``.
    """
    valid = valid_mask(truth, probability)
    if probability.size and (probability.min() < 0 or probability.max() > 1):
        raise ValueError(
            f"probabilities must lie in 0 to 1, but range from {probability.min()} to "
            f"{probability.max()}"
        )
    return np.array(
        [
            _best_f1_threshold(truth[mask, c] == 1, probability[mask, c].astype(np.float64))
            for c, mask in enumerate(valid.T)
        ],
        dtype=np.float64,
    )


def _best_f1_threshold(positive: NDArray[np.bool_], p: Floats) -> float:
    n_positive = positive.sum()
    if n_positive == 0:
        return float("nan")
    distinct, ascending = np.unique(p, return_inverse=True)
    upper, level = distinct[::-1], len(distinct) - 1 - ascending
    n_predicted = np.cumsum(np.bincount(level))
    true_positives = np.cumsum(np.bincount(level[positive], minlength=len(upper)))
    # argmax returns the first of several maxima, which is the highest threshold.
    best = int(np.argmax(2 * true_positives / (n_predicted + n_positive)))
    lower = upper[best + 1] if best + 1 < len(upper) else 0.0
    middle = lower + (upper[best] - lower) / 2
    # Adjacent floats have no value in between, and rounding down would include the lower score.
    return float(middle if middle > lower else upper[best])
