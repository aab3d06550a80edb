"""Read the bytes of image files, without waiting for pipes or reading files that change."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from featurecache.errors import ImageError

MAX_BYTES = 512 * 2**20


@dataclass(frozen=True)
class FileState:
    """Size in bytes and modification time of a file, to tell whether it has changed."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "FileState":
        """Return the state in a file's status."""
        # File systems have times after 2262, which do not fit 64-bit nanoseconds.
        return cls(status.st_size, max(-(2**63), min(status.st_mtime_ns, 2**63 - 1)))


def read_file(path: Path) -> tuple[bytes, FileState]:
    """Return the bytes of an image file, and the state it had when they were read.

    Args:
        path: The file.

    Raises:
        ImageError: The file is missing, empty, not a regular file, unreadable, larger than
            ``MAX_BYTES``, or changed while it was read.
    """
    try:
        # By name first, because opening a device may have effects; then what was opened, because
        # the name may lead elsewhere by then.
        _check_file(path.stat())
        with open(path, "rb", opener=_open_nonblocking) as file:
            before = os.fstat(file.fileno())
            _check_file(before)
            data = file.read(before.st_size + 1)
            after = os.fstat(file.fileno())
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError("missing: no such file") from None
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from error
    except ValueError:
        raise ImageError("cannot be read: this is not a valid file name") from None
    state = FileState.of(before)
    if len(data) != before.st_size or state != FileState.of(after):
        raise ImageError("changed while it was read")
    return data, state


def read_bytes(path: Path) -> bytes:
    """Return the bytes of an image file.

    Raises:
        ImageError: See ``read_file``.
    """
    return read_file(path)[0]


def read_start(path: Path, size: int) -> bytes:
    """Return the first bytes of a file; nothing if it cannot be read.

    Args:
        path: The file.
        size: Their number.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return b""
        with open(path, "rb", opener=_open_nonblocking) as file:
            return file.read(size)
    except (OSError, ValueError):
        return b""


def _open_nonblocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _check_file(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("not a regular file")
    if status.st_size == 0:
        raise ImageError("the file is empty")
    if status.st_size > MAX_BYTES:
        raise ImageError(f"the file has {status.st_size:,} bytes, over the limit {MAX_BYTES:,}")
