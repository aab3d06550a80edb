"""Text from files that a stranger may have written: no more of it than there can be."""

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TextIO

MAX_BYTES: Final = 2**28
"""Of a file that is read whole: the ids of some million images."""
MAX_LINE: Final = 2**20
"""Characters; the longest of ours is a row of a few hundred labels."""


def read_text(path: Path, *, encoding: str = "utf-8") -> str:
    """All of a text file.

    Raises:
        OSError: it is not there, no file, or cannot be read.
        ValueError: it is larger than ``MAX_BYTES``, or in another encoding.
    """
    require_regular_file(path)
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ValueError(f"{size} bytes are more than such a file has")
    return path.read_text(encoding=encoding)


def require_regular_file(path: Path) -> None:
    """A pipe or a device would give bytes without end, or never any.

    Raises:
        OSError: there is one.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "it is a pipe or a device", str(path))


def bounded_lines(file: TextIO, *, most: int | None = None) -> Iterator[str]:
    """The lines of an open file, one at a time.

    Args:
        file: the file.
        most: characters of all lines; None for any number.

    Raises:
        ValueError: a line is longer than ``MAX_LINE`` or has a character of value 0, or there are
            more characters.
    """
    read = 0
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise ValueError(f"a line has over {MAX_LINE} characters")
        # No name of a file can hold one, and a cache would cut it off the end of an id.
        if "\0" in line:
            raise ValueError("there is a character of value 0 in it")
        read += len(line)
        if most is not None and read > most:
            raise ValueError(f"it unpacks to over {most} characters")
        yield line
