"""Whether paths stay inside their root once symbolic links are followed."""

import os
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featurecache.errors import DatasetError


def links_leaving_root(root: Path, paths: Collection[str]) -> npt.NDArray[np.bool_]:
    """Which paths pass through a symbolic link that leads out of the root.

    Folders are listed once each, which tells links from files without touching any file: a
    ``stat`` per image is slow on network disks. What does not exist leads nowhere and passes.

    Args:
        root: Folder that should hold every path; it may itself be a link.
        paths: (N,) posix paths relative to the root, without ``..``.

    Returns:
        (N,) bool, True where the path leaves the root.

    Raises:
        DatasetError: a folder may not be listed.
    """
    folders = _with_ancestors(map(_parent, paths))
    outside = set(_outside_entries(root, folders))
    if not outside:
        return np.zeros(len(paths), dtype=bool)
    tainted = {folder for folder in folders if not outside.isdisjoint(_with_ancestors([folder]))}
    return np.array([path in outside or _parent(path) in tainted for path in paths])


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _with_ancestors(folders: Iterable[str]) -> set[str]:
    """The folders and all folders above them; the root is the empty string."""
    found = {""}
    for folder in set(folders):
        while folder not in found:
            found.add(folder)
            folder = _parent(folder)
    return found


def _outside_entries(root: Path, folders: Iterable[str]) -> Iterable[str]:
    real_root = Path(os.path.realpath(root))
    for folder in folders:
        # Plain text: joining a Path takes longer than listing the folder, and sets with a folder
        # per study have hundreds of thousands.
        place = f"{root}/{folder}"
        try:
            with os.scandir(place) as entries:
                # realpath rather than Path.resolve, which raises on a loop of links.
                for entry in entries:
                    if entry.is_symlink() and not Path(os.path.realpath(entry)).is_relative_to(
                        real_root
                    ):
                        yield f"{folder}/{entry.name}" if folder else entry.name
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            raise DatasetError(f"the folder {place} may not be listed: allow reading it") from error
