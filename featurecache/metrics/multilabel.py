"""All metrics of a multi-label problem at once, of the data or of many bootstrap draws."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featurecache.metrics import ranking as metrics
from featurecache.metrics.ranking import AnyFloats, Floats, Labels


@dataclass(frozen=True)
class MetricArrays:
    """Every metric, by name; undefined is NaN.

    The leading axes, written ``...``, are none for the data and (draws,) for a bootstrap.

    Attributes:
        per_label: precision, recall, f1, accuracy, auroc and auprc, each (..., C).
        micro: the same names, each (...), pooled over all known entries.
        exact_match: (...) share of rows with every label right.
        hamming_loss: (...) share of known entries predicted wrongly.
    """

    per_label: Mapping[str, Floats]
    micro: Mapping[str, Floats]
    exact_match: Floats
    hamming_loss: Floats

    @property
    def macro(self) -> dict[str, Floats]:
        """The mean over the labels where each metric is defined, each (...)."""
        return {name: metrics.macro(values) for name, values in self.per_label.items()}


def compute_metrics(
    truth: Labels, predicted: npt.NDArray[np.bool_], ranking: AnyFloats
) -> MetricArrays:
    """Every metric of the data.

    Args:
        truth: (N, C) labels 1, 0 or -1.
        predicted: (N, C) decisions.
        ranking: (N, C) scores for AUROC and AUPRC.

    Raises:
        ValueError: shapes differ, a score is NaN, or a label is none of 1, 0 and -1.
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
    """Fill in what follows from confusion matrices.

    Args:
        confusions: (..., C, 2, 2), [[tn, fp], [fn, tp]] of each label.
        auroc: (..., C).
        auprc: (..., C).
        micro_auroc: (...).
        micro_auprc: (...).
        exact_match: (...).
    """
    pooled = confusions.sum(axis=-3)
    return MetricArrays(
        per_label={**_of_decisions(confusions), "auroc": auroc, "auprc": auprc},
        micro={**_of_decisions(pooled), "auroc": micro_auroc, "auprc": micro_auprc},
        exact_match=exact_match,
        hamming_loss=metrics.hamming_loss(pooled),
    )


def _of_decisions(confusions: Floats) -> dict[str, Floats]:
    return {
        "precision": metrics.precision(confusions),
        "recall": metrics.recall(confusions),
        "f1": metrics.f1(confusions),
        "accuracy": metrics.accuracy(confusions),
    }
