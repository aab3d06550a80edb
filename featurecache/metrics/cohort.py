"""Cohort: how many images and patients there are, which are used, and what they are like by split.

These are the numbers of a flow diagram of exclusions and of the first table of a paper.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.metrics.document import Count, Document, FloatInterval
from featurecache.metrics.ranking import Labels

OVERALL: Final = "all"
"""Name of all splits together."""


SPLIT_NAMES: Final = {"train": "training", "val": "validation", "test": "test"}
"""What the splits are called in texts."""


class Ages(Document):
    """Ages in years.

    Attributes:
        n: Number of patients whose age is known.
        median: Their median.
        quartiles: The first and the third quartile.
    """

    n: Count
    median: float
    quartiles: FloatInterval


class SplitCohort(Document):
    """The images, or studies, of a split, as far as they are used.

    Attributes:
        n: Number of images, or studies.
        n_patients: Number of their patients; None if patients are unknown.
        n_labeled: Number of images with at least one known label.
        sexes: Number of patients by sex, "" for unknown or contradictory; of images if patients are
            unknown.
        ages: Ages of the patients at their first image; None where no age is known.
        views: Number of images by view, "" for unknown.
        positive: Number of positive images by label.
        known: Number of images with a known label, by label.
    """

    n: Count
    n_patients: Count | None
    n_labeled: Count
    sexes: dict[str, Count]
    ages: Ages | None
    views: dict[str, Count]
    positive: dict[str, Count]
    known: dict[str, Count]


class Cohort(Document):
    """The images of a data set, and what became of them.

    Attributes:
        left_out: Number of images that were left out when the data set was loaded, by reason.
        n_loaded: Number of the others; None if unknown.
        n_patients_loaded: Number of their patients; None if unknown.
        failed: Number of these without an embedding, by reason.
        n_images: Number of images with an embedding.
        n_patients: Number of their patients; None if unknown.
        unused: Number of images, or studies, with an embedding that no split uses, by reason.
        splits: What is used, by split ("train", "val", "test"), and "all" together; splits without
            images are left out.
    """

    left_out: dict[str, Count]
    n_loaded: Count | None
    n_patients_loaded: Count | None
    failed: dict[str, Count]
    n_images: Count
    n_patients: Count | None
    unused: dict[str, Count]
    splits: dict[str, SplitCohort]

    @property
    def excluded(self) -> dict[str, int]:
        """Number of images of the data set without an embedding, by reason."""
        excluded = {**self.left_out, **self.failed}
        n_loaded = self.n_loaded or 0
        # Those that a sample of the data set, or the other caches of several, lack.
        if (others := n_loaded - self.n_images - sum(self.failed.values())) > 0:
            excluded["not extracted"] = others
        return excluded


def count_unused(
    rows: Mapping[str, NDArray[np.intp]],
    *,
    split: NDArray[np.str_],
    copies: NDArray[np.intp],
) -> dict[str, int]:
    """Count the rows that no split uses, by reason.

    Args:
        rows: Rows that are used, by split.
        split: Split of each of N rows, (N,); "" for rows that do not count.
        copies: Rows that are not learned from because a later split has a copy of them.
    """
    is_left = split != ""
    is_left[np.concatenate(list(rows.values()))] = False
    is_copy = np.zeros_like(is_left)
    is_copy[copies] = True
    counts = {"copied in a later split": int((is_left & is_copy).sum())}
    for name, split_name in SPLIT_NAMES.items():
        counts[f"in the {split_name} split"] = int((is_left & ~is_copy & (split == name)).sum())
    return {reason: number for reason, number in counts.items() if number}


def describe_splits(
    rows: Mapping[str, NDArray[np.intp]],
    *,
    patient: NDArray[Any] | None,
    sex: NDArray[np.str_],
    age: NDArray[np.str_],
    view: NDArray[np.str_],
    truth: Labels,
    label_names: Sequence[str],
) -> dict[str, SplitCohort]:
    """Describe the rows of each split, and those of all splits together under "all".

    Args:
        rows: Rows by split; splits without rows are left out.
        patient: Patient of each of N rows, (N,); None if unknown.
        sex: Sexes, (N,); "" where unknown.
        age: Ages in years as text, (N,); "" where unknown.
        view: Views, (N,); "" where unknown.
        truth: Labels 1, 0 or -1 (unknown), (N, C).
        label_names: The C label names.
    """
    used = {split: at for split, at in rows.items() if len(at)}
    if used:
        used[OVERALL] = np.unique(np.concatenate(list(used.values())))
    years = np.where(age == "", "nan", age).astype(np.float64)
    described = {}
    for split, at in used.items():
        known, positive = (truth[at] >= 0), (truth[at] == 1)
        index = np.arange(len(at))
        if patient is not None:
            index = np.unique(patient[at], return_inverse=True)[1]
        described[split] = SplitCohort(
            n=len(at),
            n_patients=None if patient is None else int(index.max()) + 1,
            n_labeled=int(known.any(axis=1).sum()),
            sexes=_counts(_sex_of_patients(sex[at], index)),
            ages=_ages(years[at], index),
            views=_counts(view[at]),
            positive=dict(zip(label_names, positive.sum(axis=0).tolist(), strict=True)),
            known=dict(zip(label_names, known.sum(axis=0).tolist(), strict=True)),
        )
    return described


def _counts(values: NDArray[np.str_]) -> dict[str, int]:
    names, numbers = np.unique(values, return_counts=True)
    return dict(zip(names.tolist(), numbers.tolist(), strict=True))


def _sex_of_patients(sex: NDArray[np.str_], patient: NDArray[np.intp]) -> NDArray[np.str_]:
    """Return the sex of each patient, "" where it is unknown or differs between images."""
    result = np.zeros(patient.max(initial=-1) + 1, dtype=sex.dtype)
    known = sex != ""
    result[patient[known]] = sex[known]
    result[patient[known & (result[patient] != sex)]] = ""
    return result


def _ages(years: NDArray[np.float64], patient: NDArray[np.intp]) -> Ages | None:
    first = np.full(patient.max(initial=-1) + 1, np.inf)
    known = ~np.isnan(years)
    np.minimum.at(first, patient[known], years[known])
    first = first[np.isfinite(first)]
    if not len(first):
        return None
    low, median, high = np.quantile(first, (0.25, 0.5, 0.75)).tolist()
    return Ages(n=len(first), median=median, quartiles=(low, high))
