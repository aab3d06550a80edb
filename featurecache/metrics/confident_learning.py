"""Confident learning: which labels are probably wrong, and what share of them.

Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in dataset labels", Journal
of Artificial Intelligence Research 70 (2021). Each label is a problem of its own with two classes.
An image is confidently of a class if its probability of it is at least the mean probability among
the images that are labeled so. Counts of confident images by label and class, scaled to the number
of images with each label, estimate how many labels are wrong.

The probabilities have to be those of a model that has not seen the images. What such a model cannot
tell apart counts as wrong labels as well, so the share is too high where it is weak.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from featurecache.metrics.bootstrap import PatientResamples
from featurecache.metrics.ranking import Floats, Labels, ratio

_ROUNDING: Final = 1e-6
"""Subtracted from mean probabilities, so that images that all have the mean reach it."""


def confident_classes(truth: Labels, probability: Floats) -> NDArray[np.int8]:
    """Return the class that each of N images confidently is.

    Args:
        truth: (N,) labels, 1 or 0, both of which occur.
        probability: (N,) out-of-sample probabilities of a positive.

    Returns:
        (N,) int8: 1, 0, or -1 where neither is confident. A label that differs from it is doubtful.
    """
    positive = truth == 1
    return _classes(
        probability, float(probability[positive].mean()), float(1 - probability[~positive].mean())
    )


def wrong_share(truth: Labels, probability: Floats, resamples: PatientResamples) -> Floats:
    """Estimate the share of wrong labels on each of B bootstrap samples of the patients.

    Args:
        truth: (N,) labels, 1 or 0.
        probability: (N,) out-of-sample probabilities of a positive.
        resamples: Bootstrap samples of the patients of the N images.

    Returns:
        (B,), NaN for a sample without positives or without negatives.
    """
    positive = truth == 1
    patients = resamples.counts.astype(np.float64)
    n_positive, of_positives, n_negative, of_negatives = (
        patients @ np.bincount(resamples.patient_index, values)
        for values in (positive, positive * probability, ~positive, ~positive * (1 - probability))
    )
    thresholds = zip(ratio(of_positives, n_positive), ratio(of_negatives, n_negative), strict=True)
    # How many images with each label (row) are confidently of each class, or of none (column).
    joint = np.empty((len(patients), 2, 3))
    for number, of_classes in enumerate(thresholds):
        classes = _classes(probability, *of_classes)
        cell = 3 * positive + np.where(classes < 0, 2, classes)
        weight = patients[number][resamples.patient_index]
        joint[number] = np.bincount(cell, weight, 6).reshape(2, 3)
    # A label of which no image is confident is not wrong everywhere.
    right = np.maximum(np.diagonal(joint, axis1=1, axis2=2), 1)
    wrong = np.stack([joint[:, 0, 1], joint[:, 1, 0]], axis=1)
    n_wrong = np.stack([n_negative, n_positive], axis=1) * wrong / (right + wrong)
    defined = (n_positive > 0) & (n_negative > 0)
    return np.where(defined, ratio(n_wrong.sum(axis=1), n_positive + n_negative), np.nan)


def _classes(probability: Floats, of_positives: float, of_negatives: float) -> NDArray[np.int8]:
    """Return confident classes, given the mean probabilities of images that are labeled so."""
    is_positive = probability >= of_positives - _ROUNDING
    is_negative = 1 - probability >= of_negatives - _ROUNDING
    both = np.where(probability > 0.5, 1, 0)
    only = np.where(is_positive, 1, np.where(is_negative, 0, -1))
    return np.where(is_positive & is_negative, both, only).astype(np.int8)
