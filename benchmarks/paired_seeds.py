"""Trainings of two methods with the same seeds, compared on the same test images by patient."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

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
    runs = (first, other)
    test = np.flatnonzero(first[0].splits == "test")
    patients, owner = np.unique(first[0].patients[test], return_inverse=True)
    labels = supported(first[0].truth[test], owner)
    rng = np.random.default_rng(0)

    def aurocs(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the macro AUROC of each method and seed."""
        return np.array(
            [[macro_auroc(run, test, labels, weights[owner]) for run in method] for method in runs]
        )

    estimate = aurocs(np.ones(len(patients))).mean(axis=1)
    differences = []
    for _ in range(N_BOOTSTRAP):
        sample = rng.integers(len(patients), size=len(patients))
        drawn = aurocs(np.bincount(sample, minlength=len(patients)).astype(np.float64))
        chosen = rng.integers(len(first), size=len(first))
        differences.append((drawn[1] - drawn[0])[chosen].mean())
    low, high = np.nanpercentile(differences, [2.5, 97.5])
    return PairedSeeds(float(estimate[0]), float(estimate[1]), (float(low), float(high)))


def supported(truth: NDArray[np.int8], owner: NDArray[np.intp]) -> list[int]:
    """Return the labels with enough patients that have a positive, and a negative, image."""
    return [
        label
        for label in range(truth.shape[1])
        if all(len(np.unique(owner[truth[:, label] == value])) >= MIN_PATIENTS for value in (0, 1))
    ]


def macro_auroc(
    run: Predictions,
    test: NDArray[np.intp],
    labels: Sequence[int],
    weights: NDArray[np.float64],
) -> float:
    """Return the macro AUROC of weighted images; NaN where a label has no AUROC."""
    values = []
    for label in labels:
        truth = run.truth[test, label]
        if len(np.unique(truth[weights > 0])) < 2:
            return float("nan")
        values.append(roc_auc_score(truth, run.probability[test, label], sample_weight=weights))
    return float(np.mean(values))
