"""Decision thresholds, chosen on validation and never on the scored set."""

import numpy as np
import numpy.typing as npt

from featurecache.metrics.ranking import AnyFloats, Floats, Labels, valid_mask


def best_f1_thresholds(truth: Labels, probability: AnyFloats) -> Floats:
    """Per label, the threshold with the highest F1; decisions are ``probability >= threshold``.

    A threshold lies midway between two neighbouring scores (the lowest score's lower neighbour is
    0), so that it does not hang on the one image beside it. Of several that are equally good, the
    highest is taken: the fewest false alarms. Takes O(N log N) per label.

    Args:
        truth: (N, C) labels 1, 0 or -1.
        probability: (N, C) in 0 to 1.

    Returns:
        (C,), NaN where no positive is known: no threshold can be chosen there.

    Raises:
        ValueError: a probability lies outside 0 to 1, or as `valid_mask`.
    """
    known = valid_mask(truth, probability)
    if probability.size and (probability.min() < 0 or probability.max() > 1):
        raise ValueError(f"probabilities span {probability.min()} to {probability.max()}, not 0-1")
    return np.array(
        [
            _best_f1_threshold(truth[mask, c] == 1, probability[mask, c].astype(np.float64))
            for c, mask in enumerate(known.T)
        ],
        dtype=np.float64,
    )


def _best_f1_threshold(positive: npt.NDArray[np.bool_], p: Floats) -> float:
    n_positive = positive.sum()
    if n_positive == 0:
        return float("nan")
    distinct, ascending = np.unique(p, return_inverse=True)
    upper, level = distinct[::-1], len(distinct) - 1 - ascending
    n_predicted = np.cumsum(np.bincount(level))
    true_positives = np.cumsum(np.bincount(level[positive], minlength=len(upper)))
    best = int(np.argmax(2 * true_positives / (n_predicted + n_positive)))  # the first: the highest
    lower = upper[best + 1] if best + 1 < len(upper) else 0.0
    middle = lower + (upper[best] - lower) / 2
    # Between two adjacent floats there is no middle, and rounding down would take in the lower one.
    return float(middle if middle > lower else upper[best])
