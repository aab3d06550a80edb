"""Whether probabilities are those of the world: Platt's correction and the calibration error."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from featurecache.metrics.bootstrap import (
    PatientResamples,
    ci_or_none,
    none_if_nan,
    resample_patients,
)
from featurecache.metrics.ranking import AnyFloats, Floats, Labels, macro, ratio, valid_mask

BINS: Final = 15
"""Of the calibration error, as in Guo et al. 2017."""
_SMALLEST: Final = 1e-12


@dataclass(frozen=True)
class PlattScaling:
    """Per label, ``p = sigmoid(slope * score + intercept)``; (C,) each, NaN where none was fitted.

    It keeps the ranking of a label's images, unless its slope is negative: then the scores ranked
    the validation images the wrong way round.
    """

    slope: Floats
    intercept: Floats

    def __call__(self, score: AnyFloats) -> Floats:
        """Calibrated probabilities (N, C) of scores (N, C)."""
        from scipy.special import expit

        probability: Floats = expit(self.slope * score.astype(np.float64) + self.intercept)
        return probability


def fit_platt(truth: Labels, score: AnyFloats) -> PlattScaling:
    """Fit a slope and an intercept per label, by maximum likelihood on Platt's soft targets.

    Platt 1999, "Probabilistic outputs for support vector machines": a positive counts as
    (n+ + 1) / (n+ + 2) and a negative as 1 / (n- + 2), so that scores which separate the two
    classes do not drive the slope to infinity.

    Args:
        truth: (N, C) labels 1, 0 or -1 of images that the scores were not learned from.
        score: (N, C) log-odds.

    Returns:
        NaN for a label without both classes.

    Raises:
        ValueError: as ``valid_mask``.
    """
    known = valid_mask(truth, score)
    fitted = [
        _fit_label(truth[mask, c] == 1, score[mask, c].astype(np.float64))
        for c, mask in enumerate(known.T)
    ]
    return PlattScaling(*np.array(fitted, dtype=np.float64).reshape(-1, 2).T)


def _fit_label(positive: npt.NDArray[np.bool_], score: Floats) -> tuple[float, float]:
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if n_positive == 0 or n_negative == 0:
        return np.nan, np.nan
    target = np.where(positive, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    if np.ptp(score) == 0:  # any slope will do
        return 0.0, float(log_odds(target.mean()))
    width = float(score.std())
    design = np.stack([score / width, np.ones(len(score))], axis=1)
    slope, intercept = _fit_logistic(design, target)
    return slope / width, intercept


def _fit_logistic(design: Floats, target: Floats) -> Floats:
    """The weights (K,) of a logistic regression on soft targets, by Newton's method (scipy's).

    Args:
        design: (N, K), in units in which the weights are about 1.
        target: (N,) in 0 to 1.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    def loss(weights: Floats) -> float:
        odds = design @ weights
        return float((np.logaddexp(0, odds) - target * odds).mean())

    def gradient(weights: Floats) -> Floats:
        slope: Floats = (expit(design @ weights) - target) @ design / len(design)
        return slope

    def hessian(weights: Floats) -> Floats:
        p = expit(design @ weights)
        curvature: Floats = (design.T * (p * (1 - p))) @ design / len(design)
        return curvature

    found: Floats = minimize(
        loss,
        np.zeros(design.shape[1]),
        jac=gradient,
        hess=hessian,
        method="trust-exact",
        options={"gtol": 1e-9},
    ).x
    return found


def fit_common_slope(truth: Labels, score: AnyFloats) -> float:
    """Fit one slope for all labels, with an intercept for each, as ``fit_platt`` fits both.

    The intercepts are let go: they keep the slope from speaking of which label is frequent, so that
    it is how much a score says within a label.

    Args:
        truth: (N, C) labels 1, 0 or -1 of images that the scores were not learned from.
        score: (N, C) on one scale.

    Returns:
        NaN where no label has both classes.

    Raises:
        ValueError: as ``valid_mask``.
    """
    known = valid_mask(truth, score)
    positive, negative = (((truth == value) & known).sum(axis=0) for value in (1, 0))
    known &= (positive > 0) & (negative > 0)
    entries = truth[known]
    labels = np.nonzero(known)[1]
    values = score[known].astype(np.float64)
    if len(entries) == 0 or np.ptp(values) == 0:
        return np.nan
    target = np.where(
        entries == 1,
        (positive[labels] + 1) / (positive[labels] + 2),
        1 / (negative[labels] + 2),
    )
    width = float(values.std())
    _, label = np.unique(labels, return_inverse=True)
    design = np.concatenate([values[:, np.newaxis] / width, np.eye(label.max() + 1)[label]], axis=1)
    return float(_fit_logistic(design, target)[0]) / width


def log_odds(probability: AnyFloats) -> Floats:
    """``ln(p / (1 - p))``, with p kept 1e-12 away from 0 and 1."""
    from scipy.special import logit

    odds: Floats = logit(np.clip(probability.astype(np.float64), _SMALLEST, 1 - _SMALLEST))
    return odds


