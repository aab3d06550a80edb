"""Classification metrics as pure functions: labels and scores in, floats out.

Labels are 1, 0 or -1 (unknown); unknown entries are masked out everywhere. A metric whose formula
divides by zero is undefined and NaN, never 0 or 0.5.

Every formula works on counts, not on rows: `precision` and its kin on confusion matrices,
`auroc_auprc_from_histogram` on a histogram along the ranking. The counts may be those of the data or those of
many bootstrap draws, so that each formula is written once.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Labels: TypeAlias = npt.NDArray[np.integer[Any]]
AnyFloats: TypeAlias = npt.NDArray[np.floating[Any]]


def valid_mask(truth: Labels, other: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Where the labels are known, as a mask of their shape.

    Args:
        truth: labels 1, 0 or -1, of any shape.
        other: the scores or predictions that they are held against.

    Raises:
        ValueError: the shapes differ, a label is none of 1, 0 and -1, or a score is NaN.
    """
    if truth.shape != other.shape:
        raise ValueError(f"labels have shape {truth.shape}, but what is scored {other.shape}")
    if not np.isin(truth, (-1, 0, 1)).all():
        found = sorted(set(np.unique(truth).tolist()) - {-1, 0, 1})
        raise ValueError(f"labels must be 1, 0 or -1 (unknown), but {found[:3]} were found")
    if np.isnan(other).any():
        raise ValueError(f"{int(np.isnan(other).sum())} of {other.size} scores are NaN")
    known: npt.NDArray[np.bool_] = truth >= 0
    return known


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Elementwise quotient; NaN where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    quotient = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator != 0)
    return quotient


# Ranking metrics


def rank_histogram(truth: Labels, score: AnyFloats) -> tuple[npt.NDArray[np.intp], int]:
    """Place every entry along the ranking, as finely as AUROC and AUPRC can tell.

    Only the distinct scores that a positive has matter: K of them, from the highest down. Each is
    preceded by the negatives that score between it and the one before, and is met by the negatives
    that tie with it. So bin 3k holds negatives above score k, bin 3k + 1 negatives tied with it,
    bin 3k + 2 its positives. The negatives beneath them all are in bin 3K, and 3K + 1 and 3K + 2
    stay empty, so that the bins are whole threes.

    Args:
        truth: labels 1, 0 or -1, of any shape.
        score: scores of the same shape; a higher one says "more positive". Infinities may be.

    Returns:
        The bin of every entry, in the labels' shape, -1 where the label is unknown; and the
        number of bins, 3 (K + 1).

    Raises:
        ValueError: as `valid_mask`.
    """
    known = valid_mask(truth, score)
    positive = truth[known] == 1
    distinct, ascending = np.unique(score[known], return_inverse=True)
    level = len(distinct) - 1 - ascending
    has_positive = np.bincount(level[positive], minlength=len(distinct)) > 0
    passed = np.cumsum(has_positive)  # the scores of positives met down to each level, itself too
    tied = has_positive[level]
    bins = np.full(truth.shape, -1, dtype=np.intp)
    bins[known] = 3 * (passed[level] - tied) + np.where(positive, 2, tied)
    return bins, 3 * int(has_positive.sum() + 1)


def auroc_auprc_from_histogram(blocks: Iterable[AnyFloats]) -> tuple[Floats, Floats]:
    """AUROC and AUPRC from the histogram over `rank_histogram`.

    AUROC is the share of (positive, negative) pairs in which the positive scores higher, a tie
    counting one half (Hanley and McNeil 1982). AUPRC is the average precision as scikit-learn
    defines it, the sum over thresholds of (recall_k - recall_(k-1)) * precision_k.

    Args:
        blocks: the histogram from its top in blocks of (3k, draws) whole numbers, so that a long
            one need never be in memory at once.

    Returns:
        Two arrays (draws,), NaN where positives or negatives are lacking: with one class only, a
        ranking has nothing to show (for AUPRC, scikit-learn says 0 or 1 there).
    """
    n_negative = n_positive = lost_pairs = precisions = np.zeros(1)
    for block in blocks:
        above, tied, positives = block[0::3], block[1::3], block[2::3]
        false_positives = _accumulate(np.add(above, tied, dtype=np.float64), start=n_negative)
        true_positives = _accumulate(positives.astype(np.float64), start=n_positive)
        n_negative, n_positive = false_positives[-1].copy(), true_positives[-1].copy()
        # Where a draw left out the top of the ranking, nothing is predicted yet. Counts are whole,
        # so 1 stands in for that 0 and for nothing else; no positive is weighed by it.
        predicted = np.maximum(true_positives + false_positives, 1)
        precisions = precisions + _column_sums(positives, true_positives / predicted)
        if tied.any():
            false_positives -= tied / 2
        lost_pairs = lost_pairs + _column_sums(positives, false_positives)
    n_pairs = n_positive * n_negative
    average_precision = ratio(precisions, n_positive)
    return ratio(n_pairs - lost_pairs, n_pairs), np.where(n_pairs > 0, average_precision, np.nan)


def _column_sums(one: AnyFloats, other: Floats) -> Floats:
    """Of the products of the entries of two matrices, without the matrix of the products."""
    sums: Floats = np.einsum("ij,ij->j", one, other)
    return sums


