"""Classification metrics as pure functions: labels and scores in, floats out.

Labels are 1, 0 or -1 (unknown); unknown entries are ignored everywhere. A metric whose formula
divides by zero is undefined and NaN, never 0 or 0.5.

Every formula works on counts, not on rows: `precision` and the like on confusion matrices,
`auroc_auprc_from_histogram` on a histogram along the ranking. The counts may be those of the data
or those of many bootstrap samples, so that each formula is written once.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Labels: TypeAlias = NDArray[np.integer[Any]]
AnyFloats: TypeAlias = NDArray[np.floating[Any]]


def valid_mask(truth: Labels, other: NDArray[Any]) -> NDArray[np.bool_]:
    """Check labels against scores, and return where the labels are known.

    Args:
        truth: Labels 1, 0 or -1 (unknown), of any shape.
        other: Scores or decisions of the same shape.

    Returns:
        A mask of the labels' shape.

    Raises:
        ValueError: The shapes differ, a label is not 1, 0 or -1, or a score is NaN.
    """
    if truth.shape != other.shape:
        raise ValueError(f"labels have shape {truth.shape}, but scores have shape {other.shape}")
    if not np.isin(truth, (-1, 0, 1)).all():
        invalid = sorted(set(np.unique(truth).tolist()) - {-1, 0, 1})
        raise ValueError(f"labels must be 1, 0 or -1 (unknown), but {invalid[:3]} were found")
    if np.isnan(other).any():
        raise ValueError(f"{int(np.isnan(other).sum())} of {other.size} scores are NaN")
    valid: NDArray[np.bool_] = truth >= 0
    return valid


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Return the elementwise quotient, NaN where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    quotient = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator != 0)
    return quotient


# Ranking metrics


def rank_histogram(truth: Labels, score: AnyFloats) -> tuple[NDArray[np.intp], int]:
    """Assign every entry to a bin along the ranking, as finely as AUROC and AUPRC require.

    Only the K distinct scores of positives matter. For the k-th of them, from the highest down,
    bin 3k holds the negatives between it and the previous one, bin 3k + 1 the negatives tied with
    it, and bin 3k + 2 its positives. Bin 3K holds the negatives below all positives; 3K + 1 and
    3K + 2 stay empty, so that the number of bins is a multiple of three.

    Args:
        truth: Labels 1, 0 or -1 (unknown), of any shape.
        score: Scores of the same shape, higher for positives; infinities are allowed.

    Returns:
        The bin of every entry, in the labels' shape, -1 where the label is unknown; and the
        number of bins, 3 (K + 1).

    Raises:
        ValueError: As `valid_mask`.
    """
    valid = valid_mask(truth, score)
    positive = truth[valid] == 1
    distinct, ascending = np.unique(score[valid], return_inverse=True)
    level = len(distinct) - 1 - ascending
    has_positive = np.bincount(level[positive], minlength=len(distinct)) > 0
    n_passed = np.cumsum(has_positive)  # distinct scores of positives, down to and with each level
    tied = has_positive[level]
    bins = np.full(truth.shape, -1, dtype=np.intp)
    bins[valid] = 3 * (n_passed[level] - tied) + np.where(positive, 2, tied)
    return bins, 3 * int(has_positive.sum() + 1)


def auroc_auprc_from_histogram(blocks: Iterable[AnyFloats]) -> tuple[Floats, Floats]:
    """Compute AUROC and AUPRC from histograms over the bins of `rank_histogram`.

    AUROC is the fraction of (positive, negative) pairs in which the positive scores higher, a tie
    counting one half (Hanley and McNeil 1982). AUPRC is the average precision as scikit-learn
    defines it, the sum over thresholds of (recall_k - recall_(k-1)) * precision_k.

    Args:
        blocks: The histograms of B samples from the top bin down, in blocks of (3k, B) whole
            numbers, so that a long histogram never has to be in memory at once.

    Returns:
        Two arrays (B,), NaN where there are no positives or no negatives. (For AUPRC scikit-learn
        returns 0 or 1 there.)
    """
    n_negative = n_positive = lost_pairs = precisions = np.zeros(1)
    for block in blocks:
        above, tied, positives = block[0::3], block[1::3], block[2::3]
        false_positives = _accumulate(np.add(above, tied, dtype=np.float64), start=n_negative)
        true_positives = _accumulate(positives.astype(np.float64), start=n_positive)
        n_negative, n_positive = false_positives[-1].copy(), true_positives[-1].copy()
        # A bootstrap sample may lack the top of the ranking: nothing is predicted there yet. As
        # counts are whole, replacing that 0 by 1 changes no other value, and no positive uses it.
        n_predicted = np.maximum(true_positives + false_positives, 1)
        precisions = precisions + _column_dots(positives, true_positives / n_predicted)
        if tied.any():
            false_positives -= tied / 2
        lost_pairs = lost_pairs + _column_dots(positives, false_positives)
    n_pairs = n_positive * n_negative
    average_precision = ratio(precisions, n_positive)
    return ratio(n_pairs - lost_pairs, n_pairs), np.where(n_pairs > 0, average_precision, np.nan)


def _column_dots(a: AnyFloats, b: Floats) -> Floats:
    """Return the dot product of each pair of columns, without a temporary matrix."""
    dots: Floats = np.einsum("ij,ij->j", a, b)
    return dots


_GROUP: Final = 8


def _accumulate(rows: Floats, *, start: Floats) -> Floats:
    """Compute the cumulative sum down the rows in place; the rows are contiguous."""
    rows[0] += start
    if rows.shape[1] == 1:
        return np.cumsum(rows, axis=0, out=rows)
    # np.cumsum processes one column after another. Adding whole rows is several times as fast, and
    # in groups side by side it takes few long additions, during which other threads can compute.
    whole = len(rows) // _GROUP * _GROUP
    groups = rows[:whole].reshape(-1, _GROUP, rows.shape[1])
    for i in range(1, _GROUP):
        groups[:, i] += groups[:, i - 1]
    for previous, group in pairwise(groups):
        group += previous[-1]
    for i in range(max(whole, 1), len(rows)):
        rows[i] += rows[i - 1]
    return rows


def auroc(truth: Labels, score: AnyFloats) -> float:
    """Return the area under the ROC curve over all known entries.

    Args:
        truth: Labels 1, 0 or -1 (unknown), of any shape; a matrix gives the micro average.
        score: Scores of the same shape; ties count one half.

    Returns:
        A value in 0 to 1; NaN without both positives and negatives.

    Raises:
        ValueError: As `valid_mask`.
    """
    return auroc_and_auprc(truth, score)[0]


def auprc(truth: Labels, score: AnyFloats) -> float:
    """Return the average precision over all known entries.

    Args:
        truth: Labels 1, 0 or -1 (unknown), of any shape; a matrix gives the micro average.
        score: Scores of the same shape; tied entries share one threshold.

    Returns:
        A value in 0 to 1; NaN without both positives and negatives.

    Raises:
        ValueError: As `valid_mask`.
    """
    return auroc_and_auprc(truth, score)[1]


def auroc_and_auprc(truth: Labels, score: AnyFloats) -> tuple[float, float]:
    """Return `auroc` and `auprc`, sorting the scores once."""
    bins, n_bins = rank_histogram(truth, score)
    counts = np.bincount(bins[bins >= 0], minlength=n_bins).astype(np.float64)
    auroc, auprc = auroc_auprc_from_histogram([counts[:, np.newaxis]])
    return float(auroc[0]), float(auprc[0])


# Metrics of binary decisions


def confusion(truth: Labels, predicted: NDArray[np.bool_]) -> Floats:
    """Return the confusion matrix over all known entries.

    Args:
        truth: Labels 1, 0 or -1 (unknown), of any shape; a matrix is pooled.
        predicted: Binary decisions of the same shape.

    Returns:
        (2, 2), [[tn, fp], [fn, tp]], scikit-learn's layout.

    Raises:
        ValueError: As `valid_mask`.
    """
    valid = valid_mask(truth, predicted)
    cells = 2 * truth[valid].astype(np.intp) + predicted[valid]
    return np.bincount(cells, minlength=4).reshape(2, 2).astype(np.float64)


def precision(confusions: Floats) -> Floats:
    """Return tp / (tp + fp): (..., 2, 2) to (...); NaN without positive predictions."""
    return ratio(confusions[..., 1, 1], confusions[..., :, 1].sum(axis=-1))


def recall(confusions: Floats) -> Floats:
    """Return tp / (tp + fn): (..., 2, 2) to (...); NaN without positives."""
    return ratio(confusions[..., 1, 1], confusions[..., 1, :].sum(axis=-1))


def specificity(confusions: Floats) -> Floats:
    """Return tn / (tn + fp): (..., 2, 2) to (...); NaN without negatives."""
    return ratio(confusions[..., 0, 0], confusions[..., 0, :].sum(axis=-1))


def npv(confusions: Floats) -> Floats:
    """Return tn / (tn + fn): (..., 2, 2) to (...); NaN without negative predictions."""
    return ratio(confusions[..., 0, 0], confusions[..., :, 0].sum(axis=-1))


def f1(confusions: Floats) -> Floats:
    """Return 2 tp / (2 tp + fp + fn): (..., 2, 2) to (...); NaN without tp, fp and fn."""
    doubled = 2 * confusions[..., 1, 1]
    return ratio(doubled, doubled + confusions[..., 0, 1] + confusions[..., 1, 0])


def accuracy(confusions: Floats) -> Floats:
    """Return the fraction of correct decisions: (..., 2, 2) to (...); NaN without known labels."""
    correct = confusions[..., 0, 0] + confusions[..., 1, 1]
    return ratio(correct, confusions.sum(axis=(-2, -1)))


def hamming_loss(confusions: Floats) -> Floats:
    """Return the fraction of wrong decisions: (..., 2, 2) to (...); NaN without known labels.

    For the pooled confusion matrix it is the Hamming loss of the label matrix.
    """
    wrong = confusions[..., 0, 1] + confusions[..., 1, 0]
    return ratio(wrong, confusions.sum(axis=(-2, -1)))


# Metrics over several labels


def macro(values: Floats) -> Floats:
    """Return the mean over the labels with a defined metric: (..., C) to (...); NaN without any.

    This is scikit-learn's ``average="macro"`` with ``zero_division=np.nan``.
    """
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0).sum(axis=-1), defined.sum(axis=-1).astype(np.float64))


def exact_match(truth: Labels, predicted: NDArray[np.bool_]) -> float:
    """Return the fraction of rows with every label right, among rows with every label known.

    Args:
        truth: (N, C) labels 1, 0 or -1 (unknown).
        predicted: (N, C) binary decisions.

    Returns:
        A value in 0 to 1; NaN if no row has every label known.

    Raises:
        ValueError: As `valid_mask`.
    """
    complete = valid_mask(truth, predicted).all(axis=1)
    exact = (truth == predicted).all(axis=1)[complete]
    return float(exact.mean()) if exact.size else float("nan")
