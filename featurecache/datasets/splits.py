"""Splits by patient, stratified on all labels, and what a data set does not state about them."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featurecache.errors import DatasetError, UsageError
from featurecache.provenance.names import patient_key
from featurecache.wording import count_noun

SPLITS = ("train", "val", "test")

SPLIT_ALIASES = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev", "development"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
"""Common names of splits, in lower case, and the name used here."""

FRACTIONS = (0.7, 0.1, 0.2)
"""Fractions of train, val and test if a data set defines no split."""

VALIDATION_FRACTION = 0.1
"""Fraction of the training images that becomes validation if a data set defines none."""


_FOLD = re.compile(r"(?:fold)?[ _-]*(\d+)(?:\.0+)?")
_MAX_LISTED = 5


@dataclass(frozen=True)
class SplitDraw:
    """How splits were drawn that a data set does not state.

    Attributes:
        fractions: Fractions of train, val and test among the images that were assigned; 0 for a
            split that the data set states.
        seed: Seed that breaks ties between patients.
        fold: The fold that is test, if folds were drawn.
        stated: Patients whose split the data set states although others are drawn into it.
    """

    fractions: tuple[float, float, float]
    seed: int
    fold: int | None = None
    stated: frozenset[str] = frozenset()

    def __str__(self) -> str:
        """Describe the draw; those of equal descriptions are the same for the same table."""
        parts = [
            f"{fraction:.6g} {split}"
            for split, fraction in zip(SPLITS, self.fractions, strict=True)
        ]
        fold = [] if self.fold is None else [f"fold {self.fold}"]
        return ", ".join([*parts, *fold, f"seed {self.seed}"])

    def notes(
        self, names: NDArray[np.str_], labels: NDArray[np.int8], label_names: Sequence[str]
    ) -> list[str]:
        """Return sentences on the drawn splits of N images and on what cannot be scored."""
        if self.fold is not None:
            folds = round(1 / self.fractions[2])
            note = f"The split is by patient, into {folds} folds; fold {self.fold} is test."
        elif self.fractions[2]:
            fractions = ", ".join(f"{fraction:.0%}" for fraction in self.fractions)
            note = f"The split is by patient ({fractions}): {_sizes(names)}."
        else:
            note = (
                f"There is no validation split, so {self.fractions[1]:.0%} of train is "
                f"validation, by patient: {_sizes(names)}."
            )
        return [note, *_unscorable(names, labels, label_names)]


@dataclass(frozen=True)
class CompleteSplit:
    """A split of all images.

    Attributes:
        names: (N,) of "train", "val" and "test".
        notes: Sentences on what was assumed.
        draw: How splits were drawn; None if the data set states all of them.
    """

    names: NDArray[np.str_]
    notes: tuple[str, ...]
    draw: SplitDraw | None


def complete_split(
    patients: ArrayLike,
    labels: NDArray[np.int8],
    label_names: Sequence[str],
    *,
    stated: ArrayLike | None = None,
    source: str = "the data set",
    folds: int | None = None,
    fold: int | None = None,
    seed: int,
) -> CompleteSplit:
    """Return the split of a data set, with what it does not state filled in.

    Without any statement, the images are split by patient, or divided into folds. Where train has
    no validation beside it, a tenth of train becomes validation, by patient. A data set with
    nothing to train on, such as one for external validation, is left as it is.

    Args:
        patients: (N,) patient of each image, as strings.
        labels: (N, C) int8 cells, 1 where positive; C may be 0.
        label_names: C names, for the notes.
        stated: (N,) split of each image as it is written: a name in ``SPLIT_ALIASES`` in any
            case, or the number of a fold. None, or "" for all images, if nothing is stated.
        source: What states the split, for messages.
        folds: Number of folds.
        fold: The fold that is test; the next one is validation, the others are train.
        seed: Seed of what is not stated.

    Raises:
        DatasetError: If a name is unknown, or some images have a split and others none.
        UsageError: If ``folds`` and ``fold`` are contradictory, or there are too few patients.
    """
    patients = np.asarray(patients, dtype=str)
    words = np.char.strip(np.asarray([] if stated is None else stated, dtype=str))
    draw: SplitDraw | None = None
    notes: list[str] = []
    if not (words != "").any():
        if folds is None and fold is None:
            names = patient_split(patients, labels, seed=seed)
            draw = SplitDraw(FRACTIONS, seed)
        else:
            numbers = _deal_folds(patients, labels, folds, seed)
            n_folds = int(numbers.max())
            names = _split_of_folds(numbers, range(1, n_folds + 1), fold)
            draw = SplitDraw((1 - 2 / n_folds, 1 / n_folds, 1 / n_folds), seed, fold)
    else:
        _require_all_stated(words, source)
        if all(_FOLD.fullmatch(word.lower()) for word in set(words.tolist())):
            names, notes = _read_folds(words, source, folds, fold)
        else:
            if folds is not None or fold is not None:
                raise UsageError(f"{source} states the splits already: leave out `folds`")
            names = _translate(words, source)
        if (names == "train").any() and not (names == "val").any():
            names = carve_validation(patients, labels, names, seed=seed)
            draw = SplitDraw((1 - VALIDATION_FRACTION, VALIDATION_FRACTION, 0.0), seed)
    describe = _unscorable if draw is None else draw.notes
    return CompleteSplit(names, (*notes, *describe(names, labels, label_names)), draw)


def keep_patients(
    patients: ArrayLike,
    labels: NDArray[np.int8],
    split: ArrayLike,
    *,
    draw: SplitDraw,
    kept: Mapping[str, str],
) -> NDArray[np.str_]:
    """Return a drawn split in which some patients keep the split that they had before.

    If the draw agrees with it, it is returned as it is. Otherwise the other patients are assigned
    anew by the same rule, given those that are kept. Splits that the data set states, also by
    patient, stay.

    Args:
        patients: (N,) patient of each image, as strings.
        labels: (N, C) int8 cells, 1 where positive.
        split: (N,) of "train", "val" and "test", as drawn.
        draw: How it was drawn.
        kept: Splits of the patients that keep theirs; others are ignored.
    """
    names, patients = np.array(split, dtype=str), np.asarray(patients, dtype=str)
    candidates = [name for name, fraction in zip(SPLITS, draw.fractions, strict=True) if fraction]
    subset_of = {
        patient_key(patient): SPLITS.index(name)
        for patient, name in kept.items()
        if name in candidates
    }
    rows = np.flatnonzero(np.isin(names, candidates))
    spellings, first = np.unique(patients[rows], return_index=True)
    present = {
        patient_key(patient): SPLITS.index(name)
        for patient, name in zip(spellings.tolist(), names[rows][first].tolist(), strict=True)
    }
    stated = set(map(patient_key, draw.stated))
    subset_of |= {patient: subset for patient, subset in present.items() if patient in stated}
    if any(subset_of.get(patient, subset) != subset for patient, subset in present.items()):
        assigned = _assign_patients(
            patients[rows], labels[rows], draw.fractions, draw.seed, kept=subset_of
        )
        names[rows] = np.array(SPLITS)[assigned]
    return names


def _require_all_stated(words: NDArray[np.str_], source: str) -> None:
    if blank := int((words == "").sum()):
        raise DatasetError(
            f"{source} states no split in {blank:,} of {count_noun(len(words), 'row')}: fill in "
            "train, val or test, or remove these rows; or leave out the column, to split all "
            "images by patient"
        )


def _translate(words: NDArray[np.str_], source: str) -> NDArray[np.str_]:
    if unknown := [w for w in np.unique(words).tolist() if w.lower() not in SPLIT_ALIASES]:
        counts = Counter(words.tolist())
        values = ", ".join(f"{word!r} ({counts[word]:,})" for word in unknown[:_MAX_LISTED])
        raise DatasetError(
            f"{source} has values that name no split: {values}. Use train, val and test, or the "
            "numbers of folds"
        )
    return np.array([SPLIT_ALIASES[word.lower()] for word in words.tolist()], dtype=str)


def _read_folds(
    words: NDArray[np.str_], source: str, folds: int | None, fold: int | None
) -> tuple[NDArray[np.str_], list[str]]:
    """Return the split of images whose folds are numbered from 0 or from 1."""
    numbers = np.array([int(_FOLD.sub(r"\1", word.lower())) for word in words.tolist()])
    present = np.unique(numbers)
    listed = ", ".join(map(str, present[:_MAX_LISTED])) + (", ..." * (len(present) > _MAX_LISTED))
    first = int(present[0])
    if first > 1 or len(present) < 3 or present[-1] - first + 1 != len(present):
        raise DatasetError(
            f"{source} has the numbers {listed}, which are not the three or more folds 0, 1, 2, "
            "... or 1, 2, 3, ...: use train, val and test"
        )
    if folds is not None and folds != len(present):
        raise UsageError(f"`folds` is {folds}, but {source} has {len(present)} folds: {listed}")
    if fold is None:
        raise UsageError(
            f"{source} has the folds {listed}: give `fold`, the number of the one that is test. "
            "The next one is validation"
        )
    names = _split_of_folds(numbers, range(first, first + len(present)), fold)
    return names, [f"Fold {fold} of {source} is test, the next one validation."]


def _deal_folds(
    patients: NDArray[np.str_], labels: NDArray[np.int8], folds: int | None, seed: int
) -> NDArray[np.intp]:
    """Return the fold of each image, from 1, stratified on all labels."""
    if folds is None:
        raise UsageError("give `folds`, the number of folds, with `fold`")
    n_patients = len(np.unique(patients))
    if not 3 <= folds <= n_patients:
        raise UsageError(f"`folds` is {folds}: give a number from 3 to {n_patients}, the patients")
    return 1 + _assign_patients(patients, labels, (1 / folds,) * folds, seed)


def _split_of_folds(numbers: NDArray[np.intp], valid: range, fold: int | None) -> NDArray[np.str_]:
    if fold is None:
        raise UsageError(f"give `fold`, the fold that is test, from {valid[0]} to {valid[-1]}")
    if fold not in valid:
        raise UsageError(f"`fold` is {fold}: give a number from {valid[0]} to {valid[-1]}")
    following = valid[(valid.index(fold) + 1) % len(valid)]
    return np.where(numbers == fold, "test", np.where(numbers == following, "val", "train"))


def _sizes(names: NDArray[np.str_]) -> str:
    counts = [f"{(names == split).sum():,} {split}" for split in SPLITS]
    return f"{', '.join(counts[:-1])} and {counts[-1]} images"


def _unscorable(
    names: NDArray[np.str_], labels: NDArray[np.int8], label_names: Sequence[str]
) -> list[str]:
    """Return notes on empty splits, and on val and test where the values of a label are equal."""
    missing = [split for split in SPLITS if not (names == split).any()]
    notes = [f"There are no images in {' and '.join(missing)}."] if missing else []
    for split in ("val", "test"):
        values = labels[names == split]
        varied = (values == 1).any(axis=0) & (values == 0).any(axis=0)
        constant = [name for name, varies in zip(label_names, varied, strict=True) if not varies]
        if len(values) and constant:
            more = len(constant) - _MAX_LISTED
            listed = ", ".join(constant[:_MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
            notes.append(
                f"In {split} ({count_noun(len(values), 'image')}) these "
                "labels are all positive or all negative, so their AUROC and AUPRC are undefined: "
                f"{listed}."
            )
    return notes


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
        labels: (N, C) int8 cells, 1 where positive; only positives are balanced.
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
        labels: (N, C) int8 cells, 1 where positive.
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
    *,
    kept: Mapping[str, int] = MappingProxyType({}),
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

    Patients in ``kept`` are in the subset given there, by ``patient_key``.
    """
    spellings, spelling = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    keys = np.array([patient_key(patient) for patient in spellings.tolist()], dtype=str)
    names, patient = np.unique(keys, return_inverse=True)
    owner = patient[spelling]
    if len(owner) != len(labels):
        raise DatasetError(f"there are {len(owner)} patients but {len(labels)} rows of labels")
    # Column 0 counts a patient's images, column 1 + c the positives of label c.
    counts = np.empty((len(names), 1 + labels.shape[1]))
    for column, counted in enumerate((np.ones(len(labels)), *(labels == 1).T)):
        counts[:, column] = np.bincount(owner, counted, len(names))

    # Largest first, because large patients are hard to place late; the seed breaks ties.
    shuffled = np.random.default_rng(seed).permutation(len(names))
    order = shuffled[np.argsort(-counts[shuffled, 0], kind="stable")]

    # Subsets of fraction 0 stay empty.
    subsets = np.flatnonzero(fractions)
    target = np.asarray(fractions)[subsets]
    filled = np.zeros((len(subsets), counts.shape[1]))
    # Positions in ``subsets``; -1 where unassigned.
    position = {subset: at for at, subset in enumerate(subsets.tolist())}
    subset_of = np.array(
        [position.get(kept.get(name, -1), -1) for name in names.tolist()], dtype=np.intp
    )
    movable = subset_of < 0
    np.add.at(filled, subset_of[~movable], counts[~movable])

    def distribute(members: NDArray[np.intp], column: int) -> None:
        half = counts[members, column].mean().item() / 2 if len(members) else 0
        # Lists, because numpy takes long to start on three numbers.
        of_label, of_images = filled[:, column].tolist(), filled[:, 0].tolist()
        of_target = target.tolist()
        chosen: list[int] = []
        for positives, images in counts[members][:, [column, 0]].tolist():
            # Break ties on the label by the number of images.
            subset = min(
                range(len(subsets)),
                key=lambda s: ((of_label[s] + half) / of_target[s], of_images[s] / of_target[s]),
            )
            of_label[subset] += positives
            of_images[subset] += images
            chosen.append(subset)
        subset_of[members] = chosen
        for subset in range(len(subsets)):
            filled[subset] += counts[members[subset_of[members] == subset]].sum(axis=0)

    has = counts > 0
    unassigned = has[movable].sum(axis=0)
    remaining = set(range(1, counts.shape[1]))
    while remaining:
        rarest = min(remaining, key=lambda column: (unassigned[column], column))
        remaining.remove(rarest)
        members = order[(subset_of[order] < 0) & has[order, rarest]]
        distribute(members, rarest)
        unassigned -= has[members].sum(axis=0)
    distribute(order[subset_of[order] < 0], 0)
    _fill_small_subsets(subset_of, counts, target, order, movable)
    return subsets[subset_of[owner]]


