"""From probabilities to the metrics document: thresholds from validation, figures on test."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import UsageError
from featurecache.evaluation.controls import view_only
from featurecache.evaluation.metrics_document import metrics_document
from featurecache.evaluation.split_data import SplitData
from featurecache.metrics.calibration import calibration_document, fit_platt, log_odds
from featurecache.metrics.thresholds import best_f1_thresholds
from featurecache.store.layout import UNKNOWN

AT_HALF = ("macro", "micro", "exact_match", "hamming_loss", "per_label")


def evaluate(
    rows: SplitData,
    probability: NDArray[np.floating],
    *,
    ranking: NDArray[np.floating] | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """The metrics document of predictions.

    Figures are those of the test rows. Thresholds are those of the best F1 on the validation rows,
    0.5 for a label without validation positives; ``threshold_source`` says which. The same figures
    at 0.5 for all labels stand under ``at_half``, and under ``calibration`` how far probabilities
    are from frequencies, before and after Platt's correction fitted on validation. Where there are
    no test rows the figures are those of validation, at 0.5, and ``split`` says so.

    Args:
        rows: what is scored.
        probability: (N, C) in [0, 1].
        ranking: (N, C) scores to rank by, where probabilities saturate; None for probabilities.
        n_bootstrap: number of bootstrap samples over patients.
        seed: of the draws.

    Raises:
        UsageError: no label was learned, or there are neither test nor validation rows.
    """
    split, scored = rows.scored
    if len(scored) == 0:
        raise UsageError(
            "there are neither test nor validation images to score: give some the split 'test'"
        )
    chosen = np.full(len(rows.label_names), np.nan)
    if split == "test" and len(rows.val):
        chosen = best_f1_thresholds(rows.truth[rows.val], probability[rows.val])
    document = evaluate_at(
        rows,
        probability,
        scored=scored,
        split=split,
        thresholds=np.where(np.isnan(chosen), 0.5, chosen),
        ranking=ranking,
        n_bootstrap=n_bootstrap,
        seed=seed,
    )
    for name, threshold in zip(rows.label_names, chosen, strict=True):
        source = "0.5" if np.isnan(threshold) else "validation"
        document["per_label"][name]["threshold_source"] = source
    document["calibration"] = None
    if split == "test" and len(rows.val):
        document["calibration"] = _calibration(
            rows,
            probability,
            log_odds(probability) if ranking is None else ranking,
            n_bootstrap,
            seed,
        )
    return document


def evaluate_at(
    rows: SplitData,
    probability: NDArray[np.floating],
    *,
    scored: NDArray[np.intp],
    split: str,
    thresholds: NDArray[np.float64],
    ranking: NDArray[np.floating] | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """The metrics document of predictions at thresholds that are given.

    Args:
        rows: the data set.
        probability: (N, C) in [0, 1].
        scored: the rows that the figures are of.
        split: what they are called.
        thresholds: (C,).
        ranking: (N, C) scores to rank by; None for probabilities.
        n_bootstrap: number of bootstrap samples over patients.
        seed: of the draws.

    Raises:
        UsageError: no label was learned.
    """

    def figures(thresholds: NDArray[np.floating], n_bootstrap: int) -> dict[str, Any]:
        return _figures(
            rows,
            scored,
            probability,
            thresholds,
            ranking=ranking,
            split=split,
            n_bootstrap=n_bootstrap,
            seed=seed,
        )

    document = figures(thresholds, n_bootstrap)
    at_half = figures(np.full_like(thresholds, 0.5), 0)
    document["at_half"] = {key: at_half[key] for key in AT_HALF}
    document["controls"] = {
        "view_only": view_only(rows, scored, n_bootstrap=n_bootstrap, seed=seed)
    }
    return document


def caveats(
    *, model: str, dataset: str, exposed: bool, image_level_split: bool, has_test: bool
) -> list[str]:
    """What a reader of figures has to know of the images and the encoder behind them."""
    warnings = []
    if exposed:
        warnings.append(
            f"possible {dataset.upper()} exposure: the training of {model} may have seen this "
            "data set, so the figures may not be those of unseen films"
        )
    if image_level_split:
        warnings.append(
            "the split is by image: one patient may be in training and test, so the figures are "
            "optimistic"
        )
    if not has_test:
        warnings.append("there are no test images: the figures are those of the validation images")
    return warnings


def _figures(
    rows: SplitData,
    scored: NDArray[np.intp],
    probability: NDArray[np.floating],
    thresholds: NDArray[np.floating],
    *,
    ranking: NDArray[np.floating] | None,
    split: str,
    n_bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """The figures of the learned labels, with undefined ones in the others' places."""
    if not rows.learned.any():
        raise UsageError(
            "no label has both positives and negatives among the training images: nothing can be "
            "learned, and nothing scored"
        )
    columns = np.flatnonzero(rows.learned)
    grid = np.ix_(scored, columns)
    document = metrics_document(
        rows.truth[grid],
        probability[grid],
        label_names=[rows.label_names[column] for column in columns],
        thresholds=thresholds[columns],
        patients=rows.patient[scored],
        split=split,
        ranking=None if ranking is None else ranking[grid],
        n_bootstrap=n_bootstrap,
        seed=seed,
    )
    per_label, bounds = document["per_label"], document["ci95"]["per_label"]
    measured = rows.label_names[columns[0]]
    for column in np.flatnonzero(~rows.learned):
        name = rows.label_names[column]
        truth = rows.truth[scored, column]
        per_label[name] = dict.fromkeys(per_label[measured]) | {
            "n_positive": int((truth == 1).sum()),
            "n_known": int((truth >= 0).sum()),
            "threshold": float(thresholds[column]),
        }
        bounds[name] = dict.fromkeys(bounds[measured])
    document["per_label"] = {name: per_label[name] for name in rows.label_names}
    document["ci95"]["per_label"] = {name: bounds[name] for name in rows.label_names}
    return document


def _calibration(
    rows: SplitData,
    probability: NDArray[np.floating],
    score: NDArray[np.floating],
    n_bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """Calibration on test of the labels that were learned, corrected by validation."""
    truth = np.where(rows.learned, rows.truth, UNKNOWN)
    return calibration_document(
        truth[rows.test],
        score[rows.test],
        probability[rows.test],
        fit_platt(truth[rows.val], score[rows.val]),
        label_names=rows.label_names,
        patients=rows.patient[rows.test],
        n_bootstrap=n_bootstrap,
        seed=seed,
    )
