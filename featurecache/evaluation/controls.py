"""Negative controls: what a score would be for reasons unrelated to the findings."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from typing import Final

import numpy as np
from numpy.typing import NDArray

from featurecache.evaluation.repeated_runs import (
    Trial,
    mean_ranking,
    rank_all,
    rank_trial,
    ranking_gain,
)
from featurecache.evaluation.split_data import SplitData
from featurecache.metrics.bootstrap import PatientResamples, resample_patients
from featurecache.metrics.metrics import RankingSummary, TextGain
from featurecache.metrics.ranking import ratio

N_SHUFFLES: Final = 5
"""A single shuffle says little: of two classes that differ much, what is learned from shuffled
labels may happen to be the difference, or its opposite."""


def summarize_control(
    trials: Sequence[Trial], rows: NDArray[np.intp], *, n_bootstrap: int
) -> RankingSummary | None:
    """Return the mean ranking metrics of a control's trials; undefined where one trial's is.

    Args:
        trials: One trial, or several where the control is random; without any, the result is None.
        rows: Rows to score.
        n_bootstrap: Number of bootstrap samples over patients, shared among the trials.
    """
    if not trials:
        return None
    rankings = []
    for seed, trial in enumerate(trials):
        resamples = resample_patients(
            trial.data.patient[rows], n_bootstrap=n_bootstrap // len(trials), seed=seed
        )
        rankings.append(rank_trial(trial, rows, resamples))
    return mean_ranking(rankings, trials[0].data.label_names)


def text_gain(
    real: Sequence[Trial], permuted: Sequence[Trial], rows: NDArray[np.intp], *, n_bootstrap: int
) -> TextGain | None:
    """Return what the label texts contribute over permuted ones; None without permuted trials.

    Args:
        real: Trials with each label's own texts: one for each permuted trial, or one for all.
        permuted: Trials in which each label has another label's texts.
        rows: Rows to score.
        n_bootstrap: Number of bootstrap samples over patients.
    """
    if not permuted:
        return None
    rankings = rank_all([*real, *permuted], rows, n_bootstrap=n_bootstrap)
    pairs = list(zip(cycle(rankings[: len(real)]), rankings[len(real) :], strict=False))
    return TextGain(pairs=len(pairs), **dict(ranking_gain(pairs)))


def untrained_controls(
    data: SplitData,
    score: NDArray[np.floating],
    score_of_random: NDArray[np.floating],
    *,
    n_bootstrap: int,
) -> dict[str, RankingSummary | None]:
    """Return the controls of scores that need no training of their own.

    Args:
        data: Labels, patients and splits.
        score: Scores of shape (N, C); compared with the labels of other images.
        score_of_random: Scores of shape (M, C) that the same method gives random embeddings, for
            the M rows that are scored.
        n_bootstrap: Number of bootstrap samples over patients.

    Returns:
        "shuffled_labels" and "random_features".
    """
    _, rows = data.scored
    shuffled = [
        Trial(replace(data, truth=shuffle_labels(data.truth, [rows], seed=number)), score)
        for number in range(N_SHUFFLES)
    ]
    random = np.zeros_like(score)
    random[rows] = score_of_random
    return {
        "shuffled_labels": summarize_control(shuffled, rows, n_bootstrap=n_bootstrap),
        "random_features": summarize_control([Trial(data, random)], rows, n_bootstrap=n_bootstrap),
    }


def derangement(number: int, *, seed: int) -> NDArray[np.intp]:
    """Return a random permutation of ``number`` items, two or more, that leaves none in place."""
    # One cycle through all items in random order leaves none in its place.
    order = np.random.default_rng(seed).permutation(number)
    permuted = np.empty(number, dtype=np.intp)
    permuted[order] = np.roll(order, 1)
    return permuted


def permute_texts(data: SplitData, score: NDArray[np.floating]) -> list[Trial]:
    """Return zero-shot trials in which each label has another label's texts.

    Exchanging the texts of two labels exchanges the columns of their scores. What remains of a
    metric is what the text of any finding would score, for example because an image shows a sick
    patient.

    Args:
        data: Labels, patients and splits.
        score: Scores of shape (N, C).

    Returns:
        Several trials; none for a single label, which has nothing to be exchanged with.
    """
    if score.shape[1] < 2:
        return []
    return [
        Trial(data, score[:, derangement(score.shape[1], seed=number)])
        for number in range(N_SHUFFLES)
    ]


def view_only(
    data: SplitData, rows: NDArray[np.intp], resamples: PatientResamples
) -> RankingSummary | None:
    """Score the view position alone; None where views or training rows are missing.

    Args:
        data: Labels, views and splits.
        rows: Rows to score.
        resamples: Bootstrap samples of the patients of these rows.
    """
    has_view = data.view != ""
    if not has_view[rows].any() or not has_view[data.train].any():
        return None
    probability = np.zeros(data.truth.shape)
    probability[rows] = np.nan_to_num(
        view_only_probabilities(data.view[data.train], data.truth[data.train], data.view[rows])
    )
    ranking = rank_trial(Trial(data, probability), rows, resamples)
    return mean_ranking([ranking], data.label_names)


def view_only_probabilities(
    train_views: NDArray[np.str_],
    train_labels: NDArray[np.int8],
    views: NDArray[np.str_],
) -> NDArray[np.float64]:
    """Predict each label from the view position (AP, PA) alone.

    The probability of a label is its prevalence among the training images of that view, or among
    all training images for a view that training does not have. On ChestX-ray14 this alone reaches
    a macro AUROC of about 0.59.

    Args:
        train_views: View of each training image, shape (N,).
        train_labels: Labels of shape (N, C): 1, 0, or -1 for unknown.
        views: View of each image to predict, shape (M,).

    Returns:
        Probabilities of shape (M, C); NaN for a label that no training image has a value for.
    """
    overall = _prevalence(train_labels)
    result = np.tile(overall, (len(views), 1))
    for view in np.unique(views):
        prevalence = _prevalence(train_labels[train_views == view])
        result[views == view] = np.where(np.isnan(prevalence), overall, prevalence)
    return result


def _prevalence(labels: NDArray[np.int8]) -> NDArray[np.float64]:
    return ratio((labels == 1).sum(axis=0), (labels >= 0).sum(axis=0))


def shuffle_labels(
    labels: NDArray[np.int8], splits: Sequence[NDArray[np.intp]], *, seed: int
) -> NDArray[np.int8]:
    """Permute the rows of labels within each split.

    Prevalence and co-occurrence of the findings stay the same, but an image no longer has its own
    labels. Whatever still scores above chance learned something else.

    Args:
        labels: Labels of shape (N, C).
        splits: Rows of each split; rows in none of them keep their labels.
        seed: Seed of the permutations.

    Returns:
        Labels of shape (N, C).
    """
    shuffled = labels.copy()
    generator = np.random.default_rng(seed)
    for rows in splits:
        shuffled[rows] = labels[generator.permutation(rows)]
    return shuffled


def random_features(shape: tuple[int, int], *, seed: int) -> NDArray[np.float16]:
    """Return embeddings of shape (N, D) without information: independent standard normal values."""
    generator = np.random.default_rng(seed)
    features = np.empty(shape, dtype=np.float16)
    for start in range(0, len(features), 4096):  # the float32 values take twice the memory
        chunk = features[start : start + 4096]
        chunk[:] = generator.standard_normal(chunk.shape, dtype=np.float32)
    return features
