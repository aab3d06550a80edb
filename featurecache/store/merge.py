"""Several caches of the same kind become one: the shards of a data set, put together."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from featurecache.errors import CacheError, UsageError
from featurecache.io.atomic import require_absent
from featurecache.io.fingerprint import first_difference
from featurecache.io.lock import exclusive_lock
from featurecache.store.cache import Cache
from featurecache.store.gather import gather_rows
from featurecache.store.layout import lock_path
from featurecache.store.reader import read_cache
from featurecache.store.records import ImageTable, Labels, TextSet, positions, to_utf8
from featurecache.store.writer import write_cache


@dataclass(frozen=True)
class Shard:
    """One of ``count`` parts of a data set, counted from 1."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise UsageError(
                f"shard {self.number}/{self.count}: give I/N with I from 1 to N, such as 1/8"
            )

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Parse "I/N".

        Raises:
            UsageError: The text has another form, or I is not from 1 to N.
        """
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal()):
            raise UsageError(f"`shard` is {text!r}: give I/N, such as 1/8")
        return cls(int(number), int(count))

    def path(self, cache_file: Path) -> Path:
        """Where the shard of a cache lies: ``<model>.I-of-N.h5`` for ``<model>.h5``."""
        return cache_file.with_name(f"{cache_file.stem}.{self.number}-of-{self.count}.h5")


def shard_of(path: Path) -> tuple[Path, Shard] | None:
    """The cache that a shard is part of, and which part; None where the name is no shard's."""
    found = re.fullmatch(r"(.+)\.([1-9]\d*)-of-([1-9]\d*)\.h5", path.name)
    if found is None or int(found[2]) > int(found[3]):
        return None
    return path.with_name(f"{found[1]}.h5"), Shard(int(found[2]), int(found[3]))


def merge_caches(paths: Sequence[Path], target: Path | None = None) -> tuple[Path, int]:
    """Write one cache of the images of several, which stay as they are.

    Args:
        paths: two or more caches of one data set, made with the same settings, without an image in
            common; of shards, all of them.
        target: the cache to write; None, for shards, where the whole cache belongs.

    Returns:
        Where the cache is, and its number of images.

    Raises:
        CacheError: a file is damaged, or they do not belong together; the message says why.
        UsageError: a shard is missing, something is at ``target`` already, or another process is
            writing it.
        OSError: the disk is full or not writable.
    """
    if len(paths) < 2:
        raise UsageError("give two or more caches to merge")
    whole = _whole_of(paths)
    target = target or whole
    if target is None:
        raise UsageError("these are no shards of one cache, so say with --out where to write")
    with exclusive_lock(target, lock_path(target)):
        require_absent(target)
        return target, _merge(paths, target)


def _merge(paths: Sequence[Path], target: Path) -> int:
    """Write the cache; gives its number of images."""
    caches = [read_cache(path) for path in paths]
    first = caches[0]
    for other in caches[1:]:
        _refuse_others(first, other)
    order = np.argsort(np.concatenate([cache.images.id for cache in caches]), kind="stable")

    def column(name: str) -> Any:
        return np.concatenate([getattr(cache.images, name) for cache in caches])[order]

    images = ImageTable(**{field.name: column(field.name) for field in fields(ImageTable)})
    twice = images.id[1:][images.id[1:] == images.id[:-1]]
    if len(twice):
        raise CacheError(f"{twice[0].decode()!r} is in two of the caches: give each once")
    rows = [len(cache.images) for cache in caches]
    source = np.repeat(np.arange(len(caches), dtype=np.int32), rows)[order]
    row = np.concatenate([np.arange(n, dtype=np.int32) for n in rows])[order]
    failures = {key: why for cache in caches for key, why in cache.failures.items()}
    failed = positions(images.id, to_utf8(list(failures))) < 0
    write_cache(
        target,
        header=first.header,
        images=images,
        dim=first.dim,
        embedding=lambda start, stop: gather_rows(
            source[start:stop],
            row[start:stop],
            dim=first.dim,
            read=lambda number, low, high: caches[number].read_rows(low, high),
        ),
        labels=Labels(
            first.labels.names, np.concatenate([cache.labels.values for cache in caches])[order]
        ),
        texts=first.texts,
        failures=dict(compress(failures.items(), failed)),
    )
    return len(images)


def _whole_of(paths: Sequence[Path]) -> Path | None:
    """The cache that shards are of; None where they are not all shards of one."""
    found = [shard_of(path) for path in paths]
    shards = [shard for shard in found if shard is not None]
    if len(shards) < len(paths) or len({(whole, s.count) for whole, s in shards}) > 1:
        return None
    whole, shard = shards[0]
    missing = set(range(1, shard.count + 1)) - {s.number for _, s in shards}
    if missing:
        number = min(missing)
        raise UsageError(
            f"{len(missing)} of {shard.count} shards are missing, "
            f"{Shard(number, shard.count).path(whole)} the first: extract it with "
            f"--shard {number}/{shard.count}, or give it too"
        )
    return whole


def _refuse_others(first: Cache, other: Cache) -> None:
    which = f"{first.path} and {other.path} do not belong together"
    if difference := first_difference(first.header.encoder_spec, other.header.encoder_spec):
        raise CacheError(f"{which}: they were made with different settings ({difference})")
    for what in ("dataset", "collection", "model", "image_level_split", "exposed", "trained_on"):
        one, two = getattr(first.header, what), getattr(other.header, what)
        if one != two:
            raise CacheError(f"{which}: their {what} differ ({one!r}, {two!r})")
    if first.labels.names != other.labels.names:
        raise CacheError(
            f"{which}: their labels are {', '.join(first.labels.names)} and "
            f"{', '.join(other.labels.names)}"
        )
    if _fingerprints(first.texts.values()) != _fingerprints(other.texts.values()):
        raise CacheError(f"{which}: their prompts differ; extract both with the same --prompts")


def _fingerprints(texts: Iterable[TextSet]) -> set[tuple[str, str]]:
    return {(text.name, text.fingerprint) for text in texts}
