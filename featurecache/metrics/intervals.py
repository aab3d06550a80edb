"""95 % confidence intervals that hold with few patients.

A score interval holds every true value that the estimate is compatible with: all values from which
it is at most ``t`` standard errors away, where the standard error is the one *under that value*.
Wilson (1927) did this for proportions, and Newcombe (2006, method 5) for the AUROC, with the
standard error of Hanley and McNeil (1982). Unlike percentiles of a bootstrap, such intervals hold
with a handful of patients, contain their estimate, and stay in [0, 1].

These formulas are for independent observations. Here they count patients, as if the images of a
patient were one image, and a bootstrap over patients corrects them: the variance is a weighted mean
of the formula, worth `PRIOR_DF` patients, and of the bootstrap, worth as many as there are (the
moderated variance of Smyth 2004).

docs/engineering/statistics.md has the coverage in simulations.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

from featurecache.metrics.ranking import Floats, macro, ratio

PRIOR_DF: Final = 10.0
"""Number of patients that the formula of a variance is worth beside the bootstrap."""
_BISECTIONS: Final = 40

Interval = tuple[float, float]

_BEHIND: Final = {
    "precision": "predicted",
    "recall": "positive",
    "specificity": "negative",
    "fpr": "negative",
    "npv": "not_predicted",
    "f1": "in_f1",
    "accuracy": "known",
    "auroc": "both",
    "auprc": "positive",
}
"""By metric, the patients that it is computed from; a field of `EffectivePatients`."""


@dataclass(frozen=True)
class EffectivePatients:
    """Effective numbers of patients: (sum of images)^2 / (sum of squared images) (Kish 1965).

    It is the number of patients where all have as many images, and smaller where some have more.

    Attributes:
        positive: (C,) patients with positive images.
        negative: (C,) patients with negative images.
        predicted: (C,) patients with images that are predicted positive.
        not_predicted: (C,) patients with images that are predicted negative.
        in_f1: (C,) patients with images that are positive or predicted positive.
        known: (C,) patients with images whose label is known.
    """

    positive: Floats
    negative: Floats
    predicted: Floats
    not_predicted: Floats
    in_f1: Floats
    known: Floats

    @property
    def both(self) -> Floats:
        """The smaller of the numbers with positive and with negative images."""
        smaller: Floats = np.minimum(self.positive, self.negative)
        return smaller

    @classmethod
    def count(cls, confusions: Floats) -> "EffectivePatients":
        """Count patients.

        Args:
            confusions: (P, C, 2, 2) confusion matrices [[tn, fp], [fn, tp]] of each patient.
        """
        by_truth, by_prediction = confusions.sum(axis=-1), confusions.sum(axis=-2)
        known = by_truth.sum(axis=-1)
        return cls(
            positive=effective_number(by_truth[..., 1]),
            negative=effective_number(by_truth[..., 0]),
            predicted=effective_number(by_prediction[..., 1]),
            not_predicted=effective_number(by_prediction[..., 0]),
            in_f1=effective_number(known - confusions[..., 0, 0]),
            known=effective_number(known),
        )

    @classmethod
    def mean(cls, counts: "Sequence[EffectivePatients]") -> "EffectivePatients":
        """Return the mean over several trainings, which predict different images."""
        names = [field.name for field in fields(cls)]
        return cls(**{n: np.mean([getattr(one, n) for one in counts], axis=0) for n in names})

    def of_labels(self, columns: NDArray[np.intp]) -> "EffectivePatients":
        """Return the numbers of some labels."""
        names = [field.name for field in fields(self)]
        return EffectivePatients(**{name: getattr(self, name)[columns] for name in names})

    def behind(self, metric: str) -> Floats:
        """Return the numbers that a metric is computed from."""
        numbers: Floats = getattr(self, _BEHIND[metric])
        return numbers


def effective_number(images: Floats) -> Floats:
    """Return the effective number of patients with (P, ...) images each, at least 1."""
    total, squares = images.sum(axis=0), (images**2).sum(axis=0)
    effective: Floats = np.maximum(np.nan_to_num(ratio(total**2, squares)), 1)
    return effective


def label_intervals(
    metric: str, values: Floats, samples: Floats, patients: EffectivePatients
) -> tuple[Floats, Floats]:
    """Return the score intervals of one metric of C labels.

    Args:
        metric: Name of the metric, such as "auroc".
        values: (C,) values.
        samples: (B, C) values on bootstrap samples of the patients; NaN where undefined.
        patients: Patients behind the C values.

    Returns:
        Lower and upper bounds, (C,) each; NaN where the value is.
    """
    return score_intervals(metric, values, _variance(samples), patients)


def score_intervals(
    metric: str,
    values: Floats,
    variances: Floats,
    patients: EffectivePatients,
    *,
    error: float | Floats = 0.05,
) -> tuple[Floats, Floats]:
    """Return the score intervals of one metric of C labels, from variances over patients.

    Args:
        metric: Name of the metric, such as "auroc".
        values: (C,) values.
        variances: (C,) their variances over patients, of a bootstrap or of sums over patients.
        patients: Patients behind the C values.
        error: The share of intervals that may miss the true value, or such shares, (C,).

    Returns:
        Lower and upper bounds, (C,) each; NaN where the value is.
    """
    from scipy.special import stdtrit

    n_patients = patients.behind(metric)
    squared_t = stdtrit(PRIOR_DF + n_patients - 1, 1 - np.asarray(error) / 2) ** 2
    correction = _correction(metric, values, variances, patients)

    def too_far(theta: Floats) -> NDArray[np.bool_]:
        allowed = squared_t * correction * variance(metric, theta, patients)
        far: NDArray[np.bool_] = (values - theta) ** 2 > allowed
        return far

    # Both searches at once, between each value and either end of [0, 1].
    near, far = np.stack([values, values]), np.stack([np.zeros_like(values), np.ones_like(values)])
    for _ in range(_BISECTIONS):
        middle = (far + near) / 2
        outside = too_far(middle)
        far, near = np.where(outside, middle, far), np.where(outside, near, middle)
    return near[0], near[1]


def macro_interval(
    metric: str,
    values: Floats,
    samples: Floats,
    patients: EffectivePatients,
    *,
    trainings: Floats | None = None,
) -> Interval:
    """Return the interval of the mean of a metric over labels.

    Its variance adds up those of the labels, each in the middle of the label's own interval, with
    the correlations between labels in the bootstrap samples. A label with few patients, whose
    bootstrap values hardly vary, so brings its full uncertainty into the mean (as in MOVER; Zou and
    Donner 2008). The interval is that of a proportion of the same variance.

    Args:
        metric: Name of the metric.
        values: (C,) values.
        samples: (B, C) values on bootstrap samples of the patients; NaN where undefined.
        patients: Patients behind the C values.
        trainings: (S,) the metric's mean in each of S trainings, of which ``values`` and
            ``samples`` are means; None for a single one.

    Returns:
        Lower and upper bound.
    """
    low, high = label_intervals(metric, values, samples, patients)
    if len(values) == 1 and trainings is None:
        return float(low[0]), float(high[0])
    middle = (low + high) / 2
    correction = _correction(metric, values, _variance(samples), patients)
    corrected = correction * variance(metric, middle, patients)
    errors = np.sqrt(corrected) / len(values)
    of_patients = float(errors @ _correlation(samples) @ errors)
    expected = float(middle.mean())
    mean = float(values.mean() if trainings is None else trainings.mean())
    below, above = _wilson(mean, expected * (1 - expected), of_patients, np.inf, trainings)
    if metric == "auprc":
        # Average precision is too high where positives are few, in the data as in the samples.
        bias = float(np.nan_to_num(macro(samples.T) - values).mean())
        below = max(below - max(bias, 0), 0)
    return below, above


def pooled_interval(
    value: float, samples: Floats, n_patients: float, *, trainings: Floats | None = None
) -> Interval:
    """Return the interval of a metric over the pooled images or entries of all patients.

    It is Wilson's, with as many observations as have the bootstrap's variance (Korn and Graubard
    1998), and Student's t for ``n_patients - 1`` degrees of freedom. Where nothing varies, each
    patient is one observation.

    Args:
        value: The value.
        samples: (B,) values on bootstrap samples of the patients.
        n_patients: Effective number of patients.
        trainings: As for `macro_interval`.

    Returns:
        Lower and upper bound.
    """
    n_patients = max(n_patients, 2.0)
    spread, unit = value * (1 - value), n_patients / (n_patients - 1)
    of_patients = unit * float(_variance(samples[:, np.newaxis])[0])
    if not (spread > 0 and of_patients > 0):
        spread, of_patients = 1.0, 1 / n_patients
    return _wilson(value, spread, of_patients, n_patients - 1, trainings)


def variance(metric: str, theta: Floats, patients: EffectivePatients) -> Floats:
    """Return the variance of a metric whose true value is theta, for one image per patient.

    The AUROC's is that of Hanley and McNeil (Radiology 143, 1982) as in Newcombe's method 5 (2006):
    where pairs depend on each other, both numbers are replaced by their mean. That of AUPRC is the
    one of a proportion of positives (Boyd, Eng and Page 2013). F1 is 2 j / (1 + j) of the
    proportion j = tp / (tp + fp + fn).

    Args:
        metric: Name of the metric.
        theta: (C,) true values.
        patients: Patients of each label.

    Returns:
        (C,) variances.
    """
    n_patients = patients.behind(metric)
    if metric == "auroc":
        others = (patients.positive + patients.negative) / 2 - 1
        dependence = 1 + others * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        of_pairs: Floats = theta * (1 - theta) / (patients.positive * patients.negative)
        return of_pairs * dependence
    of_proportion: Floats = theta * (1 - theta) / n_patients
    return of_proportion * (2 - theta) ** 2 / 2 if metric == "f1" else of_proportion


def _correction(
    metric: str, values: Floats, variances: Floats, patients: EffectivePatients
) -> Floats:
    """Return the (C,) factors that correct the formula of the variance."""
    n_patients = patients.behind(metric)
    # n / (n - 1) times the bootstrap's variance is unbiased; with n - 1 as its weight, n is left.
    bootstrap = n_patients * ratio(variances, variance(metric, values, patients))
    # At 0 and 1 neither the formula nor the bootstrap says anything of the other.
    bootstrap = np.where(np.isnan(bootstrap), n_patients - 1, bootstrap)
    correction: Floats = (PRIOR_DF + bootstrap) / (PRIOR_DF + n_patients - 1)
    return correction


def _wilson(
    value: float, spread: float, variance: float, dof: float, trainings: Floats | None
) -> Interval:
    """Return Wilson's interval of a proportion of ``spread / variance`` observations.

    The variance of several trainings is added, and Student's t has the degrees of freedom of
    Welch and Satterthwaite.
    """
    from scipy.special import stdtrit

    if trainings is not None and len(trainings) > 1:
        of_trainings = float(trainings.var(ddof=1)) / len(trainings)
        total = variance + of_trainings
        weights = variance**2 / dof + of_trainings**2 / (len(trainings) - 1)
        variance, dof = total, total**2 / weights if weights > 0 else np.inf
    t = float(stdtrit(dof, 0.975)) if np.isfinite(dof) else 1.959963984540054
    x = t**2 * variance / spread  # t^2 / n
    middle, half = (value + x / 2) / (1 + x), np.sqrt(x * (value * (1 - value) + x / 4)) / (1 + x)
    # Rounding must not move a bound past the value or out of [0, 1].
    return max(min(middle - half, value), 0.0), min(max(float(middle + half), value), 1.0)


def _correlation(samples: Floats) -> Floats:
    """Return the (C, C) correlations between columns, 0 with a column that does not vary."""
    centered = np.nan_to_num(_centered(samples))
    norms = np.sqrt((centered**2).sum(axis=0))
    normed = centered / np.where(norms > 0, norms, 1)
    correlation: Floats = normed.T @ normed
    np.fill_diagonal(correlation, 1)
    return correlation


def _variance(samples: Floats) -> Floats:
    """Return the variance of each column, over the samples in which it is defined."""
    squares = np.nan_to_num(_centered(samples)) ** 2
    n_defined = (~np.isnan(samples)).sum(axis=0)
    variance: Floats = squares.sum(axis=0) / np.maximum(n_defined - 1, 1)
    return variance


def _centered(samples: Floats) -> Floats:
    """Subtract the mean of each column, over the samples in which it is defined."""
    centered: Floats = samples - macro(samples.T)
    return centered
