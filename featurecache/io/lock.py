"""One writer at a time: what a second process does while a first is at work on a file."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from featurecache.errors import UsageError
from featurecache.io.atomic import make_folder

OnWait = Callable[[Path], None]
"""Told which file is waited for, once, when another process is at work on it."""


@contextmanager
def exclusive_lock(target: Path, lock: Path, *, on_wait: OnWait | None = None) -> Iterator[None]:
    """Be the only process that writes a file or folder while the body runs.

    A process that dies lets go of its lock, however it dies. The lock is the system's, on a file of
    its own that stays; where a file system has no locks, the error says so.

    Args:
        target: what is to be written, for messages.
        lock: the file that is locked.
        on_wait: called where another process is at work, which is then waited for; None refuses.

    Raises:
        UsageError: another process is at work on it, or the file system has no locks.
    """
    from filelock import FileLock, Timeout

    make_folder(lock.parent)
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        if on_wait is None:
            raise UsageError(
                f"another process is at work on {target}: let it finish, or write elsewhere"
            ) from None
        on_wait(target)
        held.acquire()
    except NotImplementedError:
        raise UsageError(
            f"{lock.parent} is on a file system without locks, so that two processes could spoil "
            "each other's work: write to another, or ask for locks to be switched on"
        ) from None
    try:
        yield
    finally:
        held.release()
