"""Accept a data set wherever its name or path is given."""

import os
from pathlib import Path

from featurecache.datasets.dataset import Dataset
from featurecache.datasets.registry import find_root, load_dataset

DatasetLike = Dataset | str | os.PathLike[str] | tuple[str, str | os.PathLike[str]]


def resolve_dataset(data: DatasetLike) -> Dataset:
    """Return a data set as it is, or load it by name, path, or a tuple of both."""
    if isinstance(data, Dataset):
        return data
    name, root = data if isinstance(data, tuple) else (os.fspath(data), None)
    return load_dataset(name, find_root(name, None if root is None else Path(root)))
