"""Split-conformal prediction of each label: present, absent, or unsure.

The answer "absent" is given where a probability is too low for a positive image, "present" where it
is too high for a negative one, and "unsure" where it is neither or both. The two limits come from
validation patients, one class at a time (label-conditional, or Mondrian, conformal prediction; Vovk
2012, "Conditional validity of inductive conformal predictors"). If validation patients and new ones
are exchangeable, then of the new patients' positive images at least the share ``coverage`` is not
answered "absent", and of their negative images at least as many are not answered "present": at any
sample size, whatever the model, and however rare the finding.

Images of a patient are not exchangeable with those of others. So patients count, not images: each
has the weight 1, divided among its images of the class, and a weight of 1 at infinity stands for
the new patient (Lee, Barber and Willett 2023, "Distribution-free inference with hierarchical data",
theorem 1). That is a guarantee for a random image of a new patient. With one image per patient the
limit has the rank ``ceil((n + 1) coverage)`` among n, as in ordinary split-conformal prediction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.metrics.document import Count, Document, Interval, Score
from featurecache.metrics.label_support import (
    IN_VALIDATION,
    MIN_PATIENTS,
    NOT_LEARNED,
    patient_support,
)
from featurecache.metrics.ranking import AnyFloats, Floats, Labels, valid_mask

DEFAULT_COVERAGE: Final = 0.9

ANSWERS: Final = ("", "absent", "unsure", "present")
"""Answers by code; the codes of the last three ascend with the probability. "" is no answer."""
_ABSENT, _UNSURE, _PRESENT = 1, 2, 3

_CLASSES: Final = (0, 1)
_ROUNDING: Final = 1e-9

_TAIL: Final = 0.025

_Share = tuple[float | None, tuple[float, float] | None, int]
"""A share of patients, its interval, and their number."""


class ClassCoverage(Document):
    """The images of one class of a label, the positive or the negative ones.

    Attributes:
        limit: Of positive images the probability below which the answer is "absent", of negative
            ones that above which it is "present"; None for a label without answers.
        expected: The range of coverages that 95 % of all choices of as many validation patients
            have, where each has one image of the class (a beta distribution; Vovk 2012).
        coverage: Share of these images whose answer is not the opposite; each patient has the same
            weight.
        ci95: Its exact 95 % interval over patients (Clopper and Pearson 1934).
        n_patients: Number of scored patients with such an image.
    """

    limit: Score | None = None
    expected: Interval | None = None
    coverage: Score | None = None
    ci95: Interval | None = None
    n_patients: Count = 0


class AnswerIntervals(Document):
    """Exact confidence intervals of the answers of a label, over patients."""

    unsure: Interval | None = None
    error: Interval | None = None


class LabelAnswers(Document):
    """The answers of one label. Each patient has the same weight.

    Attributes:
        positive: Limit and coverage of positive images.
        negative: Limit and coverage of negative images.
        unsure: Share of images whose answer is "unsure".
        error: Share of wrong answers among those that are "present" or "absent".
        ci95: Their intervals.
        reason: Why the label has no answers; None where it has some.
    """

    positive: ClassCoverage = ClassCoverage()
    negative: ClassCoverage = ClassCoverage()
    unsure: Score | None = None
    error: Score | None = None
    ci95: AnswerIntervals = AnswerIntervals()
    reason: str | None = None


class Answers(Document):
    """Split-conformal answers: present, absent or unsure.

    Attributes:
        coverage: Share of each class that the answers are to cover.
        per_label: By label name.
    """

    coverage: Score
    per_label: dict[str, LabelAnswers]


@dataclass(frozen=True)
class ConformalLimits:
    """Limits of the probabilities of C labels, by which images are answered.

    Attributes:
        coverage: Share of each class that they are to cover.
        positive: (C,) lowest probability that is not too low for a positive image; NaN for a label
            without answers.
        negative: (C,) highest probability that is not too high for a negative image.
        expected: (C, 2, 2) range of coverages to expect, low and high, of negatives and positives.
        reasons: C reasons why a label has no answers; None where it has some.
    """

    coverage: float
    positive: Floats
    negative: Floats
    expected: Floats
    reasons: tuple[str | None, ...]

    @classmethod
    def none(cls, n_labels: int, reason: str, *, coverage: float) -> "ConformalLimits":
        """Return those of labels without answers."""
        undefined = np.full(n_labels, np.nan)
        expected = np.full((n_labels, 2, 2), np.nan)
        return cls(coverage, undefined, undefined, expected, (reason,) * n_labels)

    def of_labels(self, columns: Sequence[int]) -> "ConformalLimits":
        """Return those of some labels, in this order."""
        return ConformalLimits(
            self.coverage,
            self.positive[columns],
            self.negative[columns],
            self.expected[columns],
            tuple(self.reasons[c] for c in columns),
        )

    def __call__(self, probability: AnyFloats) -> NDArray[np.int8]:
        """Return the answers to probabilities (N, C), (N, C) codes of ``ANSWERS``."""
        fits_positive, fits_negative = probability >= self.positive, probability <= self.negative
        answers = np.where(fits_positive == fits_negative, _UNSURE, _ABSENT).astype(np.int8)
        answers[fits_positive & ~fits_negative] = _PRESENT
        answers[np.isnan(probability) | np.isnan(self.positive)] = 0
        return answers


def read_answers(answers: Answers | None, labels: Sequence[str]) -> ConformalLimits | None:
    """Return the limits that a run's metrics hold, in the order of ``labels``.

    Raises:
        KeyError: The metrics are of other labels.
    """
    if answers is None:
        return None
    fitted = [answers.per_label[label] for label in labels]
    by_class = [(label.negative, label.positive) for label in fitted]
    limits = np.array([[one.limit for one in pair] for pair in by_class], dtype=np.float64)
    expected = [[one.expected or (np.nan, np.nan) for one in pair] for pair in by_class]
    return ConformalLimits(
        answers.coverage,
        positive=limits[:, 1],
        negative=limits[:, 0],
        expected=np.array(expected, dtype=np.float64),
        reasons=tuple(label.reason for label in fitted),
    )


def describe_unanswered(answers: Answers) -> str:
    """Return which labels have no answers and why; empty if all have some."""
    labels: dict[str, list[str]] = {}
    for name, label in answers.per_label.items():
        if label.reason is not None:
            labels.setdefault(label.reason, []).append(name)
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in labels.items())


def fit_conformal(
    truth: Labels,
    probability: AnyFloats,
    patients: NDArray[Any],
    *,
    coverage: float,
    learned: NDArray[np.bool_],
) -> ConformalLimits:
    """Choose the limits of each label.

    A label needs ``coverage / (1 - coverage)`` patients of either class, 9 for a coverage of 0.9;
    with fewer, no limit of that class would cover as much.

    Args:
        truth: (N, C) labels 1, 0 or -1 (unknown) of validation images.
        probability: (N, C) in 0 to 1.
        patients: (N,) patient of each image.
        coverage: Share of each class to cover, above 0 and below 1.
        learned: (C,) whether training had positives and negatives of the label.

    Returns:
        The limits, with the reason for each label without them.

    Raises:
        ValueError: As ``valid_mask``.
    """
    from scipy.special import betaincinv

    valid_mask(truth, probability)
    _, patient_index = np.unique(patients, return_inverse=True)
    support = patient_support(truth, patient_index)
    share = Fraction(str(coverage))  # in floats, 10 x 0.9 could be more than 9
    needed = max(MIN_PATIENTS, ceil(share / (1 - share)))
    n_labels = truth.shape[1]
    limits, expected = np.full((2, n_labels), np.nan), np.full((n_labels, 2, 2), np.nan)
    reasons: list[str | None] = []
    for c in range(n_labels):
        reason: str | None = NOT_LEARNED
        if learned[c]:
            few = support.reason(c, at_least=needed)
            reason = None if few is None else f"{IN_VALIDATION}{few}"
        reasons.append(reason)
        if reason is not None:
            continue
        for value, n in zip(_CLASSES, (support.negative[c], support.positive[c]), strict=True):
            rows = np.flatnonzero(truth[:, c] == value)
            weight = share * (int(n) + 1)
            sign = 1 if value == 0 else -1  # the least typical negatives are high, positives low
            limits[value, c] = sign * _quantile(
                sign * probability[rows, c].astype(np.float64), patient_index[rows], float(weight)
            )
            rank = ceil(weight)
            expected[c, value] = betaincinv(rank, n + 1 - rank, [_TAIL, 1 - _TAIL])
    return ConformalLimits(coverage, limits[1], limits[0], expected, tuple(reasons))


def _quantile(values: Floats, patient_index: NDArray[np.intp], weight: float) -> float:
    """Return the lowest value up to which the values have a weight, with 1 for each patient."""
    counts = np.bincount(patient_index)
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(1 / counts[patient_index[order]])
    return float(values[order[np.searchsorted(cumulative, weight - _ROUNDING)]])


def measure_answers(
    truth: Labels,
    probability: AnyFloats,
    limits: ConformalLimits,
    *,
    label_names: Sequence[str],
    patients: NDArray[Any],
) -> Answers:
    """Measure how often answers are right.

    A patient has the same weight as any other, divided among its images, as in the guarantee. For
    several images per patient, the exact interval takes a patient's share of images as a fraction
    of a success, which is conservative: shares vary less than single images.

    Args:
        truth: (N, C) labels 1, 0 or -1 (unknown) of the images that are scored.
        probability: (N, C) in 0 to 1.
        limits: The limits.
        label_names: The C label names.
        patients: (N,) patient of each image.

    Returns:
        The shares.
    """
    _, patient_index = np.unique(patients, return_inverse=True)
    answers = limits(probability)

    def share(of: NDArray[np.bool_], among: NDArray[np.bool_]) -> _Share:
        index = patient_index[among]
        images = np.bincount(index)
        shares = np.bincount(index, of[among])[images > 0] / images[images > 0]
        return _with_interval(shares.sum(), len(shares))

    per_label = {}
    for c, label in enumerate(label_names):
        if limits.reasons[c] is not None:
            per_label[label] = LabelAnswers(reason=limits.reasons[c])
            continue
        answer, known = answers[:, c], truth[:, c] >= 0
        classes = []
        for value, limit in zip(_CLASSES, (limits.negative[c], limits.positive[c]), strict=True):
            opposite = _ABSENT if value == 1 else _PRESENT
            covered, ci95, n_patients = share(answer != opposite, truth[:, c] == value)
            low, high = limits.expected[c, value].tolist()
            classes.append(
                ClassCoverage(
                    limit=float(limit),
                    expected=(low, high),
                    coverage=covered,
                    ci95=ci95,
                    n_patients=n_patients,
                )
            )
        wrong = answer == np.where(truth[:, c] == 1, _ABSENT, _PRESENT)
        unsure, unsure_ci, _ = share(answer == _UNSURE, known)
        error, error_ci, _ = share(wrong, known & (answer != _UNSURE))
        per_label[label] = LabelAnswers(
            positive=classes[1],
            negative=classes[0],
            unsure=unsure,
            error=error,
            ci95=AnswerIntervals(unsure=unsure_ci, error=error_ci),
        )
    return Answers(coverage=limits.coverage, per_label=per_label)


def _with_interval(total: float, n: int) -> _Share:
    """Return a share, its interval of Clopper and Pearson, and the number that it is of."""
    from scipy.special import betaincinv

    if n == 0:
        return None, None, 0
    low = 0.0 if total <= 0 else betaincinv(total, n - total + 1, _TAIL)
    high = 1.0 if total >= n else betaincinv(total + 1, n - total, 1 - _TAIL)
    return float(total / n), (float(low), float(high)), n
