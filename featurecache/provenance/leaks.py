"""The leak check: are images to score among the images that something was trained on?

Images are compared in three ways, each of which finds what the one before misses:

1. by the SHA-256 of the file: the same file, under whatever name and in whatever data set;
2. by the perceptual hash of the decoded image: a re-encoded or resized copy;
3. by patient: another image of a person that was trained on.

Ids and patients belong to a collection: within one they identify an image or a person, between two
they may be equal by chance. Even collections of one name, such as the ``train.csv`` of two
hospitals, are different ones if most images with equal ids have different content; and only the
name of a published collection says that equal patients are the same people.

Published collections that hold images of each other under other ids, such as the challenges that
were made of ChestX-ray14, are refused by name: content would show copies, but not that other images
are of the same people.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import UsageError
from featurecache.provenance.names import (
    MAPPING_FILES,
    base_name,
    images_of,
    is_published,
    key_fingerprint,
    may_share_images,
    may_share_patients,
    patient_key,
    require_same_id_key,
)
from featurecache.provenance.perceptual_hash import is_copy
from featurecache.provenance.provenance import TrainingImages
from featurecache.provenance.records import ImageRecords, Utf8
from featurecache.wording import count_noun

N_EXAMPLES = 3
"""Ids in a message."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Leaks:
    """Which of N images something was trained on; masks of shape (N,).

    Attributes:
        same_id: Equal id in the same collection.
        same_file: Equal file.
        same_content: Nearly equal perceptual hash, but another file.
        same_patient: Another image of a patient of a published collection that was trained on.
        same_name: Patient with the same name as one that was trained on, who may be the same person
            or not.
        same_id_elsewhere: Equal id in another collection that may hold the image, where one of the
            two has no hash, so that it may be the same image or not.
    """

    same_id: Mask
    same_file: Mask
    same_content: Mask
    same_patient: Mask
    same_name: Mask
    same_id_elsewhere: Mask

    @property
    def copies(self) -> Mask:
        """Images that were trained on themselves, whatever they were called."""
        return self.same_id | self.same_file | self.same_content


def find_leaks(images: ImageRecords, trained_on: TrainingImages) -> Leaks:
    """Compare images with training images.

    Args:
        images: The N images.
        trained_on: The training images, by collection.

    Returns:
        Which of them are copies of training images, or of their patients.
    """
    same_id, same_file, same_content, same_patient, same_name, same_id_elsewhere = np.zeros(
        (6, len(images)), bool
    )
    patients = _patient_keys(images.patient)

    def is_of_patient(trained: ImageRecords) -> Mask:
        """Only asked where patients may be shared: the keys of many patients take a while."""
        of_patient: Mask = (patients != "") & np.isin(patients, _patient_keys(trained.patient))
        return of_patient

    for collection, trained in trained_on.items():
        by_file, by_content = _compare_content(images, trained)
        same_file |= by_file
        same_content |= by_content
        is_same_collection = collection == images.collection
        if is_same_collection:
            by_id = np.isin(images.id, trained.id)
            hashed = trained.perceptual_hash.any(axis=1)
            comparable = by_id & images.perceptual_hash.any(axis=1)
            comparable &= np.isin(images.id, trained.id[hashed])
            differs = comparable & ~by_file & ~by_content
            is_same_collection = bool(2 * differs.sum() <= comparable.sum())
            if is_same_collection:
                same_id |= by_id & ~differs
        if is_same_collection and is_published(collection):
            same_patient |= is_of_patient(trained)
        elif may_share_patients(collection, images.collection):
            same_name |= is_of_patient(trained)
            if not is_same_collection:
                same_id_elsewhere |= np.isin(images.id, trained.id) & ~images.has_content
                same_id_elsewhere |= np.isin(images.id, trained.id[~trained.has_content])
    copies = same_id | same_file | same_content
    return Leaks(
        same_id,
        same_file,
        same_content,
        same_patient & ~copies,
        same_name & ~copies,
        same_id_elsewhere & ~copies,
    )


def _compare_content(images: ImageRecords, others: ImageRecords) -> tuple[Mask, Mask]:
    """Return which images have the same file as one of the others, or else the same content."""
    same_file = (images.sha256 != b"") & np.isin(images.sha256, others.sha256)
    same_content = np.zeros(len(images), dtype=np.bool_)
    rest = np.flatnonzero(~same_file)
    same_content[rest] = is_copy(images.perceptual_hash[rest], others.perceptual_hash)
    return same_file, same_content


