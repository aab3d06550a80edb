"""Leaks that a cache's columns show: shared patients, byte-identical copies, films learned from."""

from collections import Counter, defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurecache.store.cache import Cache


def knows_patients(cache: Cache) -> bool:
    """Whether patients are known; where they are not, each image counts as its own."""
    return not np.array_equal(cache.patients, cache.ids)


def shared_patients(cache: Cache) -> dict[str, Any] | None:
    """The patients with images in two splits or more; None where no patients are known.

    Returns:
        ``patients`` and ``images``, how many, and ``list``: of each patient the number of images
        by split.
    """
    if not knows_patients(cache):
        return None
    splits: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for patient, split in zip(cache.patients.tolist(), cache.splits.tolist(), strict=True):
        splits[patient][split] += 1
    shared = {name: counts for name, counts in sorted(splits.items()) if len(counts) > 1}
    return {
        "patients": len(shared),
        "images": sum(sum(counts.values()) for counts in shared.values()),
        "list": [{"patient": name, "images": dict(counts)} for name, counts in shared.items()],
    }


def identical_files_across_splits(cache: Cache) -> dict[str, Any]:
    """Images whose files have the same bytes, by the hashes in the cache.

    Returns:
        ``across_splits``: ``groups`` of images of which some lie in different splits, and the
        ``images`` in them. ``within_split``: groups of which some lie in the same split, and the
        ``copies``, images beyond the first of their group and split. A group may be both. In
        each, ``other_labels`` counts the groups whose known labels contradict each other.
        ``copies`` counts images beyond the first of their group, wherever they lie; ``list`` has
        the groups.
    """
    _, group_of, sizes = np.unique(cache.images.sha256, return_inverse=True, return_counts=True)
    rows = np.flatnonzero(sizes[group_of] > 1)
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for row in rows.tolist():
        groups[int(group_of[row])].append(row)
    across = {"groups": 0, "images": 0, "other_labels": 0}
    within = {"groups": 0, "copies": 0, "other_labels": 0}
    listed = []
    for members in groups.values():
        counts = Counter(cache.splits[members].tolist())
        other = not same_labels(cache.labels.values[members])
        if len(counts) > 1:
            across["groups"] += 1
            across["images"] += len(members)
            across["other_labels"] += other
        if max(counts.values()) > 1:
            within["groups"] += 1
            within["copies"] += len(members) - len(counts)
            within["other_labels"] += other
        listed.append(
            {
                "images": cache.ids[members].tolist(),
                "splits": cache.splits[members].tolist(),
                "patients": cache.patients[members].tolist(),
                "same_labels": not other,
            }
        )
    return {
        "copies": len(rows) - len(groups),
        "across_splits": across,
        "within_split": within,
        "list": listed,
    }


def learned_images(cache: Cache) -> dict[str, int]:
    """How many images of each split the encoder was fine-tuned on."""
    learned = cache.header.trained_on.get(cache.header.collection, frozenset())
    held = np.isin(cache.ids, sorted(learned))
    return dict(sorted(Counter(cache.splits[held].tolist()).items()))


def same_labels(values: NDArray[np.int8]) -> bool:
    """Whether rows (N, C) of labels agree wherever they are known."""
    return not bool(((values == 1).any(axis=0) & (values == 0).any(axis=0)).any())
