"""Rank the same images with several trainings: their mean, their spread, and paired gains."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from featurecache.evaluation.split_data import SplitData
from featurecache.metrics.bootstrap import (
    PatientResamples,
    none_if_nan,
)
from featurecache.metrics.document import Difference
from featurecache.metrics.jackknife import degrees_of_freedom, leave_one_out, mean_interval
from featurecache.metrics.label_support import patient_support
from featurecache.metrics.metrics import RankingGain, RankingSummary
from featurecache.metrics.sampled_metrics import MeanMetrics, SampledMetrics, sample_metrics

RANKING_METRICS: Final = ("auroc", "auprc")
"""The metrics that need no threshold."""

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Trial:
    """The scores of one training, and the labels that they are compared with.

    Attributes:
        data: Labels, patients and splits.
        score: Scores of shape (N, C).
    """

    data: SplitData
    score: NDArray[np.floating]


@dataclass(frozen=True)
class TrialRanking:
    """AUROC and AUPRC of a trial; NaN where undefined.

    Attributes:
        averages: By group ("macro", "micro") and metric, shape (1 + n_bootstrap,): of the data,
            then of each bootstrap sample.
        sampled: Every metric, on the data and on each bootstrap sample.
    """

    averages: dict[str, dict[str, NDArray[np.float64]]]
    sampled: SampledMetrics


def rank_trial(trial: Trial, rows: NDArray[np.intp], resamples: PatientResamples) -> TrialRanking:
    """Compute the ranking metrics of some rows of a trial, and of bootstrap samples of them."""
    truth, score = trial.data.truth[rows], trial.score[rows]
    decisions = np.zeros(truth.shape, dtype=np.bool_)  # only the ranking matters
    sampled = sample_metrics(truth, decisions, score, resamples, trial.data.learned)
    groups = {"macro": sampled.arrays.macro, "micro": sampled.arrays.micro}
    return TrialRanking(_by_group(lambda group, name: groups[group][name]), sampled)


@dataclass(frozen=True)
class LeftOutRankings:
    """Rankings of several trials over the same labels, to be compared in pairs.

    Attributes:
        trials: One for each trial; in place of bootstrap samples, the data without each patient.
        dof: By group ("macro", "micro"), the degrees of freedom of the patients.
    """

    trials: list[TrialRanking]
    dof: dict[str, float]


def rank_all(
    trials: Sequence[Trial], rows: NDArray[np.intp], labels: NDArray[np.bool_]
) -> LeftOutRankings:
    """Compute the ranking metrics of several trials over some labels, and without each patient.

    Args:
        trials: Trials on the same data.
        rows: Rows to score.
        labels: (C,) the labels to average over, which all trials learned. Each needs two patients
            with a positive and with a negative image.
    """
    data = trials[0].data
    samples = leave_one_out(data.patient[rows])
    truth = data.truth[np.ix_(rows, np.flatnonzero(labels))]
    pooled_index = np.repeat(samples.patient_index, truth.shape[1])
    return LeftOutRankings(
        [
            rank_trial(replace(trial, data=replace(trial.data, learned=labels)), rows, samples)
            for trial in trials
        ],
        {
            "macro": degrees_of_freedom(truth, samples.patient_index),
            "micro": degrees_of_freedom(truth.reshape(-1, 1), pooled_index),
        },
    )


def supported_labels(trials: Sequence[Trial], rows: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return which of the C labels every trial learned and enough patients support."""
    data = trials[0].data
    _, patient_index = np.unique(data.patient[rows], return_inverse=True)
    enough = patient_support(data.truth[rows], patient_index).enough
    for trial in trials:
        enough = enough & trial.data.learned
    return enough


def mean_ranking(
    trials: Sequence[SampledMetrics], label_names: Sequence[str] = ()
) -> RankingSummary:
    """Return the mean over several trials; None where a trial's metric is undefined.

    Intervals are over patients and trials.

    Args:
        trials: One or several, on the same bootstrap samples.
        label_names: The C label names, to include means by label; none for averages only.
    """
    mean = MeanMetrics(trials)
    estimates = _by_group(
        lambda group, name: mean.macro(name) if group == "macro" else mean.micro(name)
    )
    per_label = {
        label: {name: mean.label_value(name, c) for name in RANKING_METRICS}
        for c, label in enumerate(label_names)
    }
    return RankingSummary.model_validate(
        {
            **_by_group(lambda group, name: estimates[group][name].value),
            "ci95": _by_group(lambda group, name: estimates[group][name].ci95),
            "per_label": per_label,
        }
    )


def ranking_gain(
    pairs: Sequence[tuple[TrialRanking, TrialRanking]], dof: Mapping[str, float]
) -> RankingGain:
    """Return how much better the first of each pair ranks than the second, averaged over pairs.

    Args:
        pairs: Rankings of `rank_all`.
        dof: Their degrees of freedom, by group.
    """

    def gain(group: str, name: str) -> Difference:
        differences = [a.averages[group][name] - b.averages[group][name] for a, b in pairs]
        return Difference(
            difference=none_if_nan(np.mean([values[0] for values in differences])),
            ci95=mean_interval(np.array(differences), dof[group], limits=(-1, 1)),
        )

    return RankingGain.model_validate(_by_group(gain))


def _by_group(value_of: Callable[[str, str], _Value]) -> dict[str, dict[str, _Value]]:
    """Return a value for each group and ranking metric."""
    return {
        group: {name: value_of(group, name) for name in RANKING_METRICS}
        for group in ("macro", "micro")
    }
