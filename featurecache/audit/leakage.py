"""Leaks that the metadata of a cache reveals: shared patients, identical files, training images."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurecache.provenance.leaks import find_leaks
from featurecache.store.cache import Cache


@dataclass(frozen=True)
class SharedPatient:
    """A patient with images in several splits.

    Attributes:
        patient: Id of the patient.
        images: Number of images by split.
    """

    patient: str
    images: Mapping[str, int]


@dataclass(frozen=True)
class SharedPatients:
    """The patients with images in several splits.

    Attributes:
        patients: Number of these patients.
        images: Number of their images.
        details: Each of these patients.
    """

    patients: int
    images: int
    details: tuple[SharedPatient, ...]


@dataclass(frozen=True)
class IdenticalGroup:
    """Images whose files are byte-identical.

    Attributes:
        images: Their ids.
        splits: Their splits.
        patients: Their patients.
        same_labels: Whether their known labels agree.
    """

    images: tuple[str, ...]
    splits: tuple[str, ...]
    patients: tuple[str, ...]
    same_labels: bool


@dataclass(frozen=True)
class GroupsAcrossSplits:
    """Groups with images in different splits.

    Attributes:
        groups: Number of groups.
        images: Number of images in them.
        conflicting_labels: Number of groups whose known labels disagree.
    """

    groups: int
    images: int
    conflicting_labels: int


@dataclass(frozen=True)
class GroupsWithinSplit:
    """Groups with several images in one split.

    Attributes:
        groups: Number of groups.
        copies: Number of images beyond the first of each group and split.
        conflicting_labels: Number of groups whose known labels disagree.
    """

    groups: int
    copies: int
    conflicting_labels: int


@dataclass(frozen=True)
class IdenticalFiles:
    """Images whose files are byte-identical. A group may be both across splits and within one.

    Attributes:
        copies: Number of images beyond the first of each group.
        across_splits: Groups with images in different splits.
        within_split: Groups with several images in one split.
        groups: All groups.
    """

    copies: int
    across_splits: GroupsAcrossSplits
    within_split: GroupsWithinSplit
    groups: tuple[IdenticalGroup, ...]


def shared_patients(cache: Cache) -> SharedPatients | None:
    """Find the patients with images in several splits; None where patients are unknown."""
    if not cache.patients_known:
        return None
    splits: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for patient, split in zip(cache.patients.tolist(), cache.splits.tolist(), strict=True):
        splits[patient][split] += 1
    shared = tuple(
        SharedPatient(patient, dict(counts))
        for patient, counts in sorted(splits.items())
        if len(counts) > 1
    )
    return SharedPatients(
        patients=len(shared),
        images=sum(sum(patient.images.values()) for patient in shared),
        details=shared,
    )


def identical_files(cache: Cache) -> IdenticalFiles:
    """Find images whose files are byte-identical, by the hashes in the cache."""
    files = cache.images.sha256
    _, group_of, sizes = np.unique(files, return_inverse=True, return_counts=True)
    rows = np.flatnonzero((sizes[group_of] > 1) & (files != b""))
    members: defaultdict[int, list[int]] = defaultdict(list)
    for row in rows.tolist():
        members[int(group_of[row])].append(row)
    groups = tuple(
        IdenticalGroup(
            images=tuple(cache.ids[group].tolist()),
            splits=tuple(cache.splits[group].tolist()),
            patients=tuple(cache.patients[group].tolist()),
            same_labels=same_labels(cache.labels.values[group]),
        )
        for group in members.values()
    )
    across = [group for group in groups if len(set(group.splits)) > 1]
    within = [group for group in groups if len(set(group.splits)) < len(group.splits)]
    return IdenticalFiles(
        copies=len(rows) - len(groups),
        across_splits=GroupsAcrossSplits(
            groups=len(across),
            images=sum(len(group.images) for group in across),
            conflicting_labels=sum(not group.same_labels for group in across),
        ),
        within_split=GroupsWithinSplit(
            groups=len(within),
            copies=sum(len(group.images) - len(set(group.splits)) for group in within),
            conflicting_labels=sum(not group.same_labels for group in within),
        ),
        groups=groups,
    )


def fine_tuning_images(cache: Cache) -> dict[str, int]:
    """Count the images of each split that the encoder was fine-tuned on, or copies of them."""
    counts = Counter[str]()
    for source in cache.sources:
        for records in source.records(np.arange(len(source))):
            seen = find_leaks(records, cache.header.trained_on).copies
            counts.update(source.splits[seen].tolist())
    return dict(sorted(counts.items()))


def same_labels(values: NDArray[np.int8]) -> bool:
    """Return whether rows (N, C) of labels agree wherever they are known."""
    return not bool(((values == 1).any(axis=0) & (values == 0).any(axis=0)).any())
