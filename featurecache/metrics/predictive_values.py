"""Predictive values at a stated prevalence, from sensitivity and specificity.

The share of positives in a test set is seldom that of the patients in whom a model will be used,
and both predictive values depend on it. By Bayes' theorem, PPV and NPV are functions of the
likelihood ratios, sensitivity / (1 - specificity) and (1 - sensitivity) / specificity, and rise or
fall with them.
"""

import math
from collections.abc import Mapping, Sequence

from featurecache.errors import UnknownNameError, UsageError
from featurecache.metrics.document import Document, Interval, Score

Prevalence = float | Mapping[str, float]
"""A prevalence for all labels, or prevalences by label."""


class PredictiveIntervals(Document):
    """Confidence intervals of predictive values."""

    ppv: Interval | None = None
    npv: Interval | None = None


class PredictiveValues(Document):
    """Predictive values of one label at a stated prevalence.

    Attributes:
        prevalence: The stated share of positives.
        ppv: Share of positives among those that are called positive.
        npv: Share of negatives among those that are called negative.
        ci95: Their 95 % intervals over patients, from those of sensitivity and specificity.
    """

    prevalence: Score
    ppv: Score | None
    npv: Score | None
    ci95: PredictiveIntervals = PredictiveIntervals()


Bounds = tuple[float, float] | None


def predictive_values(
    sensitivity: float | None,
    specificity: float | None,
    prevalence: float,
    *,
    sensitivity_ci: Bounds = None,
    specificity_ci: Bounds = None,
) -> PredictiveValues:
    """Return PPV and NPV at a prevalence.

    Intervals are those of the likelihood ratios (`ratio_interval`). They are for sensitivity and
    specificity that are estimated independently, and so a little too wide where patients have both
    positive and negative images.

    Args:
        sensitivity: The sensitivity; None where undefined.
        specificity: The specificity; None where undefined.
        prevalence: Share of positives, above 0 and below 1.
        sensitivity_ci: Its interval; None for no intervals.
        specificity_ci: Its interval; None for no intervals.
    """
    if sensitivity is None or specificity is None:
        return PredictiveValues(prevalence=prevalence, ppv=None, npv=None)
    odds = prevalence / (1 - prevalence)
    found, missed = sensitivity, 1 - sensitivity
    cleared, alarmed = specificity, 1 - specificity
    ppv_ci = npv_ci = None
    if sensitivity_ci is not None and specificity_ci is not None:
        low, high = ratio_interval(found, sensitivity_ci, alarmed, _flip(specificity_ci))
        ppv_ci = (_share(odds * low), _share(odds * high))
        low, high = ratio_interval(missed, _flip(sensitivity_ci), cleared, specificity_ci)
        npv_ci = (1 - _share(odds * high), 1 - _share(odds * low))
    ppv = None if found == alarmed == 0 else _share(_divide(odds * found, alarmed))
    npv = None if missed == cleared == 0 else 1 - _share(_divide(odds * missed, cleared))
    return PredictiveValues(
        prevalence=prevalence,
        ppv=ppv,
        npv=npv,
        ci95=PredictiveIntervals(
            ppv=None if ppv is None else ppv_ci, npv=None if npv is None else npv_ci
        ),
    )


def ratio_interval(
    a: float, a_ci: tuple[float, float], b: float, b_ci: tuple[float, float]
) -> tuple[float, float]:
    """Return the interval of a / b from those of both: MOVER-R (Donner and Zou 2012).

    Args:
        a: Numerator, 0 or more.
        a_ci: Its interval.
        b: Denominator, 0 or more.
        b_ci: Its interval.

    Returns:
        Lower and upper bound; the upper one may be infinite.
    """
    (l1, u1), (l2, u2) = a_ci, b_ci

    def root(x: float, y: float) -> float:
        return math.sqrt(max((a * b) ** 2 - x * y * (2 * a - x) * (2 * b - y), 0.0))

    # The smaller root by the product of both, which does not cancel, and has a limit at b = 0.
    below = _divide(l1 * (2 * a - l1), a * b + root(l1, u2)) if l1 > 0 else 0.0
    return below, _divide(a * b + root(u1, l2), l2 * (2 * b - l2))


def resolve_prevalence(prevalence: Prevalence, labels: Sequence[str]) -> dict[str, float]:
    """Return the stated prevalence of each label that has one.

    Raises:
        UnknownNameError: There is no such label.
        UsageError: A prevalence is not above 0 and below 1.
    """
    if not isinstance(prevalence, Mapping):
        prevalence = dict.fromkeys(labels, prevalence)
    for label, value in prevalence.items():
        if label not in labels:
            raise UnknownNameError("label", label, labels)
        if not 0 < value < 1:
            raise UsageError(f"`prevalence` is {value}: must be above 0 and below 1")
    return dict(prevalence)


def stated_prevalence(prevalence: Prevalence | None) -> float | dict[str, float] | None:
    """Return a prevalence as a run's config records it."""
    return dict(prevalence) if isinstance(prevalence, Mapping) else prevalence


def _flip(interval: tuple[float, float]) -> tuple[float, float]:
    return 1 - interval[1], 1 - interval[0]


def _divide(a: float, b: float) -> float:
    return a / b if b > 0 else math.inf


def _share(odds: float) -> float:
    return 1.0 if math.isinf(odds) else odds / (1 + odds)
