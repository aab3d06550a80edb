"""Metrics of one or several trainings with their 95 % intervals over patients and trainings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from featurecache.metrics.bootstrap import (
    PatientResamples,
    bootstrap_metrics,
    none_if_nan,
    patient_confusions,
)
from featurecache.metrics.intervals import (
    EffectivePatients,
    Interval,
    effective_number,
    macro_interval,
    pooled_interval,
)
from featurecache.metrics.label_support import MIN_PATIENTS, PatientSupport, patient_support
from featurecache.metrics.multilabel import MetricArrays, compute_metrics
from featurecache.metrics.ranking import AnyFloats, Floats, Labels, macro

MIN_SAMPLES: Final = 2
"""Bootstrap samples that a variance needs."""


@dataclass(frozen=True)
class SampledMetrics:
    """Every metric of one training, on the data and on bootstrap samples of its patients.

    Attributes:
        arrays: Metrics with a leading axis of length 1 + B: of the data, then of each sample.
        support: Patients of each of the C labels.
        patients: Effective numbers of patients of each label.
        pooled: The same over the entries of all labels together, (1,) each.
        pooled_support: Patients behind these entries.
        complete: Effective number of patients with an image whose labels are all known.
    """

    arrays: MetricArrays
    support: PatientSupport
    patients: EffectivePatients
    pooled: EffectivePatients
    pooled_support: PatientSupport
    complete: float

    def over(self, labels: NDArray[np.bool_]) -> "SampledMetrics":
        """Return the metrics of some of the C labels; all others, and those pooled, are undefined.

        Args:
            labels: (C,) whether to keep a label.
        """
        per_label = {
            name: np.where(labels, values, np.nan) for name, values in self.arrays.per_label.items()
        }
        micro = {name: np.full_like(values, np.nan) for name, values in self.arrays.micro.items()}
        return replace(self, arrays=replace(self.arrays, per_label=per_label, micro=micro))


@dataclass(frozen=True)
class Estimate:
    """One metric.

    Attributes:
        value: Mean over the trainings; None where it is undefined for one of them.
        ci95: Its 95 % interval; None where it is undefined or has too few patients.
        trainings: The value of each training.
    """

    value: float | None
    ci95: Interval | None
    trainings: list[float | None]


def sample_metrics(
    truth: Labels,
    predicted: NDArray[np.bool_],
    ranking: AnyFloats,
    resamples: PatientResamples,
    learned: NDArray[np.bool_],
) -> SampledMetrics:
    """Compute every metric on the data and on bootstrap samples.

    Args:
        truth: (N, C) labels 1, 0 or -1 (unknown).
        predicted: (N, C) binary decisions.
        ranking: (N, C) scores for AUROC and AUPRC.
        resamples: Bootstrap samples of the patients of the N rows.
        learned: (C,) whether a label has metrics; those of others are undefined.

    Returns:
        The metrics.

    Raises:
        ValueError: Shapes differ, a score is NaN, or a label is not 1, 0 or -1.
    """
    inputs = (truth[:, learned], predicted[:, learned], ranking[:, learned])
    # Not in one call with the samples, or the last digit would depend on their number.
    arrays = compute_metrics(*inputs).before(bootstrap_metrics(*inputs, resamples))
    pooled_index = np.repeat(resamples.patient_index, learned.sum())
    confusions = patient_confusions(truth, predicted, resamples)
    of_learned = confusions[:, learned].sum(axis=1, keepdims=True)
    is_complete = (truth[:, learned] >= 0).all(axis=1)
    complete = np.bincount(resamples.patient_index, is_complete).astype(np.float64)
    return SampledMetrics(
        arrays=arrays.with_labels(learned),
        support=patient_support(truth, resamples.patient_index),
        patients=EffectivePatients.count(confusions),
        pooled=EffectivePatients.count(of_learned),
        pooled_support=patient_support(inputs[0].reshape(-1, 1), pooled_index),
        complete=float(effective_number(complete)),
    )


class MeanMetrics:
    """Means over trainings that are scored on the same images and bootstrap samples.

    The labels of the macro average are those with a positive and a negative image that every
    training learned: the same for the value, each bootstrap sample and each training.
    """

    def __init__(self, trainings: Sequence[SampledMetrics]) -> None:
        """Take one or several trainings."""
        self.trainings = trainings
        self.names = tuple(trainings[0].arrays.per_label)
        self.support = trainings[0].support
        self.macro_labels: NDArray[np.bool_] = np.logical_and.reduce(
            [~np.isnan(training.arrays.per_label["auroc"][0]) for training in trainings]
        )
        self._pooled = EffectivePatients.mean([training.pooled for training in trainings])
        self._patients = EffectivePatients.mean([training.patients for training in trainings])

    def label(self, metric: str, column: int, *, always: bool = False) -> Estimate:
        """Return a metric of one label; its interval needs enough patients.

        Args:
            metric: Name of the metric.
            column: The label.
            always: Return an interval even with too few patients, to measure its coverage.
        """
        values = self._stack(lambda arrays: arrays.per_label[metric][:, [column]])
        enough = always or bool(self.support.enough[column])
        return self._mean_over_labels(metric, values, np.array([column]), enough=enough)

    def label_value(self, metric: str, column: int) -> float | None:
        """Return a metric of one label without its interval, which takes much longer."""
        values = self._stack(lambda arrays: arrays.per_label[metric][0, column])
        return none_if_nan(values.mean())

    def macro(self, metric: str, labels: NDArray[np.bool_] | None = None) -> Estimate:
        """Return the mean of a metric over labels; its interval needs a label with enough patients.

        Precision leaves out a label that is predicted nowhere, and NPV one that is predicted
        everywhere. The interval is over the labels that no training leaves out.

        Args:
            metric: Name of the metric.
            labels: (C,) the labels to average over; None for ``macro_labels``.
        """
        columns = np.flatnonzero(self.macro_labels if labels is None else labels)
        values = self._stack(lambda arrays: arrays.per_label[metric][:, columns])
        enough = bool(self.support.enough[columns].any())
        return self._mean_over_labels(metric, values, columns, enough=enough)

    def label_metrics(self, column: int) -> dict[str, Estimate]:
        """Return every metric of one label, by name."""
        return {name: self.label(name, column) for name in self.names}

    def macro_metrics(self) -> dict[str, Estimate]:
        """Return the mean of every metric over labels, by name."""
        return {name: self.macro(name) for name in self.names}

    def micro_metrics(self) -> dict[str, Estimate]:
        """Return every metric over the pooled entries, by name."""
        return {name: self.micro(name) for name in self.names}

    def micro(self, metric: str) -> Estimate:
        """Return a metric over the pooled entries of all labels."""
        n_patients = float(self._pooled.behind(metric)[0])
        enough = bool(self.trainings[0].pooled_support.enough[0])
        return self._pooled_metric(lambda arrays: arrays.micro[metric], n_patients, enough=enough)

    @property
    def exact_match(self) -> Estimate:
        """The share of images with every label right."""
        n_patients = float(np.mean([training.complete for training in self.trainings]))
        enough = n_patients >= MIN_PATIENTS
        return self._pooled_metric(lambda arrays: arrays.exact_match, n_patients, enough=enough)

    @property
    def hamming_loss(self) -> Estimate:
        """The share of entries that are wrong."""
        n_patients = float(self._pooled.known[0])
        enough = n_patients >= MIN_PATIENTS
        return self._pooled_metric(lambda arrays: arrays.hamming_loss, n_patients, enough=enough)

    def _stack(self, values_of: Callable[[MetricArrays], Floats]) -> Floats:
        """Return (S, 1 + B, ...) values of the trainings."""
        return np.stack([values_of(training.arrays) for training in self.trainings])

    def _mean_over_labels(
        self, metric: str, values: Floats, columns: NDArray[np.intp], *, enough: bool
    ) -> Estimate:
        of_trainings = macro(values[:, 0])
        mean = values.mean(axis=0)
        defined = ~np.isnan(mean[0])
        interval = None
        # A constant score ranks nothing: its AUROC is 0.5 by definition, for any patients.
        by_definition = (
            metric == "auroc" and (np.nan_to_num(values[..., defined], nan=0.5) == 0.5).all()
        )
        if enough and len(mean) > MIN_SAMPLES and defined.any() and not by_definition:
            interval = macro_interval(
                metric,
                mean[0, defined],
                mean[1:, defined],
                self._patients.of_labels(columns[defined]),
                trainings=_several(of_trainings),
            )
        return _estimate(of_trainings, interval)

    def _pooled_metric(
        self, values_of: Callable[[MetricArrays], Floats], n_patients: float, *, enough: bool
    ) -> Estimate:
        values = self._stack(values_of)
        mean = values.mean(axis=0)
        interval = None
        if enough and len(mean) > MIN_SAMPLES and not np.isnan(mean[0]):
            interval = pooled_interval(
                float(mean[0]), mean[1:], n_patients, trainings=_several(values[:, 0])
            )
        return _estimate(values[:, 0], interval)


def _several(trainings: Floats) -> Floats | None:
    return trainings if len(trainings) > 1 else None


def _estimate(trainings: Floats, interval: Interval | None) -> Estimate:
    return Estimate(
        none_if_nan(trainings.mean()), interval, [none_if_nan(value) for value in trainings]
    )
