"""The table of a data set, patients, splits and labels, and how it changes under a cache."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featurecache.errors import CacheError
from featurecache.io.fingerprint import canonical_json
from featurecache.store.cache import Cache
from featurecache.store.merge import shard_of
from featurecache.store.reader import read_cache
from featurecache.store.records import ImageTable, Labels, positions

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset

_log = logging.getLogger(__name__)


def table_hashes(dataset: "Dataset") -> dict[str, str]:
    """Return SHA-256, in hex, of a data set's ids, paths, patients, splits and labels, by name.

    They are stored in its shards, which can be merged only if they are shards of one table.
    """
    columns = {"ids": "id", "paths": "path", "patients": "patient", "splits": "split"}
    content = {
        name: canonical_json(dataset.images[column].tolist()).encode()
        for name, column in columns.items()
    }
    content["labels"] = canonical_json(dataset.label_names).encode() + dataset.cells.tobytes()
    return {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}


def keep_cached_splits(dataset: "Dataset", paths: Sequence[Path]) -> "Dataset":
    """Return a data set in which the patients of its caches keep a split that was drawn.

    A draw depends on all labels and patients, so that one corrected label would otherwise move
    many patients, also from test to train. A split that the data set states, or that is to be drawn
    in another way, is used as it is.

    Args:
        dataset: The whole data set.
        paths: Its caches, existing or not, but no shards: these would disagree about new patients.
            If none exists, the newest one in the same folder that was drawn alike counts.
    """
    if dataset.split_draw is None:
        return dataset
    caches = [read_cache(path) for path in paths if path.exists()]
    return keep_splits_of(caches or _newest_neighbor(paths[0], dataset), dataset)


def keep_splits_of(caches: Sequence[Cache], dataset: "Dataset") -> "Dataset":
    """Return a data set in which the patients of these caches keep a split that was drawn alike.

    Args:
        caches: The caches; the first one with a patient decides.
        dataset: The whole data set.
    """
    splits: dict[str, str] = {}
    for cache in caches:
        if _is_drawn_alike(cache, dataset):
            of_cache = dict(zip(cache.patients.tolist(), cache.splits.tolist(), strict=True))
            splits = {**of_cache, **splits}
    return dataset.keep_splits(splits)


def _is_drawn_alike(cache: Cache, dataset: "Dataset") -> bool:
    same_draw = cache.header.split_draw == str(dataset.split_draw)
    return same_draw and cache.header.collection == dataset.collection


def _newest_neighbor(path: Path, dataset: "Dataset") -> list[Cache]:
    files = [file for file in path.parent.glob("*.h5") if shard_of(file) is None]
    for file in sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True):
        try:
            cache = read_cache(file)
        except (CacheError, OSError) as error:
            _log.warning(f"splits of {file} are not kept: {error}")
        else:
            if _is_drawn_alike(cache, dataset):
                return [cache]
    return []


def count_changes(before: Cache | None, images: ImageTable, labels: Labels) -> dict[str, int]:
    """Count the cached images that the data set states otherwise now.

    Args:
        before: The cache that existed, if any.
        images: The images that the cache is going to hold.
        labels: Their labels.

    Returns:
        Numbers above 0 of images, by what has changed: "label", "split", "patient", "study",
        "view", "sex", "age" or "removed".
    """
    if before is None:
        return {}
    rows = positions(images.id, before.images.id)
    old = np.flatnonzero(rows >= 0)
    new = rows[old]
    shared = [name for name in labels.names if name in before.labels.names]
    old_columns, new_columns = (
        [names.index(name) for name in shared] for names in (before.labels.names, labels.names)
    )
    relabeled = before.cells[old][:, old_columns] != labels.cells[new][:, new_columns]
    numbers = {
        "label": relabeled.any(axis=1).sum(),
        **{
            what: (getattr(before.images, what)[old] != getattr(images, what)[new]).sum()
            for what in ("split", "patient", "study", "view", "sex", "age")
        },
        "removed": (rows < 0).sum(),
    }
    return {what: int(number) for what, number in numbers.items() if number}


def format_changes(changed: Mapping[str, int]) -> str:
    """Format numbers of changed images: "label of 3 images, split of 1 image"."""
    words = {"removed": "removal", "missing": "missing file"}
    return ", ".join(
        f"{words.get(what, what)} of {number:,} {'image' if number == 1 else 'images'}"
        for what, number in changed.items()
    )
