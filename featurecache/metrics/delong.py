"""DeLong's confidence interval of the AUROC, for images that are independent of each other.

DeLong, DeLong and Clarke-Pearson (Biometrics 44, 1988), with the midranks of Sun and Xu (IEEE
Signal Processing Letters 21, 2014), which take O(N log N).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from featurecache.metrics.document import Document, Interval
from featurecache.metrics.label_support import patient_support
from featurecache.metrics.ranking import AnyFloats, Floats, Labels, valid_mask

_NORMAL_QUANTILE: Final = 1.959963984540054


def _midranks(values: AnyFloats) -> Floats:
    """Return ranks from 1, and of equal values the mean of theirs."""
    # Not SciPy's rankdata: importing scipy.stats takes longer than all of this.
    _, level, count = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(count) - (count - 1) / 2)[level]
    return ranks


@dataclass(frozen=True)
class Placements:
    """Where each image stands among those of the other class; a tie counts one half.

    Attributes:
        positive: (M,) share of the negatives that each positive outranks.
        negative: (N,) share of the positives that outrank each negative.
    """

    positive: Floats
    negative: Floats

    @classmethod
    def of(cls, positive: AnyFloats, negative: AnyFloats) -> Self:
        """Return the placements of the scores of M positives and N negatives, at least one each."""
        m, n = len(positive), len(negative)
        together = _midranks(np.concatenate([positive, negative]))
        return cls(
            positive=(together[:m] - _midranks(positive)) / n,
            negative=1 - (together[m:] - _midranks(negative)) / m,
        )

    @property
    def auroc(self) -> float:
        """The AUROC, the mean of either placements."""
        return float(self.positive.mean())

    @property
    def variance(self) -> float:
        """DeLong's variance of the AUROC; NaN with fewer than two images of a class."""
        if min(len(self.positive), len(self.negative)) < 2:
            return float("nan")
        return float(
            self.positive.var(ddof=1) / len(self.positive)
            + self.negative.var(ddof=1) / len(self.negative)
        )


def delong_interval(truth: Labels, score: AnyFloats) -> tuple[float, float] | None:
    """Return the 95 % interval of the AUROC of independent images, clipped to [0, 1].

    Args:
        truth: (N,) labels 1, 0 or -1 (unknown).
        score: (N,) scores; higher means more positive.

    Returns:
        Lower and upper bound; None with fewer than two images of a class, and where the scores
        separate the classes, so that nothing varies.

    Raises:
        ValueError: As `valid_mask`.
    """
    valid = valid_mask(truth, score)
    positive, negative = score[valid & (truth == 1)], score[valid & (truth == 0)]
    if min(len(positive), len(negative)) < 2:
        return None
    placements = Placements.of(positive, negative)
    half = _NORMAL_QUANTILE * np.sqrt(placements.variance)
    if half == 0:
        return None
    return max(placements.auroc - half, 0.0), min(placements.auroc + half, 1.0)


class LabelDelong(Document):
    """DeLong's interval of the AUROC of one label.

    Attributes:
        auroc: The 95 % interval.
        reason: Why there is none; None where there is one.
    """

    auroc: Interval | None
    reason: str | None = None


class Delong(Document):
    """DeLong's intervals of the AUROC, beside those over patients.

    Attributes:
        reason: Why there are none: images depend on each other. None where there are.
        per_label: The intervals by label name.
    """

    reason: str | None = None
    per_label: dict[str, LabelDelong]


def measure_delong(
    truth: Labels,
    ranking: AnyFloats,
    *,
    label_names: Sequence[str],
    patients: NDArray[Any],
    learned: NDArray[np.bool_],
    patients_known: bool = True,
) -> Delong:
    """Return DeLong's intervals, which need independent images: one of each patient.

    Args:
        truth: (N, C) labels 1, 0 or -1 (unknown).
        ranking: (N, C) scores.
        label_names: C names.
        patients: (N,) patient of each image.
        learned: (C,) whether training had positives and negatives of the label.
        patients_known: Whether ``patients`` are known; otherwise each image counts as its own.
    """
    _, patient_index = np.unique(patients, return_inverse=True)
    reason = None
    if not patients_known:
        reason = "patients are unknown, so images may depend on each other"
    elif len(np.unique(patient_index)) < len(patients):
        reason = "a patient has several images, which depend on each other"
    support = patient_support(truth, patient_index)
    labels = {}
    for c, name in enumerate(label_names):
        why = reason or (support.reason(c) if learned[c] else "it was not learned")
        interval = None if why else delong_interval(truth[:, c], ranking[:, c])
        if not why and interval is None:
            why = "the scores separate positives from negatives, so that nothing varies"
        labels[name] = LabelDelong(auroc=interval, reason=why)
    return Delong(reason=reason, per_label=labels)
