"""Check that paths stay inside their root when symbolic links are followed."""

import os
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import DatasetError


def links_leaving_root(root: Path, paths: Collection[str]) -> NDArray[np.bool_]:
    """Find paths that pass through a symbolic link out of the root.

    Each folder is listed once, which tells links from files without a ``stat`` per image (slow on
    network disks). Paths that do not exist are accepted.

    Args:
        root: Folder that should contain every path; it may itself be a link.
        paths: (N,) posix paths relative to the root, without ``..``.

    Returns:
        (N,) bool, True for paths that leave the root.

    Raises:
        DatasetError: If a folder cannot be listed.
    """
    folders = _with_ancestors(map(_parent, paths))
    outside = set(_links_outside(root, folders))
    if not outside:
        return np.zeros(len(paths), dtype=bool)
    tainted = {folder for folder in folders if not outside.isdisjoint(_with_ancestors([folder]))}
    return np.array([path in outside or _parent(path) in tainted for path in paths])


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _with_ancestors(folders: Iterable[str]) -> set[str]:
    """Return the folders and all their ancestors; the root is the empty string."""
    ancestors = {""}
    for folder in set(folders):
        while folder not in ancestors:
            ancestors.add(folder)
            folder = _parent(folder)
    return ancestors


def _links_outside(root: Path, folders: Iterable[str]) -> Iterable[str]:
    """Yield the links in the folders that point outside of the root."""
    real_root = Path(os.path.realpath(root))
    for folder in folders:
        # String concatenation, because joining a Path takes longer than listing the folder and
        # data sets with a folder per study have hundreds of thousands.
        location = f"{root}/{folder}"
        try:
            with os.scandir(location) as entries:
                # realpath instead of Path.resolve, which raises on a loop of links.
                for entry in entries:
                    if entry.is_symlink() and not Path(os.path.realpath(entry)).is_relative_to(
                        real_root
                    ):
                        yield f"{folder}/{entry.name}" if folder else entry.name
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            raise DatasetError(
                f"the folder {location} cannot be listed: allow reading it"
            ) from error
