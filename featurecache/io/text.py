"""Read text files from untrusted sources, with limits on their size."""

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TextIO

MAX_BYTES: Final = 2**28
"""Size of a file that is read as a whole: the ids of some million images."""
MAX_LINE: Final = 2**20
"""Characters of a line; our longest is a row of a few hundred labels."""


def read_text(path: Path, *, encoding: str = "utf-8") -> str:
    """Return the content of a text file.

    Args:
        path: The file.
        encoding: Its encoding.

    Raises:
        OSError: The file does not exist, is not a regular file, or cannot be read.
        ValueError: It is larger than ``MAX_BYTES``, or in another encoding.
    """
    require_regular_file(path)
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ValueError(f"the file has {size} bytes, more than the {MAX_BYTES} allowed")
    return path.read_text(encoding=encoding)


def require_regular_file(path: Path) -> None:
    """Check that reading a file ends: a pipe or device may give bytes forever, or never any.

    Raises:
        OSError: It is a pipe, a device or a socket.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))


def bounded_lines(file: TextIO, *, max_chars: int | None = None) -> Iterator[str]:
    """Yield the lines of an open file.

    Args:
        file: The file.
        max_chars: Characters of all lines together; None for no limit.

    Raises:
        ValueError: A line is longer than ``MAX_LINE`` or contains a NUL byte, or the lines have
            more than ``max_chars`` characters.
    """
    total = 0
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise ValueError(f"a line has more than {MAX_LINE} characters")
        # File names cannot contain NUL, and a cache would cut it off the end of an id.
        if "\0" in line:
            raise ValueError("it contains a NUL byte")
        total += len(line)
        if max_chars is not None and total > max_chars:
            raise ValueError(f"it has more than {max_chars} characters when unpacked")
        yield line
