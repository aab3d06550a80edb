"""Calibration: Platt scaling, expected calibration error and Brier score."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from featurecache.metrics.bootstrap import (
    PatientResamples,
    interval,
    none_if_nan,
)
from featurecache.metrics.metrics import Calibration, LabelCalibration
from featurecache.metrics.ranking import AnyFloats, Floats, Labels, macro, ratio, valid_mask

BINS: Final = 15
"""Number of bins of the expected calibration error, as in Guo et al. 2017."""

_EPSILON: Final = 1e-12

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class PlattScaling:
    """Platt scaling of C labels: ``p = sigmoid(slope * score + intercept)``.

    It keeps the ranking of a label's images, unless the slope is negative, which means that the
    scores ranked the validation images the wrong way round.

    Attributes:
        slope: (C,), NaN where none was fitted.
        intercept: (C,), NaN where none was fitted.
    """

    slope: Floats
    intercept: Floats

    def __call__(self, score: AnyFloats) -> Floats:
        """Return the calibrated probabilities (N, C) of scores (N, C)."""
        from scipy.special import expit

        probability: Floats = expit(self.slope * score.astype(np.float64) + self.intercept)
        return probability


def fit_platt(truth: Labels, score: AnyFloats) -> PlattScaling:
    """Fit a slope and an intercept per label by maximum likelihood on Platt's soft targets.

    Platt 1999, "Probabilistic outputs for support vector machines": a positive gets the target
    (n+ + 1) / (n+ + 2) and a negative 1 / (n- + 2), so that scores which separate the two classes
    do not drive the slope to infinity.

    Args:
        truth: (N, C) labels 1, 0 or -1 (unknown) of images that the model was not trained on.
        score: (N, C) log-odds.

    Returns:
        The fit, NaN for a label that lacks positives or negatives.

    Raises:
        ValueError: As ``valid_mask``.
    """
    valid = valid_mask(truth, score)
    parameters = [
        _fit_label(truth[mask, c] == 1, score[mask, c].astype(np.float64))
        for c, mask in enumerate(valid.T)
    ]
    return PlattScaling(*np.array(parameters, dtype=np.float64).reshape(-1, 2).T)


def _fit_label(positive: NDArray[np.bool_], score: Floats) -> tuple[float, float]:
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if n_positive == 0 or n_negative == 0:
        return np.nan, np.nan
    target = np.where(positive, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    if np.ptp(score) == 0:  # every slope fits equally well
        return 0.0, float(log_odds(target.mean()))
    std = float(score.std())
    design = np.stack([score / std, np.ones(len(score))], axis=1)
    slope, intercept = _fit_logistic(design, target)
    return slope / std, intercept


def _fit_logistic(design: Floats, target: Floats) -> Floats:
    """Fit a logistic regression to soft targets by SciPy's trust-region Newton method.

    scikit-learn's LogisticRegression takes soft targets only as doubled, weighted rows; that gives
    the same numbers to 1e-8 but takes 18 times as long for 10,000 images and 15 labels.

    Args:
        design: (N, K), scaled so that the weights are of order 1.
        target: (N,) in 0 to 1.

    Returns:
        (K,) weights.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    def loss(weights: Floats) -> float:
        logits = design @ weights
        return float((np.logaddexp(0, logits) - target * logits).mean())

    def gradient(weights: Floats) -> Floats:
        slope: Floats = (expit(design @ weights) - target) @ design / len(design)
        return slope

    def hessian(weights: Floats) -> Floats:
        p = expit(design @ weights)
        curvature: Floats = (design.T * (p * (1 - p))) @ design / len(design)
        return curvature

    weights: Floats = minimize(
        loss,
        np.zeros(design.shape[1]),
        jac=gradient,
        hess=hessian,
        method="trust-exact",
        options={"gtol": 1e-9},
    ).x
    return weights


def fit_common_slope(truth: Labels, score: AnyFloats) -> float:
    """Fit one slope for all labels, with an intercept per label, as ``fit_platt`` fits both.

    The intercepts are discarded. They absorb the prevalence of the labels, so that the slope
    measures how informative a score is within a label.

    Args:
        truth: (N, C) labels 1, 0 or -1 (unknown) of images that the model was not trained on.
        score: (N, C), all labels on one scale.

    Returns:
        The slope; NaN if no label has both positives and negatives.

    Raises:
        ValueError: As ``valid_mask``.
    """
    valid = valid_mask(truth, score)
    n_positive, n_negative = (((truth == value) & valid).sum(axis=0) for value in (1, 0))
    valid &= (n_positive > 0) & (n_negative > 0)
    labels = np.nonzero(valid)[1]
    values = score[valid].astype(np.float64)
    if len(values) == 0 or np.ptp(values) == 0:
        return np.nan
    target = np.where(
        truth[valid] == 1,
        (n_positive[labels] + 1) / (n_positive[labels] + 2),
        1 / (n_negative[labels] + 2),
    )
    std = float(values.std())
    _, label = np.unique(labels, return_inverse=True)
    design = np.concatenate([values[:, np.newaxis] / std, np.eye(label.max() + 1)[label]], axis=1)
    return float(_fit_logistic(design, target)[0]) / std


