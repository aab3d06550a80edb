"""Open a cache by path: a file, the newest of a folder, or several side by side."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from featurecache.errors import CacheError, UnknownNameError, UsageError
from featurecache.io.atomic import find_finished
from featurecache.store.cache import Cache
from featurecache.store.concat import concat_caches
from featurecache.store.grouped import with_units
from featurecache.store.join_rows import join_rows, row_join_of
from featurecache.store.layout import lock_path
from featurecache.store.merge import shard_of
from featurecache.store.reader import read_cache
from featurecache.units import Units

Join = Literal["features", "rows"]
StrPath = str | os.PathLike[str]
CacheLike = Cache | StrPath | Sequence[Cache | StrPath]
"""What ``open_cache`` takes."""


def open_cache(
    path: CacheLike = "cache",
    *,
    join: str = "features",
    uncertain: str | None = None,
    blank: str | None = None,
    readers: str | int | None = None,
    labels_from: str | None = None,
    hierarchy: str | None = None,
    level: str | None = None,
    views: str | None = None,
    study_scores: str | None = None,
    study_features: str | None = None,
) -> Cache:
    """Open a finished cache, with its images or its studies as rows.

    Args:
        path: A cache file; or a folder, of which the newest finished cache is opened; or a list of
            these. A ``Cache`` in place of a path is used as it is.
        join: How the caches of a list are joined. "features": caches of the same images by several
            encoders, whose features are concatenated for the images that all of them hold. "rows":
            caches of several data sets by one encoder, whose images become one data set. Their
            labels are joined by name and by the vocabulary, and are unknown where a data set has
            none; splits are kept.
        uncertain: What uncertain cells of labels count as: "ignore" (unknown), "positive",
            "negative" or "paper"; see ``LabelPolicy``. By default that of the data set.
        blank: What blank cells count as: "unknown" or "negative". By default that of the data set.
        readers: How many of several readers have to state a finding: "majority", "any" or a number.
            By default that of the data set.
        labels_from: "all", or "physician" if labels by models are unknown. By default that of the
            data set.
        hierarchy: "none", or "chexpert" if a positive finding makes its parent positive, too. By
            default that of the data set.
        level: What the rows are and what is scored: "image" (default) or "study". A finding is
            positive in a study if it is in one of its images. An image without a study is one of
            its own.
        views: Images to use: "all" (default), or those that are known to be "frontal" or "lateral".
        study_scores: How the scores of a study's images are joined: "mean" (default) or "max".
            Heads are trained on images.
        study_features: In place of scores, pool embeddings, so that heads are trained on studies:
            "mean", or "frontal+lateral" for the means of both side by side; what stands for a
            missing one is learned.

    Returns:
        The cache. Its ``path`` tells which file was chosen; of a list, the ``path`` of each of its
        ``members``.

    Raises:
        CacheError: A file is missing, damaged, of another version, or contradicts itself; a folder
            has no finished cache, or its newest are several of one extraction; the caches of a
            list share no image or disagree on labels, splits, patients or files; or, to join their
            rows, they have different encoders or share an image.
        UsageError: The list is empty or names a cache twice; features and rows are to be joined at
            once; no image has such a view, or a study is in several splits; or ``study_scores`` and
            ``study_features`` are both given, or one of them at image level.
        UnknownNameError: An option has another value.

    Example:
        >>> import featurecache as fc
        >>> cache = fc.open_cache("cache/phantom/tiny.h5")
        >>> cache.path.name, cache.dim
        ('tiny.h5', 128)
        >>> fc.open_cache("cache").header.dataset
        'phantom'
    """
    if join not in get_args(Join):
        raise UnknownNameError("value of `join`", join, get_args(Join))
    given = [path] if isinstance(path, (str, os.PathLike, Cache)) else path
    caches = [
        entry if isinstance(entry, Cache) else read_cache(_resolve(Path(entry))) for entry in given
    ]
    policy = {
        "uncertain": uncertain,
        "blank": blank,
        "readers": None if readers is None else str(readers),
        "labels_from": labels_from,
        "hierarchy": hierarchy,
    }
    if any(value is not None for value in policy.values()):
        caches = [_override_policy(cache, policy) for cache in caches]
    if len(caches) != 1:
        if any(cache.units != Units() for cache in caches):
            raise UsageError("give `level` and `views` for caches together, not for one of them")
        if join == "rows":
            caches = [join_rows([source for cache in caches for source in cache.sources])]
        else:
            caches = [concat_caches([member for cache in caches for member in cache.members])]
    units = caches[0].units.override(
        level=level, views=views, study_scores=study_scores, study_features=study_features
    )
    return caches[0] if units == caches[0].units else with_units(caches[0], units)


def _override_policy(cache: Cache, values: Mapping[str, str | None]) -> Cache:
    """Return a cache with other values of its policy, or of the policies of joined data sets."""
    if joined := row_join_of(cache):
        rows = join_rows([_override_policy(source, values) for source in joined.caches])
        return with_units(rows, cache.units)
    return cache.with_policy(cache.policy.override(**values))


def newest_cache(folder: Path) -> Path:
    """Return the finished cache in a folder that was made or extracted last, without shards.

    Raises:
        CacheError: There is none, or the last extraction made several.
    """
    # Files without a format check: a damaged newest cache is reported, not skipped in silence.
    files = [
        path for path in find_finished(folder, "*.h5") if not path.parent.name.endswith(".parts")
    ]
    caches = [path for path in files if shard_of(path) is None]
    if caches:
        times = {path: _time_ns(path) for path in caches}
        newest = [path for path in sorted(caches) if times[path] == max(times.values())]
        if len(newest) > 1:
            raise CacheError(
                f"the last extraction into {folder} was of {len(newest)} caches: give one of them "
                f"as `cache`: {', '.join(map(str, newest))}"
            )
        return newest[0]
    if files:
        raise CacheError(f"{folder} holds only shards: merge them, or open one by its path")
    if unfinished := sorted(folder.rglob("*.h5.parts")):
        raise CacheError(
            f"no finished cache in {folder}, but the unfinished {', '.join(map(str, unfinished))}: "
            "extract again as before to finish it, or delete it"
        )
    raise CacheError(f"no finished cache in {folder}: extract one, or open one by its path")


def mark_as_newest(paths: Sequence[Path]) -> None:
    """Make caches the newest ones together, also those that an extraction did not have to change.

    The time is that of their lock files, as a cache that is in use must stay as it is.

    Args:
        paths: The caches of one extraction.
    """
    now = time.time_ns()
    for path in paths:
        os.utime(lock_path(path), ns=(now, now))


def _time_ns(path: Path) -> int:
    """Return when a cache was written, or extracted again without a change."""
    lock = lock_path(path)
    files = [path, lock] if lock.exists() else [path]
    return max(file.stat().st_mtime_ns for file in files)


def _resolve(path: Path) -> Path:
    path = path.expanduser()
    return newest_cache(path) if path.is_dir() else path
