"""Errors of the operating system, which each library reports in a different way.

Python and h5py give an ``OSError`` with a number. safetensors, which is written in Rust, and
sometimes HDF5 raise another exception with the number in its message.
"""

import errno
import os
import re
from pathlib import Path
from typing import Final

_NOT_THE_CONTENT: Final = frozenset(
    getattr(errno, name)
    for name in (
        "EACCES",
        "EAGAIN",
        "EBUSY",
        "EIO",
        "EMFILE",
        "ENFILE",
        "ENOLCK",
        "ENXIO",
        "EPERM",
        "ESTALE",
        "ETIMEDOUT",
    )
    if hasattr(errno, name)  # not all on Windows
)
"""Errors that say nothing about the content of a file. Others, such as EINVAL for an offset that a
damaged file gave, may be caused by it."""


def system_error(number: int, path: Path) -> OSError:
    """Return the ``OSError`` of an error number and a file."""
    return OSError(number, os.strerror(number), str(path))


def number_in(error: BaseException) -> int | None:
    """Return the error number of the operating system in an exception; None if it has none."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    number = re.search(r"(?:os error|errno =) (\d+)", str(error))
    return None if number is None else int(number[1])


def raise_if_inaccessible(error: Exception, path: Path) -> None:
    """Raise what prevented a file from being read, as far as it is not the content of the file.

    A file without permission, or on a disk that is away, is not damaged.

    Args:
        error: What a library raised.
        path: The file.

    Raises:
        OSError: The operating system refused access or failed.
    """
    number = number_in(error)
    if number is not None and number in _NOT_THE_CONTENT:
        raise system_error(number, path) from error
