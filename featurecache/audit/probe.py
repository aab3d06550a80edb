"""A linear probe by least squares: what an embedding tells of a quantity, on other patients.

Every image is predicted by weights that saw no image of its patient. Patients are dealt into
folds; for each fold, ridge regression learns on the others, with the strength that predicts best
when these are left out in turn (nested cross-validation). All fits come from sums over the folds,
so that they cost one pass over the embeddings and an eigendecomposition each, however many images
there are.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

FOLDS: Final = 5

STRENGTHS: Final = tuple(10.0**power for power in range(-4, 5))
"""Ridge penalties, in units of the embeddings' mean variance times the number of images."""


def grouped_folds(
    target: npt.NDArray[np.floating], patients: npt.NDArray[np.str_], *, seed: int
) -> npt.NDArray[np.intp]:
    """Deal whole patients into folds in which the target is spread alike.

    Patients in order of their mean target, equals in random order, go to the folds by fives, each
    five in random order.

    Args:
        target: (N,) what is to be predicted.
        patients: (N,) the patient of each image.
        seed: of what is random.

    Returns:
        (N,) the fold of each image, 0 to ``FOLDS`` - 1.
    """
    _, owner, counts = np.unique(patients, return_inverse=True, return_counts=True)
    means = np.bincount(owner, target) / counts
    generator = np.random.default_rng(seed)
    order = np.lexsort((generator.random(len(means)), means))
    rounds = -(-len(means) // FOLDS)
    dealt = np.concatenate([generator.permutation(FOLDS) for _ in range(rounds)])
    fold_of = np.empty(len(means), dtype=np.intp)
    fold_of[order] = dealt[: len(means)]
    return fold_of[owner]


def cross_val_predict(
    embeddings: npt.NDArray[np.floating],
    target: npt.NDArray[np.floating],
    fold: npt.NDArray[np.intp],
) -> Floats:
    """Predict each image from the images of other folds, in N * D * 8 bytes.

    Args:
        embeddings: (N, D).
        target: (N,).
        fold: (N,) 0 to F - 1, F at least 3, none of them empty.

    Returns:
        (N,) predictions.
    """
    centre = embeddings.mean(axis=0, dtype=np.float64)
    parts = [
        _Part(embeddings[fold == number] - centre, target[fold == number].astype(np.float64))
        for number in range(fold.max() + 1)
    ]
    sums = [_Sums.of(part) for part in parts]
    whole = _Sums.total(sums)
    penalties = np.array(STRENGTHS) * np.trace(whole.products) / embeddings.shape[1]

    # Leaving out fold a, then b, is leaving out b, then a: one fit of each pair serves both.
    errors = np.zeros((len(parts), len(penalties)))
    for one, two in combinations(range(len(parts)), 2):
        rest = [part for number, part in enumerate(sums) if number not in (one, two)]
        weights, mean, middle = _ridge(_Sums.total(rest), penalties)
        for outer, inner in ((one, two), (two, one)):
            missed = (parts[inner].x - mean) @ weights + middle - parts[inner].y[:, np.newaxis]
            errors[outer] += (missed**2).sum(axis=0)
    predicted = np.empty(len(target))
    for number, part in enumerate(parts):
        rest = [other for place, other in enumerate(sums) if place != number]
        best = penalties[[np.argmin(errors[number])]]
        weights, mean, middle = _ridge(_Sums.total(rest), best)
        predicted[fold == number] = ((part.x - mean) @ weights)[:, 0] + middle
    return predicted


@dataclass(frozen=True)
class _Part:
    """The images of one fold, about the centre of all."""

    x: Floats
    y: Floats


@dataclass(frozen=True)
class _Sums:
    """All that least squares needs to know of some images."""

    n: int
    x: Floats
    y: float
    products: Floats
    with_target: Floats

    @classmethod
    def of(cls, part: _Part) -> "_Sums":
        x, y = part.x, part.y
        return cls(len(y), x.sum(axis=0), float(y.sum()), x.T @ x, x.T @ y)

    @classmethod
    def total(cls, sums: "list[_Sums]") -> "_Sums":
        return cls(
            sum(one.n for one in sums),
            np.sum([one.x for one in sums], axis=0),
            sum(one.y for one in sums),
            np.sum([one.products for one in sums], axis=0),
            np.sum([one.with_target for one in sums], axis=0),
        )


def _ridge(sums: _Sums, penalties: Floats) -> tuple[Floats, Floats, float]:
    """Weights (D, K) for K penalties, the mean embedding, and the mean target: no penalty on it."""
    mean, middle = sums.x / sums.n, sums.y / sums.n
    variances, axes = np.linalg.eigh(sums.products - sums.n * np.outer(mean, mean))
    along = axes.T @ (sums.with_target - sums.n * middle * mean)
    # Rounding may leave a direction without variance a little below 0.
    shrunk = along[:, np.newaxis] / (np.maximum(variances, 0)[:, np.newaxis] + penalties)
    return axes @ shrunk, mean, middle
