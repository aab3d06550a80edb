"""Score predictions at given thresholds: every metric with its 95 % interval over patients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from featurecache.metrics.bootstrap import PatientResamples
from featurecache.metrics.metrics import (
    DecisionIntervals,
    DecisionScores,
    LabelScores,
    ScoreIntervals,
    Scores,
)
from featurecache.metrics.ranking import AnyFloats, Labels, confusion
from featurecache.metrics.sampled_metrics import (
    Estimate,
    MeanMetrics,
    SampledMetrics,
    sample_metrics,
)


@dataclass(frozen=True)
class ScoredPredictions:
    """Metrics of predictions, and how they were computed.

    Attributes:
        scores: The metrics.
        intervals: Their 95 % intervals.
        macro_labels: The labels behind the macro averages.
        n_patients: Number of patients.
        n_bootstrap: Number of bootstrap samples behind the intervals.
        sampled: The metrics on the data and on the bootstrap samples.
    """

    scores: Scores
    intervals: ScoreIntervals
    macro_labels: list[str]
    n_patients: int
    n_bootstrap: int
    sampled: SampledMetrics


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
    """Compute every metric, with 95 % intervals over patients.

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
        The metrics. Intervals need enough patients (see `label_support`); with a single one there
        are none, and ``n_bootstrap`` is 0.

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
    sampled = sample_metrics(truth, predicted, ranking, resamples, learned)
    mean, support = MeanMetrics([sampled]), sampled.support
    labels = [mean.label_metrics(c) for c in range(len(label_names))]
    per_label = {}
    for c, name in enumerate(label_names):
        counts = confusion(truth[:, c], predicted[:, c]).astype(int).tolist()
        per_label[name] = LabelScores.model_validate(
            {
                **_values(labels[c]),
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
    macro, micro = mean.macro_metrics(), mean.micro_metrics()
    scores = Scores(
        macro=DecisionScores.model_validate(_values(macro)),
        micro=DecisionScores.model_validate(_values(micro)),
        exact_match=mean.exact_match.value,
        hamming_loss=mean.hamming_loss.value,
        per_label=per_label,
    )
    intervals = ScoreIntervals(
        macro=_intervals(macro),
        micro=_intervals(micro),
        exact_match=mean.exact_match.ci95,
        hamming_loss=mean.hamming_loss.ci95,
        per_label={
            name: _intervals(metrics) for name, metrics in zip(label_names, labels, strict=True)
        },
    )
    return ScoredPredictions(
        scores=scores,
        intervals=intervals,
        macro_labels=np.array(label_names)[mean.macro_labels].tolist(),
        n_patients=n_patients,
        n_bootstrap=len(resamples.counts),
        sampled=sampled,
    )


def _values(metrics: Mapping[str, Estimate]) -> dict[str, float | None]:
    return {name: metric.value for name, metric in metrics.items()}


def _intervals(metrics: Mapping[str, Estimate]) -> DecisionIntervals:
    return DecisionIntervals.model_validate({name: metric.ci95 for name, metric in metrics.items()})


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
