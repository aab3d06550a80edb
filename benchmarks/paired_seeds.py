"""Trainings of two methods with the same seeds, compared on the same test images by patient."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurecache.runs.predictions import Predictions

N_BOOTSTRAP = 1000
MIN_PATIENTS = 5


@dataclass(frozen=True)
class PairedSeeds:
    """Macro AUROC over the labels with at least five test patients of both kinds.

    Attributes:
        first: Mean over the seeds of the first method.
        other: Mean over the seeds of the other one.
        interval: 95 % interval of the difference, by a bootstrap over patients and seeds.
    """

    first: float
    other: float
    interval: tuple[float, float]

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.other - self.first:+.4f} [{low:+.4f}, {high:+.4f}]"


def compare_seeds(first: Sequence[Predictions], other: Sequence[Predictions]) -> PairedSeeds:
    """Compare the trainings of two methods, in the order of the same seeds."""
    test = np.flatnonzero(first[0].splits == "test")
    patients, owner = np.unique(first[0].patients[test], return_inverse=True)
    labels = supported(first[0].truth[test], owner)
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(patients), size=(N_BOOTSTRAP, len(patients)))
    counts = np.stack([np.bincount(one, minlength=len(patients)) for one in drawn])
    weights = np.concatenate([np.ones((1, len(test))), counts[:, owner]])
    # (method, seed, sample); the first sample is the data as they are.
    aurocs = np.array(
        [[macro_aurocs(run, test, labels, weights) for run in method] for method in (first, other)]
    )
    differences = aurocs[1] - aurocs[0]
    seeds = rng.integers(len(first), size=(N_BOOTSTRAP, len(first)))
    samples = np.take_along_axis(differences[:, 1:].T, seeds, axis=1).mean(axis=1)
    low, high = np.nanpercentile(samples, [2.5, 97.5])
    means = aurocs[:, :, 0].mean(axis=1)
    return PairedSeeds(float(means[0]), float(means[1]), (float(low), float(high)))


def supported(truth: NDArray[np.int8], owner: NDArray[np.intp]) -> list[int]:
    """Return the labels with enough patients that have a positive, and a negative, image."""
    return [
        label
        for label in range(truth.shape[1])
        if all(len(np.unique(owner[truth[:, label] == value])) >= MIN_PATIENTS for value in (0, 1))
    ]


def macro_aurocs(
    run: Predictions,
    test: NDArray[np.intp],
    labels: Sequence[int],
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the macro AUROC of n images for each row of weights, (S, n).

    It is NaN where a label has no AUROC.
    """
    values = []
    for label in labels:
        truth, score = run.truth[test, label], run.probability[test, label]
        positive, negative = (np.flatnonzero(truth == value) for value in (1, 0))
        # The AUROC is the share of pairs of a positive and a negative that are in order.
        in_order = np.sign(score[positive, None] - score[negative]) / 2 + 0.5
        pairs = weights[:, positive].sum(axis=1) * weights[:, negative].sum(axis=1)
        won = ((weights[:, positive] @ in_order) * weights[:, negative]).sum(axis=1)
        values.append(np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0))
    return np.asarray(np.mean(values, axis=0))
