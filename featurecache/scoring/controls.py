"""Controls: what a score would be for a reason that has nothing to do with the finding."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def view_only_probabilities(
    train_views: NDArray[np.str_],
    train_labels: NDArray[np.int8],
    views: NDArray[np.str_],
) -> NDArray[np.float64]:
    """Predict each label from the view position (AP, PA) alone.

    The probability of a label is its share among the training images of that view; an unseen view
    gets the share among all. On ChestX-ray14 this alone reaches a macro AUROC of about 0.59.

    Args:
        train_views: (N,) view of each training image.
        train_labels: (N, C) of 1, 0, -1 unknown.
        views: (M,) view of each image to predict.

    Returns:
        (M, C); NaN for a label of which nothing is known in training.
    """
    overall = _shares(train_labels)
    result = np.tile(overall, (len(views), 1))
    for view in np.unique(views):
        shares = _shares(train_labels[train_views == view])
        result[views == view] = np.where(np.isnan(shares), overall, shares)
    return result


def _shares(labels: NDArray[np.int8]) -> NDArray[np.float64]:
    known = (labels >= 0).sum(axis=0)
    positive = (labels == 1).sum(axis=0)
    shares: NDArray[np.float64] = np.divide(
        positive, known, out=np.full(labels.shape[1], np.nan), where=known > 0
    )
    return shares


def shuffled_labels(
    labels: NDArray[np.int8], splits: Sequence[NDArray[np.intp]], *, seed: int
) -> NDArray[np.int8]:
    """Labels of other images: the rows are permuted within each split.

    How often a finding is there, and with which others, stays as it was; what any image has to do
    with it does not. Whatever still scores above chance learned something else.

    Args:
        labels: (N, C).
        splits: the rows of each split; rows in none of them keep their labels.
        seed: of the permutations.
    """
    shuffled = labels.copy()
    generator = np.random.default_rng(seed)
    for rows in splits:
        shuffled[rows] = labels[generator.permutation(rows)]
    return shuffled


def random_features(shape: tuple[int, int], *, seed: int) -> NDArray[np.float16]:
    """Embeddings (N, D) that say nothing: independent standard normal values."""
    generator = np.random.default_rng(seed)
    features = np.empty(shape, dtype=np.float16)
    for row in features:  # not at once: the draws are four times as large as what is kept
        row[:] = generator.standard_normal(shape[1], dtype=np.float32)
    return features
