"""Exclusive classes: labels of which each image has exactly one, as in a folder per class.

The predicted class is the label with the highest score. As decisions for every label (predicted or
not), predictions of one class per image are multi-label predictions: their share of images with
every label right is the accuracy, and the mean of their recall over classes the balanced accuracy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurecache.metrics.bootstrap import PatientResamples
from featurecache.metrics.ranking import AnyFloats, Labels
from featurecache.metrics.sampled_metrics import (
    Estimate,
    MeanMetrics,
    SampledMetrics,
    sample_metrics,
)


@dataclass(frozen=True)
class ClassMetrics:
    """How often the predicted class is the true one.

    Attributes:
        accuracy: Share of images whose class is predicted.
        balanced_accuracy: Mean over classes of that share, of the classes that have images.
        confusion: (C, C) number of images by true class (row) and predicted class (column), of the
            first training.
    """

    accuracy: Estimate
    balanced_accuracy: Estimate
    confusion: NDArray[np.intp]


def are_exclusive(truth: Labels) -> bool:
    """Return whether each row has exactly one positive label and no unknown one.

    Args:
        truth: (N, C) labels 1, 0 or -1 (unknown).
    """
    return truth.shape[1] > 1 and bool((truth >= 0).all() and ((truth == 1).sum(axis=1) == 1).all())


def predicted_classes(scores: AnyFloats, learned: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the label with the highest score of each row, (N,); the first of equal ones.

    Args:
        scores: (N, C) scores.
        learned: (C,) whether a label can be predicted.
    """
    classes: NDArray[np.intp] = np.where(learned, scores, -np.inf).argmax(axis=1)
    return classes


def measure_classes(
    truth: Labels, predicted: Sequence[NDArray[np.intp]], resamples: PatientResamples
) -> ClassMetrics:
    """Measure predictions of exclusive classes, as means over trainings.

    Args:
        truth: (N, C) labels, exactly one of them positive.
        predicted: For each training, the (N,) predicted classes.
        resamples: Bootstrap samples of the patients of the N rows.

    Returns:
        The metrics, with 95 % intervals over patients and trainings.
    """
    n_classes = truth.shape[1]
    every = np.ones(n_classes, dtype=np.bool_)

    def sampled(classes: NDArray[np.intp]) -> SampledMetrics:
        decisions = classes[:, np.newaxis] == np.arange(n_classes)
        return sample_metrics(truth, decisions, decisions.astype(np.float64), resamples, every)

    mean = MeanMetrics([sampled(classes) for classes in predicted])
    confusion = np.zeros((n_classes, n_classes), dtype=np.intp)
    np.add.at(confusion, (truth.argmax(axis=1), predicted[0]), 1)
    return ClassMetrics(mean.exact_match, mean.macro("recall"), confusion)
