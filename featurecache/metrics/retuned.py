"""Thresholds of a training, beside those that the same rule chooses on the scored data set."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurecache.metrics.bootstrap import none_if_nan
from featurecache.metrics.clustered import clustered_estimates
from featurecache.metrics.document import Document, Interval, Score
from featurecache.metrics.label_support import patient_support
from featurecache.metrics.ranking import AnyFloats, Floats, Labels


class RetunedIntervals(Document):
    """Confidence intervals at a retuned threshold."""

    recall: Interval | None = None
    specificity: Interval | None = None


class RetunedLabel(Document):
    """The metrics of one label at its retuned threshold.

    Attributes:
        threshold: Probability from which on the label is predicted.
        recall: Sensitivity on the scored images.
        specificity: Specificity on the scored images.
        ci95: Their 95 % intervals.
        reason: Why there is no threshold; None where there is one.
    """

    threshold: Score | None = None
    recall: Score | None = None
    specificity: Score | None = None
    ci95: RetunedIntervals = RetunedIntervals()
    reason: str | None = None


class Retuned(Document):
    """What thresholds that are chosen anew would change; those of the training decide all else.

    Attributes:
        operating_point: The rule of the training, by which they are chosen.
        reason: Why there are none: there are no validation images, or those of the training. None
            where there are.
        per_label: The metrics by label name; empty where there are none.
    """

    operating_point: str
    reason: str | None = None
    per_label: dict[str, RetunedLabel]


def measure_retuned(
    truth: Labels,
    probability: AnyFloats,
    thresholds: Floats,
    *,
    label_names: Sequence[str],
    patients: NDArray[Any],
    reasons: Sequence[str],
) -> dict[str, RetunedLabel]:
    """Return sensitivity and specificity at thresholds, with 95 % intervals over patients.

    Args:
        truth: (N, C) labels 1, 0 or -1 (unknown) of the images that are scored.
        probability: (N, C) probabilities.
        thresholds: (C,) thresholds; NaN for none.
        label_names: C names.
        patients: (N,) patient of each image.
        reasons: Why each label has no threshold, if it has none.
    """
    _, patient_index = np.unique(patients, return_inverse=True)
    enough = patient_support(truth, patient_index).enough
    decided = probability >= thresholds
    estimates = [
        clustered_estimates(metric, truth, decided, probability, patient_index)
        for metric in ("recall", "specificity")
    ]
    values = [estimate.values for estimate in estimates]
    bounds = [np.stack(estimate.intervals(), axis=1).tolist() for estimate in estimates]
    labels = {}
    for c, label in enumerate(label_names):
        if np.isnan(thresholds[c]):
            labels[label] = RetunedLabel(reason=reasons[c])
            continue
        recall_ci, specificity_ci = (tuple(of[c]) if enough[c] else None for of in bounds)
        labels[label] = RetunedLabel(
            threshold=float(thresholds[c]),
            recall=none_if_nan(values[0][c]),
            specificity=none_if_nan(values[1][c]),
            ci95=RetunedIntervals(recall=recall_ci, specificity=specificity_ci),
        )
    return labels
