"""Choice of training rows: random subsets, balanced subsets and balanced sampling weights."""

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import UsageError


def random_subset(rows: NDArray[np.intp], size: int, *, seed: int) -> NDArray[np.intp]:
    """Choose ``size`` of the rows without replacement.

    Args:
        rows: (M,) the rows to choose from.
        size: How many to choose.
        seed: Random seed.

    Returns:
        (size,) the chosen rows in ascending order.

    Raises:
        UsageError: There are fewer rows than ``size``.
    """
    if size > len(rows):
        raise UsageError(f"`train_size` is {size}, but there are only {len(rows)} training images")
    return np.sort(np.random.default_rng(seed).choice(rows, size=size, replace=False))


def balanced_subset(
    labels: NDArray[np.int8], rows: NDArray[np.intp], *, size: int | None, seed: int
) -> NDArray[np.intp]:
    """Choose rows so that every label, and "no finding", is as frequent as the data allow.

    Rows are chosen one by one, always from the group (a label, or no finding) that has the fewest
    so far. A row with several findings counts for each of them. A group without rows left is
    skipped.

    Args:
        labels: (N, C) labels: 1, 0 or -1.
        rows: The rows to choose from.
        size: How many to choose; None for the median group size times the number of groups, or all
            usable rows if there are fewer.
        seed: Random seed.

    Returns:
        The chosen rows in ascending order.

    Raises:
        UsageError: No row, or fewer than ``size`` rows, belong to any group.
    """
    groups = _groups(labels[rows])
    groups = groups[:, groups.any(axis=0)]
    usable = int(groups.any(axis=1).sum())
    if usable == 0:
        raise UsageError(
            "`resample` is undersample, but no training image has a positive label or only "
            "negative ones: give labels, or leave out `resample`"
        )
    if size is None:
        size = min(usable, int(np.median(groups.sum(axis=0))) * groups.shape[1])
    if size > usable:
        raise UsageError(
            f"`train_size` is {size}, but there are only {usable} training images with known labels"
        )
    order = np.random.default_rng(seed).permutation(len(rows))
    queues = [list(order[groups[order, group]])[::-1] for group in range(groups.shape[1])]
    counts = np.zeros(groups.shape[1])
    taken = np.zeros(len(rows), dtype=bool)
    while taken.sum() < size:
        group = int(counts.argmin())
        while queues[group] and taken[queues[group][-1]]:
            queues[group].pop()
        if not queues[group]:
            counts[group] = np.inf
            continue
        row = queues[group].pop()
        taken[row] = True
        counts += groups[row]
    return np.sort(rows[taken])


def balanced_weights(labels: NDArray[np.int8]) -> NDArray[np.float64]:
    """Return sampling probabilities that make all labels, and "no finding", similarly frequent.

    A row's weight is one over the size of its smallest group. A row without a group (no positive
    label, and some unknown) has the weight of the largest group.

    Args:
        labels: (N, C) labels: 1, 0 or -1.

    Returns:
        (N,) probabilities that sum to 1.
    """
    groups = _groups(labels)
    counts = groups.sum(axis=0)
    weights = np.where(groups, 1.0 / np.maximum(counts, 1), 0.0).max(axis=1)
    weights[weights == 0] = 1.0 / counts.max(initial=1)
    probabilities: NDArray[np.float64] = weights / weights.sum()
    return probabilities


def _groups(labels: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Return membership (N, C + 1): of each positive label, and of "no finding" (all negative)."""
    return np.column_stack([labels == 1, (labels == 0).all(axis=1)])
