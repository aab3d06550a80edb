"""The data set of a call: given, named, or the one that a cache was extracted from."""

import os
from typing import TYPE_CHECKING, TypeAlias, Union

from featurecache.datasets.load import load_dataset, load_source
from featurecache.errors import UsageError
from featurecache.extraction.table import keep_splits_of
from featurecache.provenance.provenance import Source
from featurecache.store.cache import Cache

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
