"""Splits that keep every patient whole and every label's share even."""

import numpy as np
import numpy.typing as npt

from featurecache.errors import DatasetError, UsageError

SPLITS = ("train", "val", "test")

SPLIT_ALIASES = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}
"""Names that people give to splits, in lower case, and the one name used here."""

FRACTIONS = (0.7, 0.1, 0.2)
"""Shares of train, val and test where a data set brings no split of its own."""

VALIDATION_FRACTION = 0.1
"""Share of the training images that becomes validation where a data set brings none."""


def patient_split(
    patients: npt.ArrayLike,
    labels: npt.NDArray[np.int8],
    *,
    fractions: tuple[float, float, float] = FRACTIONS,
    seed: int,
) -> npt.NDArray[np.str_]:
    """Split images into train, val and test by patient, stratified on all labels at once.

    The result depends on the patients, their labels and the seed, not on the order of the rows.

    Args:
        patients: (N,) patient of each image, as strings.
        labels: (N, C) int8 of 1, 0 or -1; only the ones are balanced.
        fractions: Shares of train, val and test; they sum to 1.
        seed: Decides between patients that are equally good choices.

    Returns:
        (N,) array of "train", "val" and "test".

    Raises:
        UsageError: the fractions are no shares of a whole.
        DatasetError: the arrays differ in length.
    """
    if len(fractions) != 3 or min(fractions) < 0 or not np.isclose(sum(fractions), 1):
        raise UsageError(
            f"fractions {fractions} are no shares of train, val and test: "
            "give three numbers from 0 to 1 that sum to 1"
        )
    return np.array(SPLITS)[_deal(patients, labels, fractions, seed)]


def carve_validation(
    patients: npt.ArrayLike,
    labels: npt.NDArray[np.int8],
    split: npt.ArrayLike,
    *,
    fraction: float = VALIDATION_FRACTION,
    seed: int,
) -> npt.NDArray[np.str_]:
    """Move whole patients from train to val, stratified on all labels at once.

    Args:
        patients: (N,) patient of each image, as strings.
        labels: (N, C) int8 of 1, 0 or -1.
        split: (N,) of "train", "val" and "test"; images outside train stay where they are.
        fraction: Share of the training images to move, between 0 and 1.
        seed: Decides between patients that are equally good choices.

    Returns:
        (N,) array of "train", "val" and "test".

    Raises:
        UsageError: the fraction is not between 0 and 1.
        DatasetError: the arrays differ in length.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"validation fraction {fraction}: give a number between 0 and 1")
    carved = np.array(split, dtype=str)
    train = np.flatnonzero(carved == "train")
    part = _deal(np.asarray(patients)[train], labels[train], (1 - fraction, fraction), seed)
    carved[train[part == 1]] = "val"
    return carved


def _deal(
    patients: npt.ArrayLike,
    labels: npt.NDArray[np.int8],
    fractions: tuple[float, ...],
    seed: int,
) -> npt.NDArray[np.intp]:
    """Deal whole patients into parts: (N,) index of each image's part.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas, 2011) with patients in place of
    examples: the label with the fewest patients left is dealt first, because the common labels
    can still be evened out afterwards; patients without any positive come last and even out the
    number of images.

    Within a label, the paper gives each example to the part that lacks most, which would send
    the first and largest patients all to train. Here each patient goes where
    (filled + half a mean patient) / fraction is lowest, which is the apportionment rule of
    Webster and Sainte-Laguë: a rare label ends within about one patient of its share. The mean
    patient stands in for the patient at hand, whose own size would turn large patients away from
    small parts.
    """
    names, owner = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    if len(owner) != len(labels):
        raise DatasetError(f"{len(owner)} patients against {len(labels)} rows of labels")
    # Column 0 counts a patient's images, column 1 + c the positives of label c.
    counts = np.zeros((len(names), 1 + labels.shape[1]))
    np.add.at(counts, owner, np.column_stack([np.ones(len(labels)), labels == 1]))

    # Largest first, because large patients are hard to place late; the seed breaks ties.
    shuffled = np.random.default_rng(seed).permutation(len(names))
    order = shuffled[np.argsort(-counts[shuffled, 0], kind="stable")]

    # A part with the fraction 0 gets nobody.
    parts = np.flatnonzero(fractions)
    share = np.asarray(fractions)[parts]
    filled = np.zeros((len(parts), counts.shape[1]))
    part_of = np.full(len(names), -1, dtype=np.intp)

    def deal(members: npt.NDArray[np.intp], column: int) -> None:
        half = counts[members, column].mean() / 2 if len(members) else 0
        for patient in members:
            filling = (filled[:, column] + half) / share
            # Ties on the label are settled by the number of images.
            least = np.flatnonzero(filling == filling.min())
            part = least[np.argmin(filled[least, 0] / share[least])]
            filled[part] += counts[patient]
            part_of[patient] = part

    left = set(range(1, counts.shape[1]))
    while left:
        waiting = (counts[part_of < 0] > 0).sum(axis=0)
        rarest = min(left, key=lambda column: (waiting[column], column))
        left.remove(rarest)
        deal(order[(part_of[order] < 0) & (counts[order, rarest] > 0)], rarest)
    deal(order[part_of[order] < 0], 0)
    return parts[part_of[owner]]
