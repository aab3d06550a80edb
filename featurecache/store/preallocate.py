"""Room on the disk for a file, taken before anything is written."""

import errno
import os
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Final

import numpy as np

OVERHEAD: Final = 256 * 1024
"""Bytes, amply, of the tables of an HDF5 file, of its checksums, and of the gaps between them."""


def size_of(content: object) -> int:
    """Bytes that a file has at most which holds arrays, strings, and collections of those.

    Args:
        content: an array, a string, a number, or a collection, mapping or dataclass of such.
    """
    return OVERHEAD + _bytes_of(content)


def _bytes_of(content: object) -> int:
    if isinstance(content, np.ndarray):
        return content.nbytes
    if isinstance(content, str):
        return len(content.encode())
    if is_dataclass(content):
        return _bytes_of(vars(content))
    if isinstance(content, Mapping):
        return _bytes_of(content.keys()) + _bytes_of(content.values())
    if isinstance(content, Iterable):
        strings, others = [], 0
        for one in content:
            if isinstance(one, str):
                strings.append(_bytes_of(one))
            else:
                others += _bytes_of(one)
        # Of the strings of a dataset, each takes as much as the longest.
        return others + len(strings) * max(strings, default=0)
    return 8  # a number, or nothing


def reserve(path: Path, size: int) -> None:
    """Make a file so long, with room for all of it; on a disk that cannot, nothing happens.

    Raises:
        OSError: the disk is full or not writable, or the file would be longer than is allowed.
    """
    if not hasattr(os, "posix_fallocate"):  # on macOS and Windows
        return
    with path.open("ab") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
