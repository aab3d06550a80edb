"""Label support: numbers of positives and negatives, and prevalence, by split and view."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from featurecache.datasets.splits import SPLITS
from featurecache.metrics.label_support import MIN_PATIENTS
from featurecache.store.cache import Cache

TYPICAL_AUROC: Final = 0.8


@dataclass(frozen=True)
class PatientCounts:
    """Numbers of patients with a positive and with a negative image."""

    positive: int
    negative: int


@dataclass(frozen=True)
class SplitSupport:
    """Support of a label in one split.

    Attributes:
        positive: Number of positive images.
        negative: Number of negative images.
        unknown: Number of images whose label is unknown.
        patients: Numbers of patients.
        prevalence: Fraction of positives among images with a known label; None without any.
        expected_width: Expected width of the 95 % interval of an AUROC of 0.8.
        state: "enough"; "too few" patients with a positive or with a negative image for an interval
            (`metrics.label_support.MIN_PATIENTS`); "constant", where all known labels are equal; or
            "unknown", where no label is known.
    """

    positive: int
    negative: int
    unknown: int
    patients: PatientCounts
    prevalence: float | None
    expected_width: float | None
    state: str


@dataclass(frozen=True)
class ViewSupport:
    """Support of a label in one view.

    Attributes:
        known: Number of images with a known label.
        prevalence: Fraction of positives among them; None without any.
    """

    known: int
    prevalence: float | None


@dataclass(frozen=True)
class LabelSupport:
    """Support of a label.

    Attributes:
        splits: Support by split.
        views: Support by view; empty where views are unknown.
    """

    splits: Mapping[str, SplitSupport]
    views: Mapping[str, ViewSupport]


def expected_width(
    n_positive: int, n_negative: int, *, auroc: float = TYPICAL_AUROC
) -> float | None:
    """Return the expected width of the 95 % interval of an AUROC.

    Hanley and McNeil, Radiology 143 (1982), with patients instead of images, since several images
    of one patient carry less information than as many patients.

    Args:
        n_positive: Number of patients with a positive image.
        n_negative: Number of patients with a negative image.
        auroc: The AUROC.

    Returns:
        Twice 1.96 standard errors; None without positives or without negatives.
    """
    if not n_positive or not n_negative:
        return None
    # Probabilities that two random positives both score above a random negative, and that a random
    # positive scores above two random negatives.
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    variance = (
        auroc * (1 - auroc)
        + (n_positive - 1) * (q1 - auroc**2)
        + (n_negative - 1) * (q2 - auroc**2)
    ) / (n_positive * n_negative)
    return float(2 * 1.96 * np.sqrt(variance))


def label_support(cache: Cache) -> dict[str, LabelSupport]:
    """Count positives and negatives of each label, by split and by view."""
    splits = {split: rows for split in SPLITS if (rows := cache.splits == split).any()}
    views = {view: cache.views == view for view in np.unique(cache.views).tolist() if view}
    return {
        name: LabelSupport(
            splits={
                split: _split_support(values[rows], cache.patients[rows])
                for split, rows in splits.items()
            },
            views={
                view: ViewSupport(int((values[rows] >= 0).sum()), _prevalence(values[rows]))
                for view, rows in views.items()
            },
        )
        for name, values in zip(cache.labels.names, cache.labels.values.T, strict=True)
    }


def _split_support(values: NDArray[np.int8], patients: NDArray[np.str_]) -> SplitSupport:
    positive, negative = (len(np.unique(patients[values == value])) for value in (1, 0))
    if positive and negative:
        state = "enough" if min(positive, negative) >= MIN_PATIENTS else "too few"
    else:
        state = "constant" if positive or negative else "unknown"
    return SplitSupport(
        positive=int((values == 1).sum()),
        negative=int((values == 0).sum()),
        unknown=int((values == -1).sum()),
        patients=PatientCounts(positive, negative),
        prevalence=_prevalence(values),
        expected_width=expected_width(positive, negative),
        state=state,
    )


def _prevalence(values: NDArray[np.int8]) -> float | None:
    valid = values[values >= 0]
    return float((valid == 1).mean()) if len(valid) else None
