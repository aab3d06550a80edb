"""Controls: what a score would be for a reason that has nothing to do with the finding."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.evaluation.repeated_runs import (
    FIGURES,
    Trial,
    mean_ranking,
    rank_all,
    rank_trial,
    ranking_gain,
)
from featurecache.evaluation.split_data import SplitData
from featurecache.metrics.bootstrap import none_if_nan, resample_patients

SHUFFLES: Final = 5
"""One shuffle says little: of two classes that differ much, what is learned from shuffled labels
may happen to be the difference, or its opposite."""


def control_figures(
    trials: Sequence[Trial], scored: NDArray[np.intp], *, n_bootstrap: int, seed: int = 0
) -> dict[str, Any]:
    """What stands under ``controls`` for one of them: the figures that need no threshold.

    Figures are means over the trials, undefined where one trial's is.

    Args:
        trials: one, or several of what is left to chance.
        scored: the rows that the figures are of.
        n_bootstrap: number of bootstrap samples over patients.
        seed: of the draws.
    """
    rankings = []
    for number, trial in enumerate(trials):
        patients = resample_patients(
            trial.rows.patient[scored], n_bootstrap=n_bootstrap // len(trials), seed=seed + number
        )
        rankings.append(rank_trial(trial, scored, patients))
    return {
        **mean_ranking(rankings),
        "per_label": {
            label: {
                name: none_if_nan(np.mean([one.per_label[name][c] for one in rankings]))
                for name in FIGURES
            }
            for c, label in enumerate(trials[0].rows.label_names)
        },
    }


def text_gain(
    real: Sequence[Trial], permuted: Sequence[Trial], scored: NDArray[np.intp], *, n_bootstrap: int
) -> dict[str, Any] | None:
    """What real texts bring over permuted ones, as ``metrics.json`` has it.

    Args:
        real: one for each of those permuted, or one for all of them.
        permuted: none gives None.
        scored: the rows that the figures are of.
        n_bootstrap: number of bootstrap samples over patients.
    """
    if not permuted:
        return None
    rankings = rank_all([*real, *permuted], scored, n_bootstrap=n_bootstrap)
    pairs = list(zip(cycle(rankings[: len(real)]), rankings[len(real) :], strict=False))
    return {"against": "permuted", "pairs": len(pairs), **ranking_gain(pairs)}


def untrained_controls(
    rows: SplitData,
    score: NDArray[np.floating],
    score_of_random: NDArray[np.floating],
    *,
    n_bootstrap: int,
) -> dict[str, Any]:
    """Controls of scores that are not trained anew for them.

    Args:
        rows: the data set.
        score: (N, C) what ranks its images; held against other images' labels.
        score_of_random: (M, C) what the same method makes of random embeddings, of the M rows that
            are scored.
        n_bootstrap: number of bootstrap samples over patients.

    Returns:
        ``shuffled_labels`` and ``random_features``, each as ``control_figures`` has it.
    """
    _, scored = rows.scored
    shuffled = [
        Trial(replace(rows, truth=shuffled_labels(rows.truth, [scored], seed=number)), score)
        for number in range(SHUFFLES)
    ]
    random = np.zeros_like(score)
    random[scored] = score_of_random
    return {
        "shuffled_labels": control_figures(shuffled, scored, n_bootstrap=n_bootstrap),
        "random_features": control_figures([Trial(rows, random)], scored, n_bootstrap=n_bootstrap),
    }


def other_labels(number: int, *, seed: int) -> NDArray[np.intp]:
    """For each of C labels another one, each given once: (C,), of two labels or more."""
    # One cycle through all labels in random order leaves none in its place.
    order = np.random.default_rng(seed).permutation(number)
    others = np.empty(number, dtype=np.intp)
    others[order] = np.roll(order, 1)
    return others


def permuted_texts(rows: SplitData, score: NDArray[np.floating]) -> list[Trial]:
    """Zero-shot scores where each label is given another label's texts, in several ways.

    To exchange the texts is to exchange the columns of their scores. What is left of a figure is
    what any finding's text would score, such as that an image is of an ill patient. None for a
    single label, which has nothing to be exchanged with.

    Args:
        rows: the data set.
        score: (N, C) what ranks its images.
    """
    if score.shape[1] < 2:
        return []
    return [
        Trial(rows, score[:, other_labels(score.shape[1], seed=number)])
        for number in range(SHUFFLES)
    ]


def view_only(
    rows: SplitData, scored: NDArray[np.intp], *, n_bootstrap: int, seed: int = 0
) -> dict[str, Any] | None:
    """What the view position alone would score; None where views or training rows are missing."""
    known = rows.view != ""
    if not known[scored].any() or not known[rows.train].any():
        return None
    probability = np.zeros(rows.truth.shape)
    probability[scored] = np.nan_to_num(
        view_only_probabilities(rows.view[rows.train], rows.truth[rows.train], rows.view[scored])
    )
    return control_figures([Trial(rows, probability)], scored, n_bootstrap=n_bootstrap, seed=seed)


def view_only_probabilities(
    train_views: NDArray[np.str_],
    train_labels: NDArray[np.int8],
    views: NDArray[np.str_],
) -> NDArray[np.float64]:
    """Predict each label from the view position (AP, PA) alone.

    The probability of a label is its share among the training images of that view; an unseen view
    gets the share among all. On ChestX-ray14 this alone reaches a macro AUROC of about 0.59.

    Args:
        train_views: (N,) view of each training image.
        train_labels: (N, C) of 1, 0, -1 unknown.
        views: (M,) view of each image to predict.

    Returns:
        (M, C); NaN for a label of which nothing is known in training.
    """
    overall = _shares(train_labels)
    result = np.tile(overall, (len(views), 1))
    for view in np.unique(views):
        shares = _shares(train_labels[train_views == view])
        result[views == view] = np.where(np.isnan(shares), overall, shares)
    return result


def _shares(labels: NDArray[np.int8]) -> NDArray[np.float64]:
    known = (labels >= 0).sum(axis=0)
    positive = (labels == 1).sum(axis=0)
    shares: NDArray[np.float64] = np.divide(
        positive, known, out=np.full(labels.shape[1], np.nan), where=known > 0
    )
    return shares


def shuffled_labels(
    labels: NDArray[np.int8], splits: Sequence[NDArray[np.intp]], *, seed: int
) -> NDArray[np.int8]:
    """Labels of other images: the rows are permuted within each split.

    How often a finding is there, and with which others, stays as it was; what any image has to do
    with it does not. Whatever still scores above chance learned something else.

    Args:
        labels: (N, C).
        splits: the rows of each split; rows in none of them keep their labels.
        seed: of the permutations.
    """
    shuffled = labels.copy()
    generator = np.random.default_rng(seed)
    for rows in splits:
        shuffled[rows] = labels[generator.permutation(rows)]
    return shuffled


def random_features(shape: tuple[int, int], *, seed: int) -> NDArray[np.float16]:
    """Embeddings (N, D) that say nothing: independent standard normal values."""
    generator = np.random.default_rng(seed)
    features = np.empty(shape, dtype=np.float16)
    for start in range(0, len(features), 4096):  # the draws are twice as large as what is kept
        part = features[start : start + 4096]
        part[:] = generator.standard_normal(part.shape, dtype=np.float32)
    return features
