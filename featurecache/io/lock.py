"""Locks: one process writes a file or folder at a time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from featurecache.errors import UsageError
from featurecache.io.atomic import make_folder

OnWait = Callable[[Path], None]
"""Called once with the file that is waited for, if another process is writing it."""


@contextmanager
def exclusive_lock(target: Path, lock: Path, *, on_wait: OnWait | None = None) -> Iterator[None]:
    """Hold the lock of a file or folder while the body runs.

    The operating system releases the lock when the process ends, however it ends. The lock file
    itself remains.

    Args:
        target: What is to be written, for messages.
        lock: The lock file.
        on_wait: Called if another process holds the lock, which is then waited for; raise an error
            instead if None.

    Raises:
        UsageError: Another process holds the lock, or the file system has no locks.
    """
    from filelock import FileLock, Timeout

    make_folder(lock.parent)
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        if on_wait is None:
            raise UsageError(
                f"another process is writing {target}: wait until it ends, or write elsewhere"
            ) from None
        on_wait(target)
        held.acquire()
    except NotImplementedError:
        raise UsageError(
            f"{lock.parent} is on a file system without locks, where two processes could overwrite "
            "each other's files: use another file system, or have locks enabled"
        ) from None
    try:
        yield
    finally:
        held.release()