def _fill_small_subsets(
    subset_of: NDArray[np.intp],
    counts: NDArray[np.float64],
    target: NDArray[np.float64],
    order: NDArray[np.intp],
    movable: NDArray[np.bool_],
) -> None:
    """Move patients, in place, into subsets with less than half of their images, or with none.

    Each label is rounded on its own, so that of 30 classes with four patients each, all would lose
    the tenth that is validation. The moved patients are those whose labels the subset they leave
    keeps, and whose labels the subset they join lacks.

    Args:
        subset_of: (P,) subset of each patient.
        counts: (P, 1 + C) images and positives of each patient.
        target: (S,) fraction of each subset.
        order: Permutation of the patients, the largest first.
        movable: (P,) whether a patient may be moved.
    """
    rank = np.empty(len(order), dtype=np.intp)
    rank[order] = np.arange(len(order), 0, -1)  # small patients are moved first
    wanted = target * counts[:, 0].sum()
    images = np.bincount(subset_of, counts[:, 0], minlength=len(target))
    is_small = (images < wanted / 2) | (images == 0)
    for subset in sorted(np.flatnonzero(is_small).tolist(), key=lambda s: -target[s]):
        while True:
            images = np.bincount(subset_of, counts[:, 0], minlength=len(target))
            patients = np.bincount(subset_of, minlength=len(target))
            is_donor = patients > 1
            is_donor[subset] = False
            has = counts[:, 1:] > 0
            held = np.stack([has[subset_of == s].sum(axis=0) for s in range(len(target))])
            candidates = np.flatnonzero(is_donor[subset_of] & movable)
            if not len(candidates):
                break
            owner = subset_of[candidates]
            lost = (has[candidates] & (held[owner] == 1)).sum(axis=1)
            gained = (has[candidates] & (held[subset] == 0)).sum(axis=1)
            over = images[owner] > wanted[owner]
            best = int(np.lexsort((rank[candidates], -gained, lost, ~over))[0])
            fits = images[subset] + counts[candidates[best], 0] / 2 <= wanted[subset]
            if patients[subset] and not (over[best] and fits):
                break
            subset_of[candidates[best]] = subset
