"""Coverage: images that lie far from those that are chosen already, and from each other."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurecache.metrics.similarity import Directions, row_chunks

_BLOCK = 256
"""Covered rows that all candidates are compared with at a time."""


def farthest_first(
    candidates: Directions, groups: NDArray[Any], covered: Directions, *, n: int
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Choose rows one after another, each as far as possible from all that are covered before.

    This is the greedy solution of the k-center problem, at most twice as far from its optimum
    (Gonzalez 1985; for active learning, Sener and Savarese, "Active learning for convolutional
    neural networks: a core-set approach", ICLR 2018), with the condition that groups take turns: no
    second row of a group is chosen before one of every group is.

    Args:
        candidates: (N, D) rows of unit length to choose from, preferred ones first: among equally
            far rows the first is chosen, and so it is if nothing is covered.
        groups: (N,) group of each, such as its patient.
        covered: (M, D) rows of unit length that are covered at the start.
        n: Number of rows to choose, at most N.

    Returns:
        Indices of the rows in the order in which they are chosen, (n,), and the cosine of each with
        the nearest row that was covered before, (n,), NaN where there was none.
    """
    nearest = np.full(len(candidates), -np.inf, dtype=np.float32)
    for block in row_chunks(len(covered), _BLOCK):
        np.maximum(nearest, (candidates @ covered[block].T).max(axis=1), out=nearest)
    _, group = np.unique(groups, return_inverse=True)
    is_left = np.ones(len(candidates), dtype=np.bool_)
    has_turn = np.ones(group.max(initial=-1) + 1, dtype=np.bool_)
    chosen, cosines = np.empty(n, dtype=np.intp), np.empty(n, dtype=np.float32)
    for number in range(n):
        possible = is_left & has_turn[group]
        if not possible.any():
            has_turn[:] = True
            possible = is_left
        row = int(np.argmin(np.where(possible, nearest, np.inf)))
        chosen[number], cosines[number] = row, nearest[row]
        is_left[row] = has_turn[group[row]] = False
        np.maximum(nearest, candidates @ candidates[row], out=nearest)
    return chosen, np.where(np.isneginf(cosines), np.float32(np.nan), cosines)
