"""Controls: what a score would be for reasons that have nothing to do with the single findings."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count, cycle, islice
from math import gcd
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from featurecache.evaluation.repeated_runs import (
    Trial,
    mean_ranking,
    rank_all,
    rank_trial,
    ranking_gain,
    supported_labels,
)
from featurecache.evaluation.simple_predictors import abnormality, is_finding
from featurecache.evaluation.split_data import SplitData
from featurecache.metrics.bootstrap import PatientResamples, resample_patients
from featurecache.metrics.metrics import Control, PairedGain, RankingSummary, TextGain
from featurecache.metrics.sampled_metrics import MeanMetrics, SampledMetrics, sample_metrics

N_SHUFFLES: Final = 5
"""A single shuffle says little: of two classes that differ much, what is learned from shuffled
labels may happen to be the difference, or its opposite."""


def rank_parts(
    data: SplitData,
    score: NDArray[np.floating],
    rows: NDArray[np.intp],
    resamples: PatientResamples,
    *,
    overall: SampledMetrics,
) -> dict[str, RankingSummary | None]:
    """Rank over the labels and images that say more than all of them.

    Args:
        data: Labels, patients and splits.
        score: Scores of shape (N, C).
        rows: Rows to score.
        resamples: Bootstrap samples of the patients of these rows.
        overall: The metrics of these scores over all learned labels and rows.

    Returns:
        "supported", over the labels with enough patients, and "within_abnormal", over the abnormal
        images and the labels with positives and negatives among them. None without such labels.
    """
    supported = data.learned & overall.support.enough
    is_abnormal = abnormality(data.truth, data.label_names)[rows] == 1
    abnormal, truth = rows[is_abnormal], data.truth[rows[is_abnormal]]
    varied = data.learned & (truth == 1).any(axis=0) & (truth == 0).any(axis=0)
    within = None
    if varied.any():
        of_abnormal = replace(resamples, patient_index=resamples.patient_index[is_abnormal])
        trial = Trial(replace(data, learned=varied), score)
        ranking = rank_trial(trial, abnormal, of_abnormal)
        within = mean_ranking([ranking.sampled], data.label_names)
    return {
        "supported": mean_ranking([overall.over(supported)]) if supported.any() else None,
        "within_abnormal": within,
    }


def measure_control(
    data: SplitData,
    score: NDArray[np.floating] | None,
    rows: NDArray[np.intp],
    resamples: PatientResamples,
    *,
    run: Sequence[Trial] = (),
    with_parts: bool = True,
) -> Control | None:
    """Return the metrics of a control's scores (N, C); None where it has none.

    Args:
        data: Labels, patients and splits.
        score: The scores.
        rows: Rows to score.
        resamples: Bootstrap samples of the patients of these rows.
        run: The trainings whose gain over the control is measured; none for no gain.
        with_parts: Whether to rank over supported labels and within abnormal images, too.
    """
    if score is None:
        return None
    overall = rank_trial(Trial(data, score), rows, resamples).sampled
    parts = rank_parts(data, score, rows, resamples, overall=overall) if with_parts else {}
    return Control.model_validate(
        {
            **mean_ranking([overall], data.label_names).to_json(),
            **parts,
            "gain": paired_gain(run, [Trial(data, score)], rows),
        }
    )


def always_negative(
    data: SplitData, rows: NDArray[np.intp], resamples: PatientResamples
) -> Control:
    """Return exact match and Hamming loss of the answer "normal" for every image.

    No finding is predicted; a label such as "No Finding" is.

    Args:
        data: Labels, patients and splits.
        rows: Rows to score.
        resamples: Bootstrap samples of the patients of these rows.
    """
    truth = data.truth[rows]
    predicted = np.tile(~is_finding(data.label_names), (len(rows), 1))
    mean = MeanMetrics(
        [sample_metrics(truth, predicted, predicted.astype(float), resamples, data.learned)]
    )
    undefined = {"auroc": None, "auprc": None}
    return Control.model_validate(
        {
            "macro": undefined,
            "micro": undefined,
            "exact_match": mean.exact_match.value,
            "hamming_loss": mean.hamming_loss.value,
            "ci95": {
                "macro": {},
                "micro": {},
                "exact_match": mean.exact_match.ci95,
                "hamming_loss": mean.hamming_loss.ci95,
            },
        }
    )


def summarize_control(
    trials: Sequence[Trial], rows: NDArray[np.intp], *, n_bootstrap: int
) -> Control | None:
    """Return the mean ranking metrics of a control's trials; undefined where one trial's is.

    Args:
        trials: One trial, or several where the control is random; without any, the result is None.
        rows: Rows to score.
        n_bootstrap: Number of bootstrap samples over patients. Several trials share them out, since
            the variance of their mean needs few of each.
    """
    if not trials:
        return None
    resamples = resample_patients(
        trials[0].data.patient[rows], n_bootstrap=n_bootstrap // len(trials), seed=0
    )
    rankings = [rank_trial(trial, rows, resamples).sampled for trial in trials]
    summary = mean_ranking(rankings, trials[0].data.label_names)
    return Control.model_validate(summary.to_json())


def paired_gain(
    trials: Sequence[Trial], others: Sequence[Trial], rows: NDArray[np.intp]
) -> PairedGain | None:
    """Return how much better some trials rank than others on the same images.

    Args:
        trials: Trials of the run.
        others: Trials that they are compared with. Either one for each, or one for all on one side.
        rows: Rows to score.

    Returns:
        The gain over the labels with enough patients; None without any, or without trials.
    """
    if not trials or not others:
        return None
    together = [*trials, *others]
    labels = supported_labels(together, rows)
    if not labels.any():
        return None
    ranked = rank_all(together, rows, labels)
    first, second = ranked.trials[: len(trials)], ranked.trials[len(trials) :]
    n_pairs = max(len(first), len(second))
    pairs = list(islice(zip(cycle(first), cycle(second), strict=False), n_pairs))
    return PairedGain(
        pairs=n_pairs,
        labels=list(np.array(trials[0].data.label_names)[labels].tolist()),
        **dict(ranking_gain(pairs, ranked.dof)),
    )


def text_gain(
    real: Sequence[Trial], permuted: Sequence[Trial], rows: NDArray[np.intp]
) -> TextGain | None:
    """Return what the label texts contribute over permuted ones, as `paired_gain`.

    Args:
        real: Trials with each label's own texts: one for each permuted trial, or one for all.
        permuted: Trials in which each label has another label's texts.
        rows: Rows to score.
    """
    gain = paired_gain(real, permuted, rows)
    return None if gain is None else TextGain(**dict(gain))


def untrained_controls(
    data: SplitData,
    score: NDArray[np.floating],
    score_of_random: NDArray[np.floating],
    *,
    n_bootstrap: int,
) -> dict[str, Control | None]:
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


def random_features(shape: tuple[int, ...], *, seed: int) -> NDArray[np.float16]:
    """Return features without information: standard normal values.

    Those of embeddings are independent. Tokens, which would take as much memory as a cache takes on
    disk, are windows of one stream of independent values. No two of them begin at the same
    dimension of a token and the same value, so that no token of an image is one of another image.

    Args:
        shape: (N, D) of embeddings, or (N, T, D) of tokens.
        seed: Random seed.
    """
    generator = np.random.default_rng(seed)
    if len(shape) == 3:
        n_images, n_tokens, dim = shape
        step = next(step for step in count(n_tokens) if gcd(step, dim) == 1)
        stream = generator.standard_normal(n_images * step + n_tokens * dim, dtype=np.float32)
        # Writable, although windows share values, because PyTorch takes no other arrays.
        windows = sliding_window_view(stream.astype(np.float16), n_tokens * dim, writeable=True)[
            ::step
        ]
        return windows[:n_images].reshape(shape)
    features = np.empty(shape, dtype=np.float16)
    for start in range(0, len(features), 4096):  # the float32 values take twice the memory
        chunk = features[start : start + 4096]
        chunk[:] = generator.standard_normal(chunk.shape, dtype=np.float32)
    return features
