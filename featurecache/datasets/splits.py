"""Splits by patient, stratified on all labels."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featurecache.errors import DatasetError, UsageError
from featurecache.provenance.names import patient_key

SPLITS = ("train", "val", "test")

SPLIT_ALIASES = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}
"""Common names of splits, in lower case, and the name used here."""

FRACTIONS = (0.7, 0.1, 0.2)
"""Fractions of train, val and test if a data set defines no split."""

VALIDATION_FRACTION = 0.1
"""Fraction of the training images that becomes validation if a data set defines none."""


def patient_split(
    patients: ArrayLike,
    labels: NDArray[np.int8],
    *,
    fractions: tuple[float, float, float] = FRACTIONS,
    seed: int,
) -> NDArray[np.str_]:
    """Split images into train, val and test by patient, stratified on all labels at once.

    The result depends on the patients, their labels and the seed, not on the order of the rows.

    Args:
        patients: (N,) patient of each image, as strings.
        labels: (N, C) int8 of 1, 0 or -1; only positives are balanced.
        fractions: Fractions of train, val and test; they sum to 1.
        seed: Seed that breaks ties between patients.

    Returns:
        (N,) array of "train", "val" and "test".

    Raises:
        UsageError: If the fractions are negative or do not sum to 1.
        DatasetError: If the arrays differ in length.
    """
    if len(fractions) != 3 or min(fractions) < 0 or not np.isclose(sum(fractions), 1):
        raise UsageError(
            f"the fractions of train, val and test are {fractions}: "
            "give three numbers from 0 to 1 that sum to 1"
        )
    return np.array(SPLITS)[_assign_patients(patients, labels, fractions, seed)]


def carve_validation(
    patients: ArrayLike,
    labels: NDArray[np.int8],
    split: ArrayLike,
    *,
    fraction: float = VALIDATION_FRACTION,
    seed: int,
) -> NDArray[np.str_]:
    """Move whole patients from train to val, stratified on all labels at once.

    Args:
        patients: (N,) patient of each image, as strings.
        labels: (N, C) int8 of 1, 0 or -1.
        split: (N,) of "train", "val" and "test"; images outside train are not moved.
        fraction: Fraction of the training images to move, between 0 and 1.
        seed: Seed that breaks ties between patients.

    Returns:
        (N,) array of "train", "val" and "test".

    Raises:
        UsageError: If the fraction is not between 0 and 1.
        DatasetError: If the arrays differ in length.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"the validation fraction is {fraction}: give a number between 0 and 1")
    carved = np.array(split, dtype=str)
    train = np.flatnonzero(carved == "train")
    part = _assign_patients(
        np.asarray(patients)[train], labels[train], (1 - fraction, fraction), seed
    )
    carved[train[part == 1]] = "val"
    return carved


def _assign_patients(
    patients: ArrayLike,
    labels: NDArray[np.int8],
    fractions: tuple[float, ...],
    seed: int,
) -> NDArray[np.intp]:
    """Assign whole patients to subsets; return the (N,) subset index of each image.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas, 2011) with patients in place of
    examples: the label with the fewest unassigned patients is distributed first, because common
    labels can still be balanced afterwards. Patients without positives come last and balance the
    number of images.

    Within a label, the paper assigns each example to the subset that lacks most, which would send
    the first and largest patients all to train. Here each patient is assigned to the subset with
    the lowest (filled + half a mean patient) / fraction, the apportionment rule of Webster and
    Sainte-Laguë: a rare label ends within about one patient of its target. The mean patient stands
    in for the current one, whose own size would keep large patients out of small subsets.
    """
    spellings, spelling = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    keys = np.array([patient_key(patient) for patient in spellings.tolist()], dtype=str)
    names, patient = np.unique(keys, return_inverse=True)
    owner = patient[spelling]
    if len(owner) != len(labels):
        raise DatasetError(f"there are {len(owner)} patients but {len(labels)} rows of labels")
    # Column 0 counts a patient's images, column 1 + c the positives of label c.
    counts = np.zeros((len(names), 1 + labels.shape[1]))
    np.add.at(counts, owner, np.column_stack([np.ones(len(labels)), labels == 1]))

    # Largest first, because large patients are hard to place late; the seed breaks ties.
    shuffled = np.random.default_rng(seed).permutation(len(names))
    order = shuffled[np.argsort(-counts[shuffled, 0], kind="stable")]

    # Subsets of fraction 0 stay empty.
    subsets = np.flatnonzero(fractions)
    target = np.asarray(fractions)[subsets]
    filled = np.zeros((len(subsets), counts.shape[1]))
    subset_of = np.full(len(names), -1, dtype=np.intp)

    def distribute(members: NDArray[np.intp], column: int) -> None:
        half = counts[members, column].mean() / 2 if len(members) else 0
        for patient in members:
            filling = (filled[:, column] + half) / target
            # Break ties on the label by the number of images.
            least = np.flatnonzero(filling == filling.min())
            subset = least[np.argmin(filled[least, 0] / target[least])]
            filled[subset] += counts[patient]
            subset_of[patient] = subset

    remaining = set(range(1, counts.shape[1]))
    while remaining:
        unassigned = (counts[subset_of < 0] > 0).sum(axis=0)
        rarest = min(remaining, key=lambda column: (unassigned[column], column))
        remaining.remove(rarest)
        distribute(order[(subset_of[order] < 0) & (counts[order, rarest] > 0)], rarest)
    distribute(order[subset_of[order] < 0], 0)
    return subsets[subset_of[owner]]