def require_unseen(
    images: ImageRecords, trained_on: TrainingImages, *, by: str, by_patient: bool = True
) -> list[str]:
    """Check that images to score are not those that something was trained on.

    Args:
        images: The images to score.
        trained_on: The training images, by collection.
        by: What was trained on them, for messages.
        by_patient: Whether other images of training patients are refused, too. If not, because the
            split is declared to be by image, they are a warning.

    Returns:
        Warnings: what may be a leak, but cannot be decided.

    Raises:
        UsageError: There are copies of training images or images of training patients, or ids that
            cannot be compared, because they are pseudonymized differently, or because one
            collection holds images of the other under other ids.
    """
    if not len(images):
        return []
    require_same_id_key(images.collection, trained_on)
    leaks = find_leaks(images, trained_on)
    if leaks.copies.any():
        kinds = (
            ("with the same id", leaks.same_id),
            ("with the same file", leaks.same_file & ~leaks.same_id),
            ("re-encoded or resized", leaks.same_content & ~leaks.same_id),
        )
        counts = ", ".join(f"{mask.sum()} {kind}" for kind, mask in kinds if mask.any())
        raise UsageError(
            f"{by} was trained on {leaks.copies.sum()} of the {len(images)} images of "
            f"{images.collection} to score ({counts}), such as "
            f"{_examples(images.id[leaks.copies])}: score only images that it has not seen, such "
            "as the test images of the split that it was trained with"
        )
    _require_other_sources(images.collection, trained_on, by=by)
    warnings = []
    if leaks.same_patient.any():
        found = (
            f"{by} was trained on other images of {_describe_patients(images, leaks.same_patient)}"
        )
        if by_patient:
            raise UsageError(
                f"{found}, such as {_examples(images.id[leaks.same_patient])}: score only patients "
                "that it has not seen, such as those of the test split that it was trained with"
            )
        warnings.append(f"{found}, so the metrics are optimistic")
    if leaks.same_name.any():
        warnings.append(
            f"{by} was trained on patients with the same names as "
            f"{_describe_patients(images, leaks.same_name)}: if they are the same people, the "
            "metrics are optimistic"
        )
    if names := _without_content(images, trained_on):
        same = int(leaks.same_id_elsewhere.sum())
        count = f"; {same} of the {len(images)} have the ids of training images" if same else ""
        warnings.append(
            f"copies of the training images of {by} cannot be recognized among the images to "
            f"score, because {' and '.join(names)} came without hashes of the image files, as "
            f"imports and shared caches do{count}: if some are the same images, the metrics are "
            "optimistic"
        )
    if not _patients_are_comparable(images, trained_on):
        # The same sentence for a head and its encoder, so that a run gets it once.
        warnings.append(
            "patients of the images to score and of training images cannot be compared, because "
            "they are pseudonymized differently or unknown: if some are the same people, the "
            "metrics are optimistic"
        )
    return warnings


def _require_other_sources(collection: str, trained_on: TrainingImages, *, by: str) -> None:
    """Check that no training images come from the source of a collection under other ids."""
    for other in trained_on:
        if not may_share_images(other, collection):
            continue
        pair = base_name(other), base_name(collection)
        mapping = [
            f"put {MAPPING_FILES[name]} into the folder of {name} and extract again, so that ids "
            "and patients are compared; or "
            for name, source in (pair, pair[::-1])
            if name in MAPPING_FILES and source in images_of(name)
        ]
        raise UsageError(
            f"{by} was trained on images of {pair[0]}, which shares images and patients with "
            f"{pair[1]} under other ids, so leakage cannot be ruled out: {''.join(mapping)}score a "
            "data set that shares none with its training, or use another model"
        )


def _without_content(images: ImageRecords, trained_on: TrainingImages) -> list[str]:
    """Return the collections with images that cannot be compared with those of another one."""
    names: dict[str, None] = {}
    for collection, trained in trained_on.items():
        if collection == images.collection or not may_share_patients(collection, images.collection):
            continue
        names |= {
            base_name(records.collection): None
            for records in (images, trained)
            if not records.has_content.all()
        }
    return list(names)


