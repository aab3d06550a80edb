"""Which training rows a head sees: random subsets, balanced subsets, balanced draws."""

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import UsageError


def random_subset(rows: NDArray[np.intp], size: int, *, seed: int) -> NDArray[np.intp]:
    """``size`` of the rows without replacement, in ascending order.

    Raises:
        UsageError: there are not that many.
    """
    if size > len(rows):
        raise UsageError(
            f"--train-size {size} is more than the {len(rows)} training images there are"
        )
    chosen = np.random.default_rng(seed).choice(rows, size=size, replace=False)
    return np.sort(chosen)


def balanced_subset(
    labels: NDArray[np.int8], rows: NDArray[np.intp], *, size: int | None, seed: int
) -> NDArray[np.intp]:
    """Rows in which every label, and "no finding", comes up as often as the data allow.

    Again and again, the group that has the fewest rows so far gets one more of its own; a row with
    several findings counts for each. Groups that run out are left behind.

    Args:
        labels: (N, C) of 1, 0, -1.
        rows: those to choose from.
        size: how many; None for the median group's count times the number of groups, or as many as
            there are.
        seed: of the choice.

    Returns:
        The chosen rows in ascending order.

    Raises:
        UsageError: fewer than ``size`` rows are in any group, or none is.
    """
    groups = _groups(labels[rows])
    groups = groups[:, groups.any(axis=0)]
    usable = int(groups.any(axis=1).sum())
    if usable == 0:
        raise UsageError(
            "--resample undersample found no training image with a positive label or with all labels "
            "negative: give labels, or train without --resample"
        )
    wanted = size
    if wanted is None:
        wanted = min(usable, int(np.median(groups.sum(axis=0))) * groups.shape[1])
    if wanted > usable:
        raise UsageError(
            f"--train-size {wanted} is more than the {usable} training images with known labels"
        )
    order = np.random.default_rng(seed).permutation(len(rows))
    queues = [list(order[groups[order, group]])[::-1] for group in range(groups.shape[1])]
    counts = np.zeros(groups.shape[1])
    taken = np.zeros(len(rows), dtype=bool)
    while taken.sum() < wanted:
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
    """Odds of drawing each row so that each label, and "no finding", is drawn about as often.

    A row's odds are those of its rarest group: one over that group's count.

    Args:
        labels: (N, C) of 1, 0, -1.

    Returns:
        (N,) summing to 1. A row in no group (nothing known to be there, something unknown) has the
        odds of the most common group.
    """
    groups = _groups(labels)
    counts = groups.sum(axis=0)
    odds = np.where(groups, 1.0 / np.maximum(counts, 1), 0.0).max(axis=1)
    odds[odds == 0] = 1.0 / counts.max(initial=1)
    result: NDArray[np.float64] = odds / odds.sum()
    return result


def _groups(labels: NDArray[np.int8]) -> NDArray[np.bool_]:
    """(N, C + 1): the labels that are there, and whether all are known to be absent."""
    return np.column_stack([labels == 1, (labels == 0).all(axis=1)])