def calibration_errors(
    truth: Labels, probability: Floats, resamples: PatientResamples | None = None
) -> Floats:
    """The expected calibration error per label, (C,), or of draws of patients, (draws, C).

    Over 15 equal bins of the probability, the mean distance between a bin's mean probability and
    its share of positives, weighted by the bin's images (Guo et al. 2017, here of the probability
    of a finding). With few images it is biased upwards: even perfect probabilities do not score 0.

    Args:
        truth: (N, C) labels 1, 0 or -1.
        probability: (N, C) in 0 to 1; NaN in the column of a label without a calibration.
        n_bootstrap: of the patients of the N rows.

    Returns:
        NaN for a label of which nothing is known, or whose probabilities are NaN.
    """
    return _binned_error(truth, probability, resamples, power=1, bins=BINS)


def bin_of(probability: Floats, bins: int = BINS) -> npt.NDArray[np.intp]:
    """Which of so many equal bins each probability is in; 1 is in the last."""
    return np.minimum((probability * bins).astype(np.intp), bins - 1)


def brier_scores(
    truth: Labels, probability: Floats, resamples: PatientResamples | None = None
) -> Floats:
    """The mean squared distance of probability and label, arguments and shapes as above."""
    return _binned_error(truth, probability, resamples, power=2, bins=1)


def _binned_error(
    truth: Labels,
    probability: Floats,
    resamples: PatientResamples | None,
    *,
    power: int,
    bins: int,
) -> Floats:
    """Per label, what the gaps between probability and label add up to, over its known images.

    Gaps are taken to a power and added up in bins, and then the bins' distances from 0.
    """
    columns = []
    for c in range(truth.shape[1]):
        known = (truth[:, c] >= 0) & ~np.isnan(probability[:, c])
        p = probability[known, c]
        gaps = (p - truth[known, c]) ** power
        columns += [
            _per_patient_sums(known, gaps, resamples, of=bin_of(p, bins), number=bins),
            _per_patient_sums(known, np.ones(len(p)), resamples),
        ]
    sums = _drawn(columns, resamples).reshape(-1, truth.shape[1], bins + 1)
    means = ratio(np.abs(sums[..., :bins]).sum(axis=-1), sums[..., bins])
    return means[0] if resamples is None else means


def _per_patient_sums(
    known: npt.NDArray[np.bool_],
    values: Floats,
    resamples: PatientResamples | None,
    *,
    of: npt.NDArray[np.intp] | int = 0,
    number: int = 1,
) -> Floats:
    """The sums of the known rows' values in each group and of each patient: (P, number).

    Args:
        known: (N,) with K rows known.
        values: (K,).
        n_bootstrap: of the patients of the N rows; None counts all rows as those of one patient.
        of: (K,) the group of each known row.
        number: of groups.
    """
    if resamples is None:
        patients, of_row = 1, np.zeros(len(known), dtype=np.intp)
    else:
        patients, of_row = resamples.counts.shape[1], resamples.patient_of_row
    sums = np.bincount(of_row[known] * number + of, values, patients * number)
    return sums.astype(np.float64, copy=False).reshape(patients, number)


def _drawn(columns: list[Floats], resamples: PatientResamples | None) -> Floats:
    """Sums of patients, (P, K) in all, to those of draws, (draws, K); None for one of each."""
    by_patient = np.concatenate(columns, axis=1)
    return by_patient if resamples is None else resamples.counts.astype(np.float64) @ by_patient


def calibration_document(
    truth: Labels,
    score: AnyFloats,
    probability: AnyFloats,
    platt: PlattScaling,
    *,
    label_names: tuple[str, ...],
    patients: npt.NDArray[np.str_],
    n_bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """What ``metrics.json`` says of calibration: errors before and after Platt's correction.

    Both sides of the macro averages are over the same labels, those with a correction.

    Args:
        truth: (N, C) of the images that are scored.
        score: (N, C) log-odds that the correction applies to.
        probability: (N, C) as predicted.
        platt: fitted on validation images.
        label_names: C names.
        patients: (N,).
        n_bootstrap: number of bootstrap samples over patients.
        seed: of the draws.
    """
    samples = resample_patients(patients, n_bootstrap=n_bootstrap, seed=seed)
    fitted = ~np.isnan(platt.slope)
    sides = {
        "before": np.where(fitted, probability.astype(np.float64), np.nan),
        "after": platt(score),
    }
    errors = {"ece": calibration_errors, "brier": brier_scores}
    document: dict[str, Any] = {
        "macro": {
            side: {name: none_if_nan(macro(error(truth, p))) for name, error in errors.items()}
            for side, p in sides.items()
        },
        "ci95": {
            side: {
                name: ci_or_none(macro(error(truth, p, samples))) for name, error in errors.items()
            }
            for side, p in sides.items()
        },
        "per_label": {},
    }
    for c, label in enumerate(label_names):
        document["per_label"][label] = {
            "slope": none_if_nan(platt.slope[c]),
            "intercept": none_if_nan(platt.intercept[c]),
            **{
                side: {
                    name: none_if_nan(error(truth[:, [c]], p[:, [c]])[0])
                    for name, error in errors.items()
                }
                for side, p in sides.items()
            },
        }
    return document
