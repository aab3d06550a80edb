"""AUROC and rates of decisions, of images of patients, with the covariances between them.

The influence of a patient is how much an estimate changes with the patient's weight. The sum of
their squares is the variance over patients: for proportions that of the linearized ratio, and for
the AUROC that of Obuchowski (Biometrics 53, 1997), from DeLong's structural components. The sum of
their products is the covariance of two estimates, also of groups of images that share patients. No
random numbers are needed, and each estimate takes O(N log N).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from featurecache.metrics.bootstrap import PatientResamples, patient_confusions
from featurecache.metrics.delong import Placements
from featurecache.metrics.intervals import EffectivePatients, score_intervals
from featurecache.metrics.ranking import AnyFloats, Floats, Labels, ratio, valid_mask

_RATES: Final = {"recall": (1, True), "specificity": (0, False), "fpr": (0, True)}
"""By metric, the label whose share of decisions it is, and which decisions."""
METRICS: Final = ("auroc", *_RATES)
_BISECTIONS: Final = 24
_SMALLEST_P: Final = 1e-12


@dataclass(frozen=True, eq=False)
class ClusteredEstimates:
    """One metric of M columns of labels.

    Attributes:
        metric: Its name, one of ``METRICS``.
        values: (M,) estimates; NaN where undefined.
        influence: (P, M) influence of each patient; 0 where undefined.
        patients: Effective numbers of patients of each column.
    """

    metric: str
    values: Floats
    influence: Floats
    patients: EffectivePatients

    @cached_property
    def variances(self) -> Floats:
        """The variance of each estimate over patients, (M,)."""
        variances: Floats = (self.influence**2).sum(axis=0)
        return variances

    def intervals(self, *, error: float | Floats = 0.05) -> tuple[Floats, Floats]:
        """Return lower and upper bounds, (M,) each; see ``score_intervals``."""
        return score_intervals(self.metric, self.values, self.variances, self.patients, error=error)

    def differences(
        self,
        first: NDArray[np.intp],
        second: NDArray[np.intp],
        *,
        error: float | Floats = 0.05,
    ) -> tuple[Floats, Floats, Floats]:
        """Return the differences of pairs of columns with their intervals.

        The interval is put together from those of both (Newcombe 1998; MOVER, Zou 2007), with the
        correlation of estimates that share patients.

        Args:
            first: (T,) columns.
            second: (T,) columns that are subtracted from them.
            error: The share of intervals that may miss the true difference, or such shares, (T,).

        Returns:
            Differences, lower and upper bounds, (T,) each.
        """
        return _Difference(self, first, second).bounds(error)

    def p_values(self, first: NDArray[np.intp], second: NDArray[np.intp]) -> Floats:
        """Return the p value of each difference, (T,): the error at which its interval excludes 0.

        Args:
            first: (T,) columns.
            second: (T,) columns that they are compared with.
        """
        pairs = _Difference(self, first, second)
        low, high = np.full(len(first), np.log(_SMALLEST_P)), np.zeros(len(first))
        for _ in range(_BISECTIONS if len(first) else 0):
            middle = (low + high) / 2
            _, below, above = pairs.bounds(np.exp(middle))
            excluded = (below > 0) | (above < 0)
            low, high = np.where(excluded, low, middle), np.where(excluded, middle, high)
        undefined = np.isnan(self.values[first] - self.values[second])
        p: Floats = np.where(undefined, np.nan, np.exp(high))
        return p


class _Difference:
    """Differences of T pairs of estimates, of which all that is of both is computed once."""

    def __init__(
        self, estimates: ClusteredEstimates, first: NDArray[np.intp], second: NDArray[np.intp]
    ) -> None:
        columns, influence = np.concatenate([first, second]), estimates.influence
        self.both = ClusteredEstimates(
            estimates.metric,
            estimates.values[columns],
            influence[:, columns],
            estimates.patients.of_labels(columns),
        )
        one, two = np.split(np.sqrt(self.both.variances), 2)
        covariance = (influence[:, first] * influence[:, second]).sum(axis=0)
        self.correlation = np.nan_to_num(ratio(covariance, one * two))

    def bounds(self, error: float | Floats) -> tuple[Floats, Floats, Floats]:
        """Return the differences and their lower and upper bounds."""
        errors = np.broadcast_to(error, len(self.correlation))
        low, high = self.both.intervals(error=np.tile(errors, 2))
        (one, two), (low1, low2), (high1, high2) = (
            np.split(values, 2) for values in (self.both.values, low, high)
        )

        def distance(of_first: Floats, of_second: Floats) -> Floats:
            shared = 2 * self.correlation * of_first * of_second
            root: Floats = np.sqrt(np.maximum(of_first**2 + of_second**2 - shared, 0))
            return root

        return (
            one - two,
            one - two - distance(one - low1, high2 - two),
            one - two + distance(high1 - one, two - low2),
        )


def clustered_estimates(
    metric: str,
    truth: Labels,
    predicted: NDArray[np.bool_],
    ranking: AnyFloats,
    patient_index: NDArray[np.intp],
) -> ClusteredEstimates:
    """Estimate a metric of each column of labels.

    Args:
        metric: "auroc", "recall" (sensitivity), "specificity" or "fpr" (1 - specificity).
        truth: (N, M) labels 1, 0 or -1 (unknown, or not in the group that the column is of).
        predicted: (N, M) binary decisions.
        ranking: (N, M) scores for the AUROC.
        patient_index: (N,) index of each row's patient, from 0 to P - 1.

    Returns:
        The estimates.

    Raises:
        ValueError: As `valid_mask`.
    """
    valid_mask(truth, ranking)
    n_patients = int(patient_index.max()) + 1
    values = np.full(truth.shape[1], np.nan)
    influence = np.zeros((n_patients, truth.shape[1]))
    for c, (labels, decided, scores) in enumerate(
        zip(truth.T, predicted.T, ranking.T, strict=True)
    ):
        positive, negative = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
        if metric == "auroc":
            if not (len(positive) and len(negative)):
                continue
            placements = Placements.of(scores[positive], scores[negative])
            parts = [(positive, placements.positive), (negative, placements.negative)]
        else:
            label, decision = _RATES[metric]
            rows = positive if label else negative
            if not len(rows):
                continue
            parts = [(rows, (decided[rows] == decision).astype(np.float64))]
        values[c] = parts[0][1].mean()
        for rows, shares in parts:
            deviations = (shares - values[c]) / len(rows)
            influence[:, c] += np.bincount(patient_index[rows], deviations, n_patients)
    nothing = PatientResamples(patient_index, np.empty((0, n_patients), dtype=np.int32))
    confusions = patient_confusions(truth, predicted, nothing)
    return ClusteredEstimates(metric, values, influence, EffectivePatients.count(confusions))