def _patients_are_comparable(images: ImageRecords, trained_on: TrainingImages) -> bool:
    """Return whether it can be seen if images are of people who may have been trained on.

    Not if patients are known on one side only. Where they are known on neither, the split of the
    images itself is not by patient, which is a warning of its own.
    """
    for collection, trained in trained_on.items():
        if may_share_patients(collection, images.collection):
            known = [bool((records.patient != b"").all()) for records in (images, trained)]
            same_key = key_fingerprint(collection) == key_fingerprint(images.collection)
            if any(known) and not (all(known) and same_key):
                return False
    return True


def warn_of_seen(images: ImageRecords, trained_on: TrainingImages, *, by: str) -> list[str]:
    """Return a warning if an encoder was trained on images to learn from and choose on.

    Args:
        images: The training and validation images.
        trained_on: The encoder's training images, by collection.
        by: The encoder, for the message.
    """
    if not (seen := int(find_leaks(images, trained_on).copies.sum())):
        return []
    return [
        f"{by} itself was trained on {seen} of the {len(images)} training and validation images: "
        "it separates them better than new images, so a head relies on it too much, and "
        "thresholds and calibration are overconfident"
    ]


def _describe_patients(images: ImageRecords, rows: Mask) -> str:
    patients = len(np.unique(_patient_keys(images.patient[rows])))
    return (
        f"{count_noun(patients, 'patient')} in {rows.sum()} of the "
        f"{count_noun(len(images), 'image')} to score"
    )


def _examples(ids: Utf8) -> str:
    return ", ".join(repr(image_id.decode()) for image_id in ids[:N_EXAMPLES].tolist())


def _patient_keys(patients: Utf8) -> NDArray[np.str_]:
    names, index = np.unique(patients, return_inverse=True)
    keys = [patient_key(name.decode()) for name in names.tolist()]
    return np.array(keys, dtype=np.str_)[index] if keys else np.empty(0, dtype=np.str_)


@dataclass(frozen=True)
class SplitCopies:
    """Images of one data set that must not be learned from: a later split has a copy of them.

    Attributes:
        same_file: Rows of training and validation images with the same file as an image of test,
            or, for training images, of validation.
        same_content: Rows that are re-encoded or resized copies of one.
        unit: What the rows are: images, or studies with such an image.
    """

    same_file: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    same_content: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    unit: str = "image"

    @property
    def rows(self) -> NDArray[np.intp]:
        """All copies, ascending."""
        return np.union1d(self.same_file, self.same_content)

    def without(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return rows, without the copies."""
        return rows[~np.isin(rows, self.rows)]

    def warnings(self) -> list[str]:
        """Return what a reader of the metrics has to know."""
        kinds = (
            (len(self.same_file), "has the same file as", "have the same file as"),
            (
                len(self.same_content),
                "is a re-encoded or resized copy of",
                "are re-encoded or resized copies of",
            ),
        )
        stated = [kind for kind in kinds if kind[0]]
        if not stated:
            return []
        total = sum(number for number, _, _ in stated)
        if len(stated) == 1:
            ((_, one, several),) = stated
            reason = f"it {one}" if total == 1 else f"they {several}"
        else:
            reason = " and ".join(count_noun(*kind) for kind in stated)
        noun = f"training or validation {self.unit}"
        plural = "training or validation studies" if self.unit == "study" else f"{noun}s"
        return [
            f"{count_noun(total, f'{noun} is', f'{plural} are')} left out, because {reason} "
            "an image of validation or test"
        ]


NO_COPIES = SplitCopies()


def copies_across_splits(images: ImageRecords, splits: NDArray[np.str_]) -> SplitCopies:
    """Find training and validation images that are copies of images of a later split.

    Args:
        images: The N images of a data set.
        splits: Their splits, (N,): train, val or test.

    Returns:
        The copies among training and validation images.
    """
    same_file, same_content = np.zeros((2, len(images)), dtype=np.bool_)
    for split, later in (("val", ["test"]), ("train", ["val", "test"])):
        rows, others = np.flatnonzero(splits == split), images.take(np.isin(splits, later))
        same_file[rows], same_content[rows] = _compare_content(images.take(rows), others)
    return SplitCopies(np.flatnonzero(same_file), np.flatnonzero(same_content))
