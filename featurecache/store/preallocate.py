"""Reserve disk space for a file before anything is written to it."""

import errno
import os
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Final

import numpy as np

OVERHEAD: Final = 256 * 1024
"""Bytes, with a wide margin, of an HDF5 file's tables and checksums and of the gaps between."""


def upper_bound(content: object) -> int:
    """Return an upper bound of the bytes of an HDF5 file with this content.

    Args:
        content: An array, text or number, or a collection, mapping or dataclass of such.
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
        text_sizes, others = [], 0
        for item in content:
            if isinstance(item, str):
                text_sizes.append(_bytes_of(item))
            else:
                others += _bytes_of(item)
        # In a dataset of fixed-length text, each takes as much as the longest.
        return others + len(text_sizes) * max(text_sizes, default=0)
    return 8  # a number, or None


def reserve(path: Path, size: int) -> None:
    """Extend a file to this size with allocated blocks, where the file system can do that.

    Args:
        path: The file; created if missing.
        size: In bytes.

    Raises:
        OSError: The disk is full or not writable, or the file would exceed a size limit.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS and Windows
        return
    with path.open("ab") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
