"""Score predictions at given thresholds: every metric with its bootstrap interval."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from featurecache.metrics.bootstrap import (
    PatientResamples,
    bootstrap_metrics,
    interval,
    none_if_nan,
)
from featurecache.metrics.label_support import patient_support
from featurecache.metrics.metrics import (
    DecisionIntervals,
    DecisionScores,
    LabelScores,
    ScoreIntervals,
    Scores,
)
from featurecache.metrics.multilabel import compute_metrics
from featurecache.metrics.ranking import AnyFloats, Floats, Labels, confusion

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class ScoredPredictions:
    """Metrics of predictions, and how they were computed.

    Attributes:
        scores: The metrics.
        intervals: Their 95 % intervals.
        macro_labels: The labels behind the macro averages.
        n_patients: Number of patients.
        n_bootstrap: Number of bootstrap samples behind the intervals.
    """

    scores: Scores
    intervals: ScoreIntervals
    macro_labels: list[str]
    n_patients: int
    n_bootstrap: int


def score_predictions(
    truth: Labels,
    probability: AnyFloats,
    *,
    label_names: Sequence[str],
    thresholds: AnyFloats,
    resamples: PatientResamples,
    ranking: AnyFloats | None = None,
    learned: NDArray[np.bool_] | None = None,
    threshold_sources: Sequence[str] | None = None,
) -> ScoredPredictions:
    """Compute every metric, with 95 % intervals from a bootstrap over patients.

    Args:
        truth: Labels of shape (N, C): 1, 0, or -1 for unknown entries, which are left out.
        probability: Probabilities of shape (N, C) in [0, 1]. A label is predicted where
            ``probability >= threshold``.
        label_names: C distinct names.
        thresholds: Thresholds of shape (C,) in [0, 1].
        resamples: Bootstrap samples of the patients of these rows.
        ranking: Scores of shape (N, C) for AUROC and AUPRC in place of the probabilities. Pass the
            logits where probabilities saturate and tie, as those of zero-shot do.
        learned: Shape (C,); metrics of other labels are undefined. None for all.
        threshold_sources: Where each threshold comes from, C strings.

    Returns:
        The metrics. An interval needs at least two patients: with one, all are None and
        ``n_bootstrap`` is 0.

    Raises:
        ValueError: There are no rows, shapes or names do not match, a probability or threshold is
            NaN or outside [0, 1], a ranking score is NaN, or a label is not 1, 0 or -1.
    """
    _check(truth, probability, label_names=label_names, thresholds=thresholds)
    if ranking is not None and ranking.shape != truth.shape:
        raise ValueError(f"the ranking has shape {ranking.shape}, but the labels {truth.shape}")
    probability, thresholds = probability.astype(np.float64), thresholds.astype(np.float64)
    ranking = probability if ranking is None else ranking
    predicted: NDArray[np.bool_] = probability >= thresholds
    n_patients = resamples.counts.shape[1]
    if n_patients == 1:
        resamples = replace(resamples, counts=resamples.counts[:0])

    learned = np.ones(len(label_names), dtype=np.bool_) if learned is None else learned
    inputs = (truth[:, learned], predicted[:, learned], ranking[:, learned])
    arrays = compute_metrics(*inputs).with_labels(learned)
    resampled = bootstrap_metrics(*inputs, resamples).with_labels(learned)
    support = patient_support(truth, resamples.patient_index)
    in_macro = learned & (support.positive > 0) & (support.negative > 0)
    per_label = {}
    for c, name in enumerate(label_names):
        counts = confusion(truth[:, c], predicted[:, c]).astype(int).tolist()
        per_label[name] = LabelScores.model_validate(
            {
                **_convert(arrays.of_label(c), none_if_nan),
                "n_positive": int((truth[:, c] == 1).sum()),
                "n_known": int((truth[:, c] >= 0).sum()),
                "n_positive_patients": int(support.positive[c]),
                "n_negative_patients": int(support.negative[c]),
                "no_interval": support.reason(c) if learned[c] else "it was not learned",
                "threshold": float(thresholds[c]),
                "threshold_source": None if threshold_sources is None else threshold_sources[c],
                "confusion": counts if learned[c] else None,
            }
        )
    scores = Scores(
        macro=DecisionScores.model_validate(_convert(arrays.over(in_macro).macro, none_if_nan)),
        micro=DecisionScores.model_validate(_convert(arrays.micro, none_if_nan)),
        exact_match=none_if_nan(arrays.exact_match),
        hamming_loss=none_if_nan(arrays.hamming_loss),
        per_label=per_label,
    )
    intervals = ScoreIntervals(
        macro=DecisionIntervals.model_validate(_convert(resampled.over(in_macro).macro, interval)),
        micro=DecisionIntervals.model_validate(_convert(resampled.micro, interval)),
        exact_match=interval(resampled.exact_match),
        hamming_loss=interval(resampled.hamming_loss),
        per_label={
            name: DecisionIntervals.model_validate(_convert(resampled.of_label(c), interval))
            if support.enough[c]
            else DecisionIntervals()
            for c, name in enumerate(label_names)
        },
    )
    return ScoredPredictions(
        scores=scores,
        intervals=intervals,
        macro_labels=[name for name, counts in zip(label_names, in_macro, strict=True) if counts],
        n_patients=n_patients,
        n_bootstrap=len(resamples.counts),
    )


def _convert(
    values: Mapping[str, Floats], convert: Callable[[Floats], _Value]
) -> dict[str, _Value]:
    """Convert the array of each metric, by name."""
    return {name: convert(value) for name, value in values.items()}


def _check(
    truth: Labels,
    probability: AnyFloats,
    *,
    label_names: Sequence[str],
    thresholds: AnyFloats,
) -> None:
    if truth.ndim != 2 or truth.size == 0:
        raise ValueError(f"labels must be (N, C) with rows and labels, not {truth.shape}")
    n, c = truth.shape
    if probability.shape != (n, c):
        raise ValueError(f"probabilities have shape {probability.shape}, but labels {(n, c)}")
    if len(label_names) != c or len(set(label_names)) != c:
        raise ValueError(f"{c} labels need {c} distinct names, not {list(label_names)}")
    if thresholds.shape != (c,):
        raise ValueError(f"{c} labels need thresholds of shape ({c},), not {thresholds.shape}")
    for what, values in (("probabilities", probability), ("thresholds", thresholds)):
        valid = (values >= 0) & (values <= 1)  # false for NaN too
        if not valid.all():
            raise ValueError(f"{(~valid).sum()} of {values.size} {what} are NaN or outside [0, 1]")
