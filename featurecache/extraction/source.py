"""The data set of a call: given, named, or the one that a cache was extracted from."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

import numpy as np

from featurecache.datasets.load import load_dataset, load_source
from featurecache.errors import UsageError
from featurecache.extraction.decode import file_sha256
from featurecache.extraction.plan import file_states
from featurecache.extraction.table import keep_splits_of
from featurecache.provenance.provenance import Source
from featurecache.store.cache import Cache
from featurecache.store.records import positions, to_utf8

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset

DatasetLike: TypeAlias = Union[
    "Dataset", str, os.PathLike[str], tuple[str, str | os.PathLike[str]], Cache
]
"""A data set; or what ``load_dataset`` takes: a name, a path, or a tuple of both; or a cache, for
the data set that it was extracted from."""


def as_dataset(data: DatasetLike) -> "Dataset":
    """Return a data set as it is, or load it.

    Raises:
        UsageError: It is something else, or a cache of a data set that cannot be loaded again.
        DatasetError: It is missing or malformed.
    """
    from featurecache.datasets.dataset import Dataset

    if isinstance(data, Dataset):
        return data
    if isinstance(data, Cache):
        dataset = load_source(source_of_cache(data), used_by=str(data.path))
        dataset = dataset.with_bit_depth(data.header.bit_depth, [])
        return keep_splits_of(data.members, dataset)
    if isinstance(data, str | os.PathLike):
        return load_dataset(data)
    if isinstance(data, tuple) and len(data) == 2:
        return load_dataset(*data)
    raise UsageError(
        f"`data` is {data!r}: give a Dataset, the name of a data set, a path, (name, path), or a "
        "Cache"
    )


def source_of_cache(cache: Cache) -> Source | None:
    """Return how the data set of a cache was loaded; None if it was made in Python."""
    return cache.members[0].header.extraction.get("data")


def cached_files(
    cache: Cache, dataset: "Dataset", ids: Sequence[str] | None = None
) -> dict[str, Path]:
    """Return the files that a cache holds the embeddings of, by image id.

    A file whose path, size or modification time is another one than in the cache is hashed.

    Args:
        cache: The cache.
        dataset: The data set that it was extracted from.
        ids: Ids of cached images; None for all.

    Raises:
        UsageError: The data set lacks an image, its file has changed, or the cache was imported
            from elsewhere.
    """
    wanted = cache.images.id if ids is None else np.sort(to_utf8(ids))
    rows = positions(to_utf8(dataset.images["id"]), wanted)
    if (missing := wanted[rows < 0]).size:
        raise UsageError(
            f"`data` has no image {missing[0].decode()!r}, which is in the cache: give the data "
            "set, with the options, that the cache was extracted from"
        )
    unknown = np.intersect1d(cache.images.id[cache.images.sha256 == b""], wanted)
    if unknown.size:
        raise UsageError(
            f"{cache.path} does not know the files of its images, {unknown[0].decode()!r} the "
            "first, because it was imported, or fetched from the hub: extract from the images"
        )
    part = dataset.take(rows)
    files = part.files()
    states = file_states(part)
    cached = cache.images.take(positions(cache.images.id, wanted))
    unchanged = (
        (states.path == cached.path)
        & (states.size == cached.size)
        & (states.mtime_ns == cached.mtime_ns)
    )
    for row in np.flatnonzero(~unchanged):
        image_id = wanted[row].decode()
        if not cached.sha256[row]:
            raise UsageError(
                f"{cache.path} was imported, so it is not known which file its embedding of "
                f"{image_id!r} is of: leave out `data`, or give another cache"
            )
        sha256 = file_sha256(files[image_id])
        # The function that reads a file says why it cannot be read.
        if sha256 is not None and sha256.encode() != cached.sha256[row]:
            raise UsageError(
                f"the file of {image_id!r} is not the one that {cache.path} holds the embedding "
                "of: extract again"
            )
    return files
