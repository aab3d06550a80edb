"""Platt scaling: log odds become calibrated ones by a slope above 0 and an intercept."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.metrics.label_support import IN_VALIDATION, NOT_LEARNED, patient_support
from featurecache.metrics.metrics import Calibration, Metrics
from featurecache.metrics.ranking import AnyFloats, Floats, Labels, valid_mask
from featurecache.wording import count_noun

FOLDS: Final = 5
"""Folds of the cross-validation that decides whether Platt scaling helps."""

_NOT_HIGHER: Final = "on validation images, the scores of positives are not higher"
_NO_GAIN: Final = "in cross-validation on the validation images it does not lower the log loss"

_IN_SHORT: Final = {
    NOT_LEARNED: "without positive or without negative training images",
    IN_VALIDATION: "with too few validation patients",
    _NOT_HIGHER: "whose positives score no higher than their negatives on validation images",
    _NO_GAIN: "that it would not improve",
}
"""By the start of a reason, the labels that it holds for."""

_EPSILON: Final = 1e-12


@dataclass(frozen=True)
class PlattScaling:
    """Platt scaling of C labels: ``p = sigmoid(slope * score + intercept)``.

    Every slope is above 0, so that it keeps the ranking of a label's images.

    Attributes:
        slope: (C,), above 0; NaN for a label without Platt scaling.
        intercept: (C,); NaN for a label without Platt scaling.
        reasons: C reasons why a label has none; None where it has one.
    """

    slope: Floats
    intercept: Floats
    reasons: tuple[str | None, ...]

    @classmethod
    def none(cls, n_labels: int, reason: str) -> "PlattScaling":
        """Return that of labels without Platt scaling."""
        undefined = np.full(n_labels, np.nan)
        return cls(undefined, undefined, (reason,) * n_labels)

    def of_labels(self, columns: Sequence[int]) -> "PlattScaling":
        """Return that of some labels, in this order."""
        reasons = tuple(self.reasons[c] for c in columns)
        return PlattScaling(self.slope[columns], self.intercept[columns], reasons)

    def __call__(self, score: AnyFloats) -> Floats:
        """Return calibrated probabilities (N, C) of scores (N, C); NaN without Platt scaling."""
        from scipy.special import expit

        probability: Floats = expit(self.slope * score.astype(np.float64) + self.intercept)
        return probability


def read_calibration(metrics: Metrics, labels: Sequence[str]) -> PlattScaling | None:
    """Return the Platt scaling that a run's metrics hold, in the order of ``labels``.

    Raises:
        KeyError: The metrics are of other labels.
    """
    if metrics.calibration is None:
        return None
    fitted = [metrics.calibration.per_label[label] for label in labels]

    def column(name: str) -> Floats:
        return np.array([getattr(label, name) for label in fitted], dtype=np.float64)

    return PlattScaling(
        column("slope"), column("intercept"), tuple(label.reason for label in fitted)
    )


def describe_platt(calibration: Calibration) -> str:
    """Return which labels have it: "applied to 1 of 3 labels. Not applied to: 2 that ..."."""
    reasons = [label.reason for label in calibration.per_label.values()]
    counts = Counter(
        next(
            (text for start, text in _IN_SHORT.items() if reason.startswith(start)),
            f"because {reason}",
        )
        for reason in reasons
        if reason is not None
    )
    without = ", ".join(f"{count} {text}" for text, count in counts.items())
    scaled = f"applied to {reasons.count(None)} of {count_noun(len(reasons), 'label')}"
    return f"{scaled}. Not applied to: {without}" if without else scaled


def fit_platt(truth: Labels, score: AnyFloats) -> PlattScaling:
    """Fit a slope above 0 and an intercept per label by maximum likelihood on soft targets.

    Platt 1999, "Probabilistic outputs for support vector machines": a positive gets the target
    (n+ + 1) / (n+ + 2) and a negative 1 / (n- + 2), so that scores which separate the two classes
    do not drive the slope to infinity.

    The likelihood is concave: if its maximum is at a slope of 0 or below, every slope above 0 fits
    worse than a constant, and there is no Platt scaling.

    Args:
        truth: (N, C) labels 1, 0 or -1 (unknown) of images that the model was not trained on.
        score: (N, C) log odds.

    Returns:
        The fit, with the reason for each label without one.

    Raises:
        ValueError: As ``valid_mask``.
    """
    valid = valid_mask(truth, score)
    parameters = np.full((2, truth.shape[1]), np.nan)
    reasons: list[str | None] = []
    for c, mask in enumerate(valid.T):
        positive = truth[mask, c] == 1
        reason = None
        if positive.all() or not positive.any():
            reason = f"no validation image is {'negative' if positive.any() else 'positive'}"
        else:
            parameters[:, c] = _fit_label(positive, score[mask, c].astype(np.float64))
            if np.isnan(parameters[0, c]):
                reason = _NOT_HIGHER
        reasons.append(reason)
    slope, intercept = parameters
    return PlattScaling(slope, intercept, tuple(reasons))


def fit_platt_where_it_helps(
    truth: Labels, score: AnyFloats, patients: NDArray[Any], *, learned: NDArray[np.bool_]
) -> PlattScaling:
    """Fit Platt scaling to the labels whose probabilities it improves.

    A label gets none if it was not learned, if too few patients support it (``patient_support``),
    or if cross-validation on the same images finds that it does not help: the patients are dealt
    into 5 folds, those with a positive image evenly, and each fold is calibrated by the fit to the
    others. The log loss over all images has to be lower than that of the probabilities as they are.

    Args:
        truth: (N, C) labels 1, 0 or -1 (unknown) of the validation images.
        score: (N, C) log odds.
        patients: (N,) patient of each image.
        learned: (C,) whether training had positives and negatives of the label.

    Returns:
        The fit, with the reason for each label without one.

    Raises:
        ValueError: As ``valid_mask``.
    """
    patient_index = np.unique(patients, return_inverse=True)[1]
    support = patient_support(truth, patient_index)
    platt = fit_platt(np.where(support.enough & learned, truth, -1), score)
    slope, intercept, reasons = platt.slope.copy(), platt.intercept.copy(), list(platt.reasons)
    for c in range(truth.shape[1]):
        if not learned[c]:
            reasons[c] = NOT_LEARNED
        elif not support.enough[c]:
            reasons[c] = f"{IN_VALIDATION}{support.reason(c)}"
        elif not np.isnan(slope[c]):
            known = truth[:, c] >= 0
            before, after = _held_out_log_loss(
                truth[known, c] == 1,
                score[known, c].astype(np.float64),
                patient_index[known],
                (slope[c], intercept[c]),
            )
            if not after < before:
                slope[c] = intercept[c] = np.nan
                reasons[c] = f"{_NO_GAIN} ({before:.4f} without, {after:.4f} with it)"
    return PlattScaling(slope, intercept, tuple(reasons))


def _held_out_log_loss(
    positive: NDArray[np.bool_],
    score: Floats,
    patient_index: NDArray[np.intp],
    fit: tuple[float, float],
) -> Floats:
    """Return the log loss of the probabilities as they are, and of held-out Platt scaling.

    Args:
        positive: (N,) labels.
        score: (N,) log odds.
        patient_index: (N,) index of each row's patient.
        fit: Slope and intercept of the fit to all rows, where those of the folds start.
    """
    _, patient = np.unique(patient_index, return_inverse=True)
    has_positive = np.bincount(patient, positive) > 0
    shuffled = np.random.default_rng(0).permutation(len(has_positive))
    fold = np.empty(len(has_positive), dtype=np.intp)
    fold[np.lexsort((shuffled, ~has_positive))] = np.arange(len(fold)) % FOLDS
    calibrated = score.copy()
    for number in range(FOLDS):
        held_out = fold[patient] == number
        slope, intercept = _fit_label(positive[~held_out], score[~held_out], fit)
        if not np.isnan(slope):  # else this fold would have no Platt scaling either
            calibrated[held_out] = slope * score[held_out] + intercept
    logits = np.stack([score, calibrated])
    losses: Floats = (np.logaddexp(0, logits) - positive * logits).mean(axis=1)
    return losses


def _fit_label(
    positive: NDArray[np.bool_], score: Floats, start: tuple[float, float] = (0, 0)
) -> tuple[float, float]:
    """Return slope and intercept; NaN if a class is missing or the slope is not above 0."""
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if n_positive == 0 or n_negative == 0 or np.ptp(score) == 0:
        return np.nan, np.nan
    target = np.where(positive, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    std = float(score.std())
    slope, intercept = fit_logistic(
        logistic_design(score / std), target, np.array([start[0] * std, start[1]])
    )
    # A slope of rounding errors would make ties of different scores.
    return (slope / std, intercept) if slope > _EPSILON else (np.nan, np.nan)


def logistic_design(score: Floats) -> Floats:
    """Return the columns of a logistic regression on a score: the score and the intercept."""
    return np.stack([score, np.ones(len(score))], axis=1)


def fit_logistic(design: Floats, target: Floats, start: Floats | None = None) -> Floats:
    """Fit a logistic regression to soft targets by SciPy's trust-region Newton method.

    scikit-learn's LogisticRegression takes soft targets only as doubled, weighted rows; that gives
    the same numbers to 1e-8 but takes 18 times as long for 10,000 images and 15 labels.

    Args:
        design: (N, K), scaled so that the weights are of order 1.
        target: (N,) in 0 to 1.
        start: (K,) weights to start from, near the fit where one is known; None for zeros.

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
        np.zeros(design.shape[1]) if start is None else start,
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
    return float(fit_logistic(design, target)[0]) / std


def log_odds(probability: AnyFloats) -> Floats:
    """Return ``ln(p / (1 - p))``, with p clipped to 1e-12 from 0 and 1."""
    from scipy.special import logit

    odds: Floats = logit(np.clip(probability.astype(np.float64), _EPSILON, 1 - _EPSILON))
    return odds
