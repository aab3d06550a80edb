"""The points of what a report draws: pure functions of truth and probability, without plotting.

Truth is 1, 0 or -1 (unknown, left out). Where a curve is undefined there are no points.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurecache.metrics.calibration import BINS, bin_of
from featurecache.metrics.ranking import Floats, Labels, valid_mask

MOST_POINTS = 300
"""Of a drawn curve: more cannot be told apart at the size of a page."""
_NOTHING = np.empty(0)


@dataclass(frozen=True, eq=False)
class Points:
    """A curve's points, (P,) each, in order; none where it is undefined."""

    x: Floats
    y: Floats

    def __len__(self) -> int:
        """The number of points."""
        return len(self.x)


@dataclass(frozen=True, eq=False)
class Reliability:
    """What was predicted and what was so, by bins of the probability that hold images.

    Attributes:
        predicted: (B,) mean probability of a bin.
        observed: (B,) share of positives.
        images: (B,) number of images.
    """

    predicted: Floats
    observed: Floats
    images: NDArray[np.intp]


def roc_points(truth: Labels, score: Floats) -> Points:
    """False against true positive rate, at every threshold from the highest down.

    Args:
        truth: (N,) labels.
        score: (N,), higher for a positive.

    Returns:
        From (0, 0) to (1, 1), as scikit-learn's ``roc_curve`` without dropped points; none unless
        both classes are there.

    Raises:
        ValueError: as ``valid_mask``.
    """
    found, called = _counts(truth, score)
    if len(found) == 0 or found[-1] == 0 or found[-1] == called[-1]:
        return Points(_NOTHING, _NOTHING)
    wrong = called - found
    return Points(np.append(0, wrong / wrong[-1]), np.append(0, found / found[-1]))


def precision_recall_points(truth: Labels, score: Floats) -> Points:
    """Recall against precision, from the highest threshold down.

    Args:
        truth: (N,) labels.
        score: (N,), higher for a positive.

    Returns:
        As scikit-learn's ``precision_recall_curve``, turned round: from recall 0, where precision
        is set to 1 by convention, to recall 1; none unless there are positives.

    Raises:
        ValueError: as ``valid_mask``.
    """
    found, called = _counts(truth, score)
    if len(found) == 0 or found[-1] == 0:
        return Points(_NOTHING, _NOTHING)
    return Points(np.append(0, found / found[-1]), np.append(1, found / called))


def _counts(truth: Labels, score: Floats) -> tuple[Floats, Floats]:
    """True positives, and all that is called positive, at each distinct score from the highest."""
    known = valid_mask(truth, score)
    positive, kept = truth[known] == 1, score[known]
    order = np.argsort(-kept, kind="stable")
    descending = kept[order]
    last = np.flatnonzero(np.append(descending[1:] != descending[:-1], [True] * (len(kept) > 0)))
    found = np.cumsum(positive[order])[last].astype(np.float64)
    return found, last.astype(np.float64) + 1


def reliability(truth: Labels, probability: Floats) -> Reliability:
    """Predicted against observed, in the bins of the calibration error.

    Args:
        truth: (N,) labels.
        probability: (N,) in 0 to 1.

    Raises:
        ValueError: as ``valid_mask``.
    """
    known = valid_mask(truth, probability)
    positive, kept = truth[known] == 1, probability[known]
    bins = bin_of(kept)
    images = np.bincount(bins, minlength=BINS)
    filled = images > 0
    sums = [np.bincount(bins, values, BINS)[filled] for values in (kept, positive)]
    return Reliability(sums[0] / images[filled], sums[1] / images[filled], images[filled])


def wilson_interval(share: Floats, images: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """The 95 % interval of a share of independent images, by Wilson 1927.

    Args:
        share: (B,) in 0 to 1.
        images: (B,) 1 or more.

    Returns:
        Lower and upper bounds, (B,) each.
    """
    z = 1.959964
    middle = share + z**2 / (2 * images)
    reach = z * np.sqrt(share * (1 - share) / images + (z / (2 * images)) ** 2)
    scale = 1 + z**2 / images
    return (middle - reach) / scale, (middle + reach) / scale


def douglas_peucker(points: Points, most: int = MOST_POINTS) -> Points:
    """The curve with fewer points: first and last kept, the others where it bends.

    Douglas and Peucker 1973, on curves in the unit square: a point is left out where the curve
    without it passes within a tolerance, which starts far below a pixel and doubles until at most
    ``most`` points are left. Each round starts from what the one before has left.
    """
    tolerance = 1e-4
    kept = np.arange(len(points))
    while True:
        kept = kept[_bends(points.x[kept], points.y[kept], tolerance)]
        if len(kept) <= max(most, 2):
            return Points(points.x[kept], points.y[kept])
        tolerance *= 2


def _bends(x: Floats, y: Floats, tolerance: float) -> NDArray[np.bool_]:
    kept = np.zeros(len(x), dtype=np.bool_)
    kept[:1] = kept[-1:] = True
    parts = [(0, len(x) - 1)]
    while parts:
        start, stop = parts.pop()
        if stop - start < 2:
            continue
        inner = slice(start + 1, stop)
        across, up = x[stop] - x[start], y[stop] - y[start]
        length = np.hypot(across, up)
        distance = (
            np.abs(across * (y[inner] - y[start]) - up * (x[inner] - x[start])) / length
            if length > 0
            else np.hypot(x[inner] - x[start], y[inner] - y[start])
        )
        farthest = int(np.argmax(distance))
        if distance[farthest] > tolerance:
            middle = start + 1 + farthest
            kept[middle] = True
            parts += [(start, middle), (middle, stop)]
    return kept
