"""The lock of a cache: only one process writes it at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from featurecache.io.lock import OnWait, exclusive_lock
from featurecache.store.layout import lock_path


@contextmanager
def cache_lock(path: Path, *, on_wait: OnWait | None = None) -> Iterator[None]:
    """Be the only process that writes a cache; leave no lock file if nothing was written.

    Removing it while it is held is safe: a process that waits for it notices, and makes a new one.

    Args:
        path: The cache file.
        on_wait: See ``exclusive_lock``.

    Raises:
        UsageError: Another process is writing the cache, and ``on_wait`` is None.
    """
    lock = lock_path(path)
    with exclusive_lock(path, lock, on_wait=on_wait):
        try:
            yield
        finally:
            names = [file.name for file in path.parent.iterdir()]
            if not any(name.startswith(path.name) and name != lock.name for name in names):
                lock.unlink(missing_ok=True)
