"""Open a cache by path: a file, the newest of a folder, or several side by side."""

import os
from collections.abc import Sequence
from pathlib import Path

from featurecache.errors import CacheError
from featurecache.store.cache import Cache
from featurecache.store.concat import concat_caches
from featurecache.store.merge import shard_of
from featurecache.store.reader import read_cache

StrPath = str | os.PathLike[str]
CacheLike = Cache | StrPath | Sequence[Cache | StrPath]
"""What ``open_cache`` takes."""


def open_cache(path: CacheLike = "cache") -> Cache:
    """Open a finished cache.

    Args:
        path: A cache file; or a folder, of which the newest finished cache is opened; or a list of
            these, whose features are concatenated for the images that all of them hold. A ``Cache``
            in place of a path is used as it is.

    Returns:
        The cache. Its ``path`` tells which file was chosen; of a list, the ``path`` of each of its
        ``members``.

    Raises:
        CacheError: A file is missing, damaged, of another version, or contradicts itself; a folder
            has no finished cache; or the caches of a list share no image or disagree on labels,
            splits, patients or files.
        UsageError: The list is empty or names a cache twice.

    Example:
        >>> import featurecache as fc
        >>> cache = fc.open_cache("cache/phantom/tiny.h5")
        >>> cache.path.name, cache.dim
        ('tiny.h5', 128)
        >>> fc.open_cache("cache").header.dataset
        'phantom'
    """
    if isinstance(path, Cache):
        return path
    given = [path] if isinstance(path, (str, os.PathLike)) else path
    caches = [
        entry if isinstance(entry, Cache) else read_cache(_resolve(Path(entry))) for entry in given
    ]
    return concat_caches([member for cache in caches for member in cache.members])


def newest_cache(folder: Path) -> Path:
    """Return the finished cache in a folder that was written last. Shards do not count.

    Raises:
        CacheError: There is none.
    """
    # Files without a format check: a damaged newest cache is reported, not skipped in silence.
    files = [path for path in folder.rglob("*.h5") if not path.parent.name.endswith(".parts")]
    caches = [path for path in files if shard_of(path) is None]
    if caches:
        return max(caches, key=lambda path: path.stat().st_mtime_ns)
    if files:
        raise CacheError(f"{folder} holds only shards: merge them, or open one by its path")
    raise CacheError(f"no finished cache in {folder}: extract one, or open one by its path")


def _resolve(path: Path) -> Path:
    path = path.expanduser()
    return newest_cache(path) if path.is_dir() else path
