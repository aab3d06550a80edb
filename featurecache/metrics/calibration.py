"""Calibration: calibration error, Brier score, slope and intercept, calibration in the large.

Intervals are analytic. Variances come from sums over patients, since images of a patient resemble
each other, and quantiles are those of Student's t distribution, since few positive patients tell
little about a variance. ``benchmarks/calibration_coverage.py`` measures bias and coverage.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from featurecache.metrics.bootstrap import none_if_nan
from featurecache.metrics.label_support import NOT_LEARNED, PatientSupport, patient_support
from featurecache.metrics.metrics import Calibration
from featurecache.metrics.platt_scaling import (
    PlattScaling,
    fit_logistic,
    log_odds,
    logistic_design,
)
from featurecache.metrics.ranking import AnyFloats, Floats, Labels, ratio

BINS: Final = 15
"""Number of equal-width bins of the calibration error, as in Guo et al. 2017."""

NO_SLOPE: Final = (
    "the probabilities separate positives from negatives, or are all equal, so that none is the "
    "most likely"
)

_UPPER_TAIL: Final = 0.975


def bin_of(probability: Floats, bins: int = BINS) -> NDArray[np.intp]:
    """Return the index of the equal-width bin of each probability; 1 is in the last bin."""
    return np.minimum((probability * bins).astype(np.intp), bins - 1)


def t_quantiles(support: PatientSupport) -> Floats:
    """Return how many standard errors a label's 95 % interval reaches on either side, (C,).

    With k positive or negative patients, whichever are fewer, it is the quantile of Student's t
    distribution with k - 1 degrees of freedom.
    """
    from scipy.special import stdtrit

    degrees = np.maximum(np.minimum(support.positive, support.negative) - 1, 1)
    quantiles: Floats = stdtrit(degrees, _UPPER_TAIL)
    return quantiles


def calibration_errors(
    truth: Labels, probability: Floats, patient_index: NDArray[np.intp], quantiles: Floats
) -> Floats:
    """Return the debiased calibration error of each label and of all together, with intervals.

    The error is the root of the mean over images of the squared gap of their bin: the difference
    between mean probability and fraction of positives in one of 15 equal-width bins. Chance alone
    makes gaps: the expected square of a gap is its true square plus its variance. The variances
    are subtracted (Kumar et al. 2019, "Verified Uncertainty Calibration", here with variances over
    patients); what remains below 0 is 0. A bin with a single patient has no variance, and counts
    as calibrated.

    The mean square T is a quadratic form in gaps that are about normal, with expectation
    ``square + trace`` and variance ``2 trace2 + 4 r square``. The interval holds each square that
    T does not reject, as Wilson's does for a proportion, with the larger of two estimates for
    ``r`` and for ``trace2``.

    Args:
        truth: (N, C) labels 1, 0 or -1 (unknown), of which each has known ones.
        probability: (N, C) in 0 to 1.
        patient_index: (N,) index of each row's patient, 0 or more.
        quantiles: (C,) standard errors on either side, as of ``t_quantiles``; averages
            take the mean.

    Returns:
        (3, C + 1) the errors and their lower and upper bounds. The last column is the error over
        the bins of all labels, where each label has the same weight.
    """
    from scipy.sparse import csr_array

    n_labels = truth.shape[1]
    n_bins = n_labels * BINS
    rows, label = np.nonzero(truth >= 0)
    patient = patient_index[rows]
    p = probability[rows, label]
    bins = label * BINS + bin_of(p)
    n_known = np.bincount(label, minlength=n_labels)
    n = _sums(bins, np.ones(len(bins)), n_bins)
    difference = p - truth[rows, label]
    gap = ratio(_sums(bins, difference, n_bins), n)
    residual = difference - gap[bins]
    shape = (int(patient_index.max()) + 1, n_bins)
    residuals = csr_array((residual, (patient, bins)), shape=shape)  # sums within patients
    n_patients = np.bincount(residuals.indices, minlength=n_bins).astype(np.float64)
    usable = n_patients > 1
    gap = np.where(usable, gap, 0)
    # n - 1 in the denominator of the variance, since residuals are from the mean of the same rows.
    scale = np.where(usable, ratio(np.sqrt(ratio(n_patients, n_patients - 1)), n), 0)
    residuals.data *= scale[residuals.indices]
    covariance = (residuals.T @ residuals).toarray()
    weight = n / np.repeat(n_known, BINS)

    def by_label(values: Floats) -> Floats:
        return _sums(np.repeat(np.arange(n_labels), BINS), values, n_labels)

    squares = by_label(weight * gap**2)
    traces = by_label(weight * covariance.diagonal())
    weighted = weight[:, np.newaxis] * covariance
    products = (weighted * weighted.T).reshape(n_labels, BINS, n_labels, BINS).sum(axis=(1, 3))
    # The variance of few residuals may be too small by chance. It is not taken to be smaller than
    # that of independent images with these probabilities.
    variance = ratio(_sums(bins, p * (1 - p), n_bins), n**2)
    independent = by_label(np.where(usable, weight * variance, 0) ** 2)
    np.fill_diagonal(products, np.maximum(products.diagonal(), independent))
    # What each patient contributes to the mean square, by its residuals and by its numbers of
    # images in the bins.
    contribution = 2 * (weight * gap * scale)[bins] * residual
    contribution += (gap[bins] ** 2 - squares[label]) / n_known[label]
    return _error_intervals(
        _with_mean(squares),
        _with_mean(traces),
        np.append(products.diagonal(), products.mean()),
        _variances(patient, label, contribution, n_labels),
        _with_mean(quantiles),
    )


def _error_intervals(
    total: Floats, trace: Floats, trace2: Floats, variance: Floats, quantile: Floats
) -> Floats:
    """Return roots of debiased mean squares with their bounds, (3, K); see the caller."""
    square = total - trace
    r = np.fmax(ratio(trace2, trace), ratio(variance, 4 * total))
    r[np.isnan(r)] = 0  # no variance at all: every bin is exactly right, or wrong by a constant
    center = square + 2 * quantile**2 * r
    discriminant = 4 * r * square + 4 * (quantile * r) ** 2 + 2 * trace2
    half = quantile * np.sqrt(np.maximum(discriminant, 0))
    low, high = np.minimum(center - half, square), np.maximum(center + half, square)
    roots: Floats = np.sqrt(np.clip([square, low, high], 0, 1))
    return roots


def brier_scores(
    truth: Labels, probability: Floats, patient_index: NDArray[np.intp], quantiles: Floats
) -> Floats:
    """Return the Brier score of each label, the mean squared error of its probability.

    Args:
        truth: As for ``calibration_errors``.
        probability: As for ``calibration_errors``.
        patient_index: As for ``calibration_errors``.
        quantiles: As for ``calibration_errors``.

    Returns:
        (3, C + 1) the scores and their lower and upper bounds. The last column is their mean.
    """
    rows, label = np.nonzero(truth >= 0)
    n_labels = truth.shape[1]
    error = (probability[rows, label] - truth[rows, label]) ** 2
    n_known = np.bincount(label, minlength=n_labels)
    means = _sums(label, error, n_labels) / n_known
    contribution = (error - means[label]) / n_known[label]
    variances = _variances(patient_index[rows], label, contribution, n_labels)
    estimates = _wald(_with_mean(means), variances, _with_mean(quantiles))
    return np.clip(estimates, 0, 1)


def calibration_slopes(
    truth: Labels, probability: Floats, patient_index: NDArray[np.intp], quantiles: Floats
) -> Floats:
    """Return the calibration slope of each label (Cox 1958; Van Calster et al. 2019).

    It is the slope of a logistic regression of the label on the log odds of the probability.

    Args:
        truth: As for ``calibration_errors``.
        probability: As for ``calibration_errors``.
        patient_index: As for ``calibration_errors``.
        quantiles: As for ``calibration_errors``.

    Returns:
        (3, C) the slopes and their lower and upper bounds; NaN where no slope is the most likely
        one, since the probabilities are all equal or separate the classes.
    """
    from scipy.special import expit

    slopes = np.full((3, truth.shape[1]), np.nan)
    for c, (y, logits, patient) in enumerate(_known(truth, probability, patient_index)):
        positive, negative = logits[y == 1], logits[y == 0]
        # Equal probabilities of all images are among these.
        if positive.min() >= negative.max() or positive.max() <= negative.min():
            continue
        std = logits.std()
        design = logistic_design(logits / std)
        weights = fit_logistic(design, y, np.array([std, 0]))  # from a slope of 1
        p = expit(design @ weights)
        inverse = np.linalg.inv((design.T * (p * (1 - p))) @ design)
        by_patient = np.array([np.bincount(patient, column * (y - p)) for column in design.T])
        influence = inverse[0] @ by_patient
        variance = max(influence @ influence, inverse[0, 0])
        slopes[:, c] = _wald(weights[0], variance, quantiles[c]) / std
    return slopes


def calibration_intercepts(
    truth: Labels, probability: Floats, patient_index: NDArray[np.intp], quantiles: Floats
) -> Floats:
    """Return the calibration intercept of each label, or calibration in the large.

    It is the summand to the log odds with which the mean probability is the fraction of positives:
    the intercept of a logistic regression whose slope is 1.

    Args:
        truth: As for ``calibration_errors``.
        probability: As for ``calibration_errors``.
        patient_index: As for ``calibration_errors``.
        quantiles: As for ``calibration_errors``.

    Returns:
        (3, C) the intercepts and their lower and upper bounds.
    """
    from scipy.optimize import brentq
    from scipy.special import expit, logit

    intercepts = np.full((3, truth.shape[1]), np.nan)
    for c, (y, logits, patient) in enumerate(_known(truth, probability, patient_index)):
        fraction = y.mean()

        def excess(intercept: float, logits: Floats = logits, fraction: float = fraction) -> float:
            return float(expit(logits + intercept).mean() - fraction)

        low, high = logit(fraction) - logits.max(), logit(fraction) - logits.min()
        intercept = low if low == high else brentq(excess, low, high)
        p = expit(logits + intercept)
        information = (p * (1 - p)).sum()
        by_patient = np.bincount(patient, y - p)
        variance = max(by_patient @ by_patient, information) / information**2
        intercepts[:, c] = _wald(intercept, variance, quantiles[c])
    return intercepts


def calibration_in_the_large(
    truth: Labels, probability: Floats, patient_index: NDArray[np.intp], quantiles: Floats
) -> Floats:
    """Return the fraction of positives minus the mean probability of each label.

    Args:
        truth: As for ``calibration_errors``.
        probability: As for ``calibration_errors``.
        patient_index: As for ``calibration_errors``.
        quantiles: As for ``calibration_errors``.

    Returns:
        (3, C) the differences and their lower and upper bounds.
    """
    totals = _Totals.of(truth, probability, patient_index)
    differences = (totals.observed - totals.expected) / totals.n_known
    variances = totals.variance(np.ones_like(differences)) / totals.n_known**2
    return np.clip(_wald(differences, variances, quantiles), -1, 1)


def observed_to_expected(
    truth: Labels, probability: Floats, patient_index: NDArray[np.intp], quantiles: Floats
) -> Floats:
    """Return the number of positives over the sum of the probabilities of each label.

    The interval is symmetric for the logarithm of the ratio (Debray et al., BMJ 356, 2017).

    Args:
        truth: As for ``calibration_errors``.
        probability: As for ``calibration_errors``.
        patient_index: As for ``calibration_errors``.
        quantiles: As for ``calibration_errors``.

    Returns:
        (3, C) the ratios and their lower and upper bounds; NaN where either number is 0.
    """
    totals = _Totals.of(truth, probability, patient_index)
    ratios = ratio(totals.observed, np.where(totals.observed > 0, totals.expected, 0))
    variances = ratio(totals.variance(np.nan_to_num(ratios)), totals.observed**2)
    return np.exp(_wald(np.log(ratios), variances, quantiles))


@dataclass(frozen=True)
class _Totals:
    """Sums of C labels and probabilities over the known ones, (C,), and by P patients, (P, C)."""

    n_known: Floats
    observed: Floats
    expected: Floats
    observed_of: Floats
    expected_of: Floats
    of_independent: Floats
    known_of: Floats

    @classmethod
    def of(cls, truth: Labels, probability: Floats, patient_index: NDArray[np.intp]) -> Self:
        known = truth >= 0
        n_patients = int(patient_index.max()) + 1

        def by_patient(values: Floats) -> Floats:
            columns = [_sums(patient_index, column, n_patients) for column in values.T]
            return np.stack(columns, axis=1)

        p = np.where(known, probability, 0)
        observed_of, expected_of = by_patient((truth == 1).astype(np.float64)), by_patient(p)
        return cls(
            n_known=known.sum(axis=0).astype(np.float64),
            observed=observed_of.sum(axis=0),
            expected=expected_of.sum(axis=0),
            observed_of=observed_of,
            expected_of=expected_of,
            of_independent=(p * (1 - p)).sum(axis=0),
            known_of=by_patient(known.astype(np.float64)),
        )

    def variance(self, factor: Floats) -> Floats:
        """Return the variances of observed minus factor times expected numbers, (C,).

        They are over patients, and not smaller than those of independent images.
        """
        residual = self.observed_of - factor * self.expected_of
        mean = residual.sum(axis=0) / self.n_known
        of_patients = ((residual - mean * self.known_of) ** 2).sum(axis=0)
        variances: Floats = np.maximum(of_patients, self.of_independent)
        return variances


def _known(
    truth: Labels, probability: Floats, patient_index: NDArray[np.intp]
) -> "list[tuple[Floats, Floats, NDArray[np.intp]]]":
    """Return of each label the known labels as floats, their log odds and their patients."""
    logits = log_odds(probability)
    return [
        (truth[known, c].astype(np.float64), logits[known, c], patient_index[known])
        for c, known in enumerate((truth >= 0).T)
    ]


def _sums(index: NDArray[np.intp], values: Floats, length: int) -> Floats:
    """Return the sum of the values at each index, (length,)."""
    return np.bincount(index, values, length).astype(np.float64, copy=False)


def _with_mean(values: Floats) -> Floats:
    return np.append(values, values.mean())


def _variances(
    patient: NDArray[np.intp], label: NDArray[np.intp], contribution: Floats, n_labels: int
) -> Floats:
    """Return the variances of C scores and of their mean, from what each entry contributes."""
    shape = (int(patient.max()) + 1, n_labels)
    by_patient = _sums(patient * n_labels + label, contribution, shape[0] * n_labels).reshape(shape)
    return np.append((by_patient**2).sum(axis=0), (by_patient.mean(axis=1) ** 2).sum())


def _wald(value: Any, variance: Any, quantile: Any) -> Floats:
    distance = quantile * np.sqrt(variance)
    return np.array([value, value - distance, value + distance])


def measure_calibration(
    truth: Labels,
    probability: AnyFloats,
    platt: PlattScaling,
    *,
    label_names: Sequence[str],
    patients: NDArray[Any],
    learned: NDArray[np.bool_],
    intervals: bool = True,
) -> Calibration:
    """Measure the calibration of probabilities before and after Platt scaling.

    Args:
        truth: (N, C) labels 1, 0 or -1 (unknown) of the images that are scored.
        probability: (N, C) predicted probabilities.
        platt: Platt scaling of their log odds, fitted on validation images. A label without one
            keeps its probabilities.
        label_names: C names.
        patients: (N,) patient of each image.
        learned: (C,) whether training had positives and negatives of the label.
        intervals: Whether to return intervals.

    Returns:
        The calibration; undefined for labels that were not learned or have too
        few patients (``patient_support``).
    """
    patient_index = np.unique(patients, return_inverse=True)[1]
    support = patient_support(truth, patient_index)
    measured = np.flatnonzero(support.enough & learned).tolist()
    calibrated = platt(log_odds(probability))
    quantiles = t_quantiles(support)[measured]
    labels: list[dict[str, Any]] = [{} for _ in label_names]
    macro: dict[str, Any] = {}
    for stage, p in (
        ("before", probability.astype(np.float64)),
        ("after", np.where(np.isnan(calibrated), probability, calibrated)),
    ):
        estimates = {
            name: score(truth[:, measured], p[:, measured], patient_index, quantiles)
            for name, score in _SCORES.items()
            if len(measured)
        }
        for column, c in enumerate(measured):
            labels[c][stage] = _document(estimates, column, intervals)
            if labels[c][stage]["calibration_slope"] is None:
                labels[c]["no_slope"] = NO_SLOPE
        averages = {name: values for name, values in estimates.items() if name in _AVERAGED}
        macro[stage] = _document(averages, -1, intervals)
    return Calibration.model_validate(
        {
            "labels": [label_names[c] for c in measured],
            "macro": macro,
            "per_label": {
                label: {
                    "before": {},
                    "after": {},
                    **labels[c],
                    "slope": none_if_nan(platt.slope[c]),
                    "intercept": none_if_nan(platt.intercept[c]),
                    "reason": platt.reasons[c],
                    "undefined_reason": support.reason(c) if learned[c] else NOT_LEARNED,
                }
                for c, label in enumerate(label_names)
            },
        }
    )


_SCORES: Final = {
    "error": calibration_errors,
    "brier": brier_scores,
    "calibration_slope": calibration_slopes,
    "calibration_intercept": calibration_intercepts,
    "observed_minus_predicted": calibration_in_the_large,
    "observed_to_expected": observed_to_expected,
}
_AVERAGED: Final = ("error", "brier")


def _document(estimates: Mapping[str, Floats], column: int, intervals: bool) -> dict[str, Any]:
    bounds = {
        name: tuple(values[1:, column].tolist())
        for name, values in estimates.items()
        if intervals and np.isfinite(values[:, column]).all()
    }
    scores = {name: none_if_nan(values[0, column]) for name, values in estimates.items()}
    return {**scores, "ci95": bounds}