_GROUP: Final = 8


def _accumulate(rows: Floats, *, start: Floats) -> Floats:
    """Cumulative sum down the rows, in place; they are contiguous."""
    rows[0] += start
    if rows.shape[1] == 1:
        return np.cumsum(rows, axis=0, out=rows)
    # np.cumsum goes down one column after another. Adding whole rows is several times as fast, and
    # in groups side by side it takes a few long additions, beside which other threads compute.
    whole = len(rows) // _GROUP * _GROUP
    groups = rows[:whole].reshape(-1, _GROUP, rows.shape[1])
    for place in range(1, _GROUP):
        groups[:, place] += groups[:, place - 1]
    for before, group in pairwise(groups):
        group += before[-1]
    for place in range(max(whole, 1), len(rows)):
        rows[place] += rows[place - 1]
    return rows


def auroc(truth: Labels, score: AnyFloats) -> float:
    """Area under the ROC curve over all known entries; of a whole matrix, the micro average.

    Args:
        truth: labels 1, 0 or -1, of any shape.
        score: scores of the same shape; ties count one half.

    Returns:
        0 to 1; NaN unless both classes are there.

    Raises:
        ValueError: as `valid_mask`.
    """
    return auroc_and_auprc(truth, score)[0]


def auprc(truth: Labels, score: AnyFloats) -> float:
    """Average precision over all known entries; of a whole matrix, the micro average.

    Args:
        truth: labels 1, 0 or -1, of any shape.
        score: scores of the same shape; tied entries share one threshold.

    Returns:
        0 to 1; NaN unless both classes are there.

    Raises:
        ValueError: as `valid_mask`.
    """
    return auroc_and_auprc(truth, score)[1]


def auroc_and_auprc(truth: Labels, score: AnyFloats) -> tuple[float, float]:
    """``auroc`` and ``auprc`` by one sorting."""
    bins, n_bins = rank_histogram(truth, score)
    counts = np.bincount(bins[bins >= 0], minlength=n_bins).astype(np.float64)
    auroc, auprc = auroc_auprc_from_histogram([counts[:, np.newaxis]])
    return float(auroc[0]), float(auprc[0])


# Metrics of decisions


def confusion(truth: Labels, predicted: npt.NDArray[np.bool_]) -> Floats:
    """The confusion matrix over all known entries; of a whole matrix, the pooled one.

    Args:
        truth: labels 1, 0 or -1, of any shape.
        predicted: decisions of the same shape.

    Returns:
        (2, 2), [[tn, fp], [fn, tp]], scikit-learn's layout.

    Raises:
        ValueError: as `valid_mask`.
    """
    known = valid_mask(truth, predicted)
    cells = 2 * truth[known].astype(np.intp) + predicted[known]
    return np.bincount(cells, minlength=4).reshape(2, 2).astype(np.float64)


def precision(confusions: Floats) -> Floats:
    """Share of positive predictions that are right: (..., 2, 2) to (...); NaN if there are none."""
    return ratio(confusions[..., 1, 1], confusions[..., :, 1].sum(axis=-1))


def recall(confusions: Floats) -> Floats:
    """Share of positives that are found: (..., 2, 2) to (...); NaN if there are no positives."""
    return ratio(confusions[..., 1, 1], confusions[..., 1, :].sum(axis=-1))


def f1(confusions: Floats) -> Floats:
    """2 tp / (2 tp + fp + fn): (..., 2, 2) to (...); NaN if nothing is or is called positive."""
    doubled = 2 * confusions[..., 1, 1]
    return ratio(doubled, doubled + confusions[..., 0, 1] + confusions[..., 1, 0])


def accuracy(confusions: Floats) -> Floats:
    """Share of right predictions: (..., 2, 2) to (...); NaN if no label is known."""
    right = confusions[..., 0, 0] + confusions[..., 1, 1]
    return ratio(right, confusions.sum(axis=(-2, -1)))


def hamming_loss(confusions: Floats) -> Floats:
    """Share of wrong predictions: (..., 2, 2) to (...); NaN if no label is known.

    Of the pooled confusion matrix, it is the Hamming loss of the label matrix.
    """
    wrong = confusions[..., 0, 1] + confusions[..., 1, 0]
    return ratio(wrong, confusions.sum(axis=(-2, -1)))


# Metrics over several labels


def macro(values: Floats) -> Floats:
    """Mean over the labels where the metric is defined: (..., C) to (...); NaN if nowhere.

    This is scikit-learn's ``average="macro"`` with ``zero_division=np.nan``.
    """
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0).sum(axis=-1), defined.sum(axis=-1).astype(np.float64))


def exact_match(truth: Labels, predicted: npt.NDArray[np.bool_]) -> float:
    """Share of rows with every label right, among the rows with every label known.

    Args:
        truth: (N, C) labels 1, 0 or -1.
        predicted: (N, C) decisions.

    Returns:
        0 to 1; NaN if no row has every label known.

    Raises:
        ValueError: as `valid_mask`.
    """
    complete = valid_mask(truth, predicted).all(axis=1)
    right = (truth == predicted).all(axis=1)[complete]
    return float(right.mean()) if right.size else float("nan")
