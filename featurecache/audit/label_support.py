"""Which labels can be scored at all: positives, negatives and prevalence, by split and by view."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from featurecache.datasets.splits import SPLITS
from featurecache.store.cache import Cache

TYPICAL_AUROC: Final = 0.8
WIDEST: Final = 0.2
"""A label has too few positives or negatives where the 95 % interval of an AUROC of 0.8 would be
wider than this, from 0.7 to 0.9: it could not tell a good encoder from a poor one."""


def expected_width(positive: int, negative: int, *, area: float = TYPICAL_AUROC) -> float | None:
    """The width that the 95 % interval of an AUROC would have.

    Hanley and McNeil, Radiology 143 (1982), with patients in place of images: images of one
    patient say less than as many patients would.

    Args:
        positive: patients with a positive image.
        negative: patients with a negative one.
        area: the AUROC.

    Returns:
        Twice 1.96 standard errors; None where either is missing.
    """
    if not positive or not negative:
        return None
    two_positives, two_negatives = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (
        area * (1 - area)
        + (positive - 1) * (two_positives - area**2)
        + (negative - 1) * (two_negatives - area**2)
    ) / (positive * negative)
    return float(2 * 1.96 * np.sqrt(variance))


def label_support(cache: Cache) -> dict[str, Any]:
    """What there is of each label.

    Returns:
        By label: ``splits``, by split the images ``positive``, ``negative`` and ``unknown``, the
        ``patients`` with a positive and with a negative one, the ``prevalence`` among known
        images, the ``expected_width`` of an AUROC's interval, and the ``state``: "enough", "too
        few", "constant" where the known are all alike, or "unknown" where none is known.
        ``views``: by view, ``known`` images and their ``prevalence``; empty where no view is.
    """
    splits = {split: rows for split in SPLITS if (rows := cache.splits == split).any()}
    views = {view: cache.views == view for view in np.unique(cache.views).tolist() if view}
    return {
        name: {
            "splits": {
                split: _in_split(values[rows], cache.patients[rows])
                for split, rows in splits.items()
            },
            "views": {
                view: {
                    "known": int((values[rows] >= 0).sum()),
                    "prevalence": _prevalence(values[rows]),
                }
                for view, rows in views.items()
            },
        }
        for name, values in zip(cache.labels.names, cache.labels.values.T, strict=True)
    }


def _in_split(values: npt.NDArray[np.int8], patients: npt.NDArray[np.str_]) -> dict[str, Any]:
    positive, negative = (len(np.unique(patients[values == value])) for value in (1, 0))
    width = expected_width(positive, negative)
    if width is not None:
        state = "enough" if width <= WIDEST else "too few"
    else:
        state = "constant" if positive or negative else "unknown"
    return {
        "positive": int((values == 1).sum()),
        "negative": int((values == 0).sum()),
        "unknown": int((values == -1).sum()),
        "patients": {"positive": positive, "negative": negative},
        "prevalence": _prevalence(values),
        "expected_width": width,
        "state": state,
    }


def _prevalence(values: npt.NDArray[np.int8]) -> float | None:
    known = values[values >= 0]
    return float((known == 1).mean()) if len(known) else None
