"""Rank the same images with several trainings: their mean, their spread, and paired gains."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.evaluation.split_data import SplitData
from featurecache.metrics.bootstrap import (
    PatientResamples,
    bootstrap_metrics,
    ci_or_none,
    none_if_nan,
    resample_patients,
)
from featurecache.metrics.metrics import RankingGain, RankingSummary

RANKING_METRICS: Final = ("auroc", "auprc")
"""The metrics that need no threshold."""

GROUPS: Final = ("macro", "micro")


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
        averages: Of the data, by group ("macro", "micro") and metric.
        resampled: The same of each bootstrap sample, shape (n_bootstrap,).
        per_label: Of the data, shape (C,) by metric; NaN for a label that was not learned.
    """

    averages: dict[str, dict[str, Any]]
    resampled: dict[str, dict[str, NDArray[np.float64]]]
    per_label: dict[str, NDArray[np.float64]]


def rank_trial(trial: Trial, rows: NDArray[np.intp], resamples: PatientResamples) -> TrialRanking:
    """Compute the ranking metrics of some rows of a trial, and of bootstrap samples of them."""
    learned = np.flatnonzero(trial.data.learned)
    grid = np.ix_(rows, learned)
    truth, score = trial.data.truth[grid], trial.score[grid]
    # The data themselves are the sample that has each patient once, so they are sorted only once.
    itself = np.ones((1, resamples.counts.shape[1]), dtype=resamples.counts.dtype)
    all_samples = replace(resamples, counts=np.concatenate([itself, resamples.counts]))
    arrays = bootstrap_metrics(truth, np.zeros(truth.shape, dtype=np.bool_), score, all_samples)
    groups = {"macro": arrays.macro, "micro": arrays.micro}
    per_label = {name: np.full(len(trial.data.learned), np.nan) for name in RANKING_METRICS}
    for name in RANKING_METRICS:
        per_label[name][learned] = arrays.per_label[name][0]
    return TrialRanking(
        averages={
            group: {name: groups[group][name][0] for name in RANKING_METRICS} for group in GROUPS
        },
        resampled={
            group: {name: groups[group][name][1:] for name in RANKING_METRICS} for group in GROUPS
        },
        per_label=per_label,
    )


def rank_all(
    trials: Sequence[Trial], rows: NDArray[np.intp], *, n_bootstrap: int, seed: int = 0
) -> list[TrialRanking]:
    """Compute the ranking metrics of several trials on the same bootstrap samples of patients."""
    resamples = resample_patients(trials[0].data.patient[rows], n_bootstrap=n_bootstrap, seed=seed)
    return [rank_trial(trial, rows, resamples) for trial in trials]


def mean_ranking(
    rankings: Sequence[TrialRanking], label_names: Sequence[str] = ()
) -> RankingSummary:
    """Return the mean over several trials; None where a trial's metric is undefined.

    Intervals are of the bootstrap samples of all trials together, so they include what differs
    between trials.

    Args:
        rankings: One or several.
        label_names: The C label names, to include means by label; none for averages only.
    """
    return RankingSummary.model_validate(
        {
            **{
                group: {
                    name: none_if_nan(np.mean([one.averages[group][name] for one in rankings]))
                    for name in RANKING_METRICS
                }
                for group in GROUPS
            },
            "ci95": {
                group: {
                    name: ci_or_none(
                        np.concatenate([one.resampled[group][name] for one in rankings])
                    )
                    for name in RANKING_METRICS
                }
                for group in GROUPS
            },
            "per_label": {
                label: {
                    name: none_if_nan(np.mean([one.per_label[name][c] for one in rankings]))
                    for name in RANKING_METRICS
                }
                for c, label in enumerate(label_names)
            },
        }
    )


def ranking_gain(pairs: Sequence[tuple[TrialRanking, TrialRanking]]) -> RankingGain:
    """Return how much better the first of each pair ranks than the second, averaged over pairs.

    Args:
        pairs: Rankings on the same bootstrap samples.
    """

    def gain(group: str, name: str) -> dict[str, Any]:
        values = [a.averages[group][name] - b.averages[group][name] for a, b in pairs]
        resampled = [a.resampled[group][name] - b.resampled[group][name] for a, b in pairs]
        return {
            "difference": none_if_nan(np.mean(values)),
            "ci95": ci_or_none(np.mean(resampled, axis=0)),
        }

    return RankingGain.model_validate(
        {group: {name: gain(group, name) for name in RANKING_METRICS} for group in GROUPS}
    )
