"""Folds of the training rows, for heads that choose settings by cross-validation."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from featurecache.heads.config import MANY_IMAGES
from featurecache.heads.types import TrainingData

FOLDS: Final = 5


def assign_folds(data: TrainingData, *, seed: int) -> list[NDArray[np.bool_]]:
    """Divide the training rows into folds in which patients stay whole.

    Args:
        data: The data; without patients, rows are independent.
        seed: Random seed.

    Returns:
        Of each fold, which of the training rows it leaves out, (n,). With many training images only
        the first fold is returned, because it has enough of them; without two patients, none is.
    """
    from sklearn.model_selection import GroupKFold

    n_rows = len(data.train)
    groups = np.arange(n_rows) if data.patient is None else data.patient[data.train]
    n_folds = min(FOLDS, len(np.unique(groups)))
    if n_folds < 2:
        return []
    splitter = GroupKFold(n_folds, shuffle=True, random_state=seed)
    folds = []
    for _, rows in splitter.split(groups, groups=groups):
        held_out = np.zeros(n_rows, dtype=bool)
        held_out[rows] = True
        folds.append(held_out)
    return folds if n_rows < MANY_IMAGES else folds[:1]
