"""What several predictions of the same images score: their mean, and how far they are apart."""

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

FIGURES: Final = ("auroc", "auprc")
"""Those that need no threshold."""

GROUPS: Final = ("macro", "micro")


@dataclass(frozen=True)
class Trial:
    """What ranks the images of a data set, held against labels.

    Attributes:
        rows: the data set, with the labels that the scores are held against.
        score: (N, C).
    """

    rows: SplitData
    score: NDArray[np.floating]


@dataclass(frozen=True)
class Ranking:
    """How well a trial ranks: AUROC and AUPRC, NaN where undefined.

    Attributes:
        figures: of the data, by group (``macro``, ``micro``) and name.
        drawn: likewise of draws of patients, (draws,) each.
        per_label: of the data, (C,) by name; NaN for a label that was not learned.
    """

    figures: dict[str, dict[str, Any]]
    drawn: dict[str, dict[str, NDArray[np.float64]]]
    per_label: dict[str, NDArray[np.float64]]


def rank_trial(trial: Trial, scored: NDArray[np.intp], patients: PatientResamples) -> Ranking:
    """Measure a trial on some of its rows, and on draws of their patients."""
    learned = np.flatnonzero(trial.rows.learned)
    grid = np.ix_(scored, learned)
    truth, score = trial.rows.truth[grid], trial.score[grid]
    # The data themselves are the draw that has each patient once: so they are sorted only once.
    itself = np.ones((1, patients.counts.shape[1]), dtype=patients.counts.dtype)
    samples = replace(patients, counts=np.concatenate([itself, patients.counts]))
    measured = bootstrap_metrics(truth, np.zeros(truth.shape, dtype=np.bool_), score, samples)
    groups = {"macro": measured.macro, "micro": measured.micro}
    per_label = {name: np.full(len(trial.rows.learned), np.nan) for name in FIGURES}
    for name in FIGURES:
        per_label[name][learned] = measured.per_label[name][0]
    return Ranking(
        figures={group: {name: groups[group][name][0] for name in FIGURES} for group in GROUPS},
        drawn={group: {name: groups[group][name][1:] for name in FIGURES} for group in GROUPS},
        per_label=per_label,
    )


def rank_all(
    trials: Sequence[Trial], scored: NDArray[np.intp], *, n_bootstrap: int, seed: int = 0
) -> list[Ranking]:
    """Measure trials of the same rows on the same draws of patients."""
    patients = resample_patients(trials[0].rows.patient[scored], n_bootstrap=n_bootstrap, seed=seed)
    return [rank_trial(trial, scored, patients) for trial in trials]


def mean_ranking(rankings: Sequence[Ranking]) -> dict[str, Any]:
    """The mean figures of several trials, as ``metrics.json`` has them; null where one's is.

    Intervals (``ci95``) are of the draws of all trials together, so that they hold what differs
    between trials as well.
    """
    return {
        **{
            group: {
                name: none_if_nan(np.mean([one.figures[group][name] for one in rankings]))
                for name in FIGURES
            }
            for group in GROUPS
        },
        "ci95": {
            group: {
                name: ci_or_none(np.concatenate([one.drawn[group][name] for one in rankings]))
                for name in FIGURES
            }
            for group in GROUPS
        },
    }


def ranking_gain(pairs: Sequence[tuple[Ranking, Ranking]]) -> dict[str, Any]:
    """How much better the first of each pair ranks than the second; the mean of several pairs.

    Args:
        pairs: measured on the same draws.

    Returns:
        Under ``macro`` and ``micro``, for AUROC and AUPRC, ``difference`` and ``ci95``; None where
        undefined.
    """

    def gain(group: str, name: str) -> dict[str, Any]:
        figures = [one.figures[group][name] - two.figures[group][name] for one, two in pairs]
        drawn = [one.drawn[group][name] - two.drawn[group][name] for one, two in pairs]
        return {
            "difference": none_if_nan(np.mean(figures)),
            "ci95": ci_or_none(np.mean(drawn, axis=0)),
        }

    return {group: {name: gain(group, name) for name in FIGURES} for group in GROUPS}
