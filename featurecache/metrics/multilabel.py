"""All metrics of a multi-label problem at once, for the data or for many bootstrap samples."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from featurecache.metrics import ranking as metrics
from featurecache.metrics.ranking import AnyFloats, Floats, Labels

DECISION_METRICS: Final = (
    metrics.precision,
    metrics.recall,
    metrics.specificity,
    metrics.npv,
    metrics.f1,
    metrics.accuracy,
)


@dataclass(frozen=True)
class MetricArrays:
    """Every metric by name, NaN where undefined.

    The leading axes, written ``...``, are () for the data and (B,) for B bootstrap samples.

    Attributes:
        per_label: precision, recall, specificity, npv, f1, accuracy, auroc and auprc, each
            (..., C).
        micro: The same names, each (...), over the pooled known entries of all labels.
        exact_match: (...) fraction of rows with every label right.
        hamming_loss: (...) fraction of known entries with a wrong decision.
    """

    per_label: Mapping[str, Floats]
    micro: Mapping[str, Floats]
    exact_match: Floats
    hamming_loss: Floats

    @property
    def macro(self) -> dict[str, Floats]:
        """The mean of each metric over the labels where it is defined, each (...)."""
        return {name: metrics.macro(values) for name, values in self.per_label.items()}

    def with_labels(self, learned: NDArray[np.bool_]) -> "MetricArrays":
        """Return the metrics with those of further labels, which are undefined.

        Args:
            learned: (C,) whether a label has metrics here; they are in the same order.
        """
        per_label = {}
        for name, values in self.per_label.items():
            per_label[name] = np.full((*values.shape[:-1], len(learned)), np.nan)
            per_label[name][..., learned] = values
        return replace(self, per_label=per_label)

    def before(self, samples: "MetricArrays") -> "MetricArrays":
        """Return the metrics of the data (without leading axes) in front of those of samples."""

        def join(first: Floats, others: Floats) -> Floats:
            return np.concatenate([first[np.newaxis], others])

        def join_all(
            first: Mapping[str, Floats], others: Mapping[str, Floats]
        ) -> dict[str, Floats]:
            return {name: join(first[name], values) for name, values in others.items()}

        return MetricArrays(
            per_label=join_all(self.per_label, samples.per_label),
            micro=join_all(self.micro, samples.micro),
            exact_match=join(self.exact_match, samples.exact_match),
            hamming_loss=join(self.hamming_loss, samples.hamming_loss),
        )

    def of_label(self, column: int) -> dict[str, Floats]:
        """Return each metric of one label, each (...)."""
        return {name: values[..., column] for name, values in self.per_label.items()}


def compute_metrics(
    truth: Labels, predicted: NDArray[np.bool_], ranking: AnyFloats
) -> MetricArrays:
    """Compute every metric of a multi-label problem.

    Args:
        truth: (N, C) labels 1, 0 or -1 (unknown).
        predicted: (N, C) binary decisions.
        ranking: (N, C) scores for AUROC and AUPRC.

    Returns:
        The metrics, without leading axes.

    Raises:
        ValueError: Shapes differ, a score is NaN, or a label is not 1, 0 or -1.
    """
    columns = range(truth.shape[1])
    auroc, auprc = np.array(
        [metrics.auroc_and_auprc(truth[:, c], ranking[:, c]) for c in columns]
    ).T
    micro_auroc, micro_auprc = np.array(metrics.auroc_and_auprc(truth, ranking))
    return metrics_from_counts(
        confusions=np.array([metrics.confusion(truth[:, c], predicted[:, c]) for c in columns]),
        auroc=auroc,
        auprc=auprc,
        micro_auroc=micro_auroc,
        micro_auprc=micro_auprc,
        exact_match=np.array(metrics.exact_match(truth, predicted)),
    )


def metrics_from_counts(
    *,
    confusions: Floats,
    auroc: Floats,
    auprc: Floats,
    micro_auroc: Floats,
    micro_auprc: Floats,
    exact_match: Floats,
) -> MetricArrays:
    """Add the metrics that follow from confusion matrices.

    Args:
        confusions: (..., C, 2, 2), [[tn, fp], [fn, tp]] of each label.
        auroc: (..., C).
        auprc: (..., C).
        micro_auroc: (...).
        micro_auprc: (...).
        exact_match: (...).

    Returns:
        The metrics, with the given leading axes.
    """
    pooled = confusions.sum(axis=-3)
    return MetricArrays(
        per_label={**_decision_metrics(confusions), "auroc": auroc, "auprc": auprc},
        micro={**_decision_metrics(pooled), "auroc": micro_auroc, "auprc": micro_auprc},
        exact_match=exact_match,
        hamming_loss=metrics.hamming_loss(pooled),
    )


def _decision_metrics(confusions: Floats) -> dict[str, Floats]:
    return {metric.__name__: metric(confusions) for metric in DECISION_METRICS}