def log_odds(probability: AnyFloats) -> Floats:
    """Return ``ln(p / (1 - p))``, with p clipped to 1e-12 from 0 and 1."""
    from scipy.special import logit

    odds: Floats = logit(np.clip(probability.astype(np.float64), _EPSILON, 1 - _EPSILON))
    return odds


def calibration_errors(
    truth: Labels, probability: Floats, resamples: PatientResamples | None = None
) -> Floats:
    """Return the expected calibration error (ECE) of each label.

    Over 15 equal-width bins of the probability, the ECE is the mean distance between a bin's mean
    probability and its fraction of positives, weighted by the number of images in the bin (Guo et
    al. 2017, here for the probability of the positive class). With few images it is biased
    upwards: even perfect probabilities have an error above 0.

    Args:
        truth: (N, C) labels 1, 0 or -1 (unknown).
        probability: (N, C) in 0 to 1; NaN in the column of a label without calibration.
        resamples: B bootstrap samples of the patients of the N rows; None for the data itself.

    Returns:
        (C,), or (B, C) with ``resamples``; NaN for a label without known entries, or with NaN
        probabilities.
    """
    return _binned_error(truth, probability, resamples, power=1, bins=BINS)


def bin_of(probability: Floats, bins: int = BINS) -> NDArray[np.intp]:
    """Return the index of the equal-width bin of each probability; 1 is in the last bin."""
    return np.minimum((probability * bins).astype(np.intp), bins - 1)


def brier_scores(
    truth: Labels, probability: Floats, resamples: PatientResamples | None = None
) -> Floats:
    """Return the Brier score of each label: the mean squared error of the probability.

    Args:
        truth: As for ``calibration_errors``.
        probability: As for ``calibration_errors``.
        resamples: As for ``calibration_errors``.

    Returns:
        As for ``calibration_errors``.
    """
    return _binned_error(truth, probability, resamples, power=2, bins=1)


def _binned_error(
    truth: Labels,
    probability: Floats,
    resamples: PatientResamples | None,
    *,
    power: int,
    bins: int,
) -> Floats:
    """Sum ``(probability - label) ** power`` within bins, and average the bins' absolute sums."""
    data = resamples
    if data is None:  # all rows are those of one patient, in one sample
        data = PatientResamples(np.zeros(len(truth), np.intp), np.ones((1, 1), np.int32))
    n_patients = data.counts.shape[1]

    def sum_by_patient(rows: NDArray[np.bool_], values: Floats, bin_: Any, n: int) -> Floats:
        sums = np.bincount(data.patient_index[rows] * n + bin_, values, n_patients * n)
        return sums.astype(np.float64, copy=False).reshape(n_patients, n)

    columns = []
    for c in range(truth.shape[1]):
        valid = (truth[:, c] >= 0) & ~np.isnan(probability[:, c])
        p = probability[valid, c]
        errors = (p - truth[valid, c]) ** power
        columns.append(sum_by_patient(valid, errors, bin_of(p, bins), bins))
        columns.append(sum_by_patient(valid, np.ones(len(p)), 0, 1))
    sums = data.counts.astype(np.float64) @ np.concatenate(columns, axis=1)
    sums = sums.reshape(-1, truth.shape[1], bins + 1)
    means = ratio(np.abs(sums[..., :bins]).sum(axis=-1), sums[..., bins])
    return means[0] if resamples is None else means


def measure_calibration(
    truth: Labels,
    score: AnyFloats,
    probability: AnyFloats,
    platt: PlattScaling,
    *,
    label_names: Sequence[str],
    resamples: PatientResamples,
) -> Calibration:
    """Compute calibration errors before and after Platt scaling.

    Both macro averages are over the same labels: those with a Platt scaling.

    Args:
        truth: (N, C) labels of the images that are scored.
        score: (N, C) log-odds that the Platt scaling applies to.
        probability: (N, C) predicted probabilities.
        platt: Fitted on validation images.
        label_names: C names.
        resamples: Bootstrap samples of the patients of these images.

    Returns:
        The errors, with intervals of the macro averages.
    """
    has_platt = ~np.isnan(platt.slope)
    probabilities = {
        "before": np.where(has_platt, probability.astype(np.float64), np.nan),
        "after": platt(score),
    }

    def errors(samples: PatientResamples | None) -> dict[str, dict[str, Floats]]:
        return {
            stage: {
                "ece": calibration_errors(truth, p, samples),
                "brier": brier_scores(truth, p, samples),
            }
            for stage, p in probabilities.items()
        }

    def reduce(
        stages: Mapping[str, Mapping[str, Floats]], value_of: Callable[[Floats], _Value]
    ) -> dict[str, dict[str, _Value]]:
        return {
            stage: {name: value_of(values) for name, values in metrics.items()}
            for stage, metrics in stages.items()
        }

    def label_calibration(c: int) -> LabelCalibration:
        return LabelCalibration.model_validate(
            {
                "slope": none_if_nan(platt.slope[c]),
                "intercept": none_if_nan(platt.intercept[c]),
                **reduce(of_labels, lambda values: none_if_nan(values[c])),
            }
        )

    of_labels = errors(None)
    return Calibration.model_validate(
        {
            "macro": reduce(of_labels, lambda values: none_if_nan(macro(values))),
            "ci95": reduce(errors(resamples), lambda values: interval(macro(values))),
            "per_label": {label: label_calibration(c) for c, label in enumerate(label_names)},
        }
    )
