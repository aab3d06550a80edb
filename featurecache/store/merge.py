"""Merge the shards of a data set, or other caches of the same kind, into one cache."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

import numpy as np

from featurecache.errors import CacheError, UsageError
from featurecache.io.atomic import require_absent, require_short_name
from featurecache.provenance.encoder_spec import spec_difference
from featurecache.store.cache import Cache
from featurecache.store.gather import gather_rows
from featurecache.store.lock import cache_lock
from featurecache.store.reader import read_cache
from featurecache.store.records import (
    Extraction,
    Header,
    ImageTable,
    Labels,
    Listed,
    positions,
    split_conflicts,
    study_conflicts,
    text_fingerprints,
    to_utf8,
)
from featurecache.store.writer import write_cache
from featurecache.wording import count_noun


@dataclass(frozen=True)
class Shard:
    """One of ``count`` shards of a data set, numbered from 1."""

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
        number, slash, count = str(text).partition("/")
        if not (slash and number.isdecimal() and count.isdecimal()):
            raise UsageError(f"`shard` is {text!r}: give I/N, such as 1/8")
        return cls(int(number), int(count))

    def path(self, cache_file: Path) -> Path:
        """Return the file of a cache's shard: ``<model>.I-of-N.h5`` for ``<model>.h5``."""
        return cache_file.with_name(f"{cache_file.stem}.{self.number}-of-{self.count}.h5")


def shard_of(path: Path) -> tuple[Path, Shard] | None:
    """Return the cache that a file is a shard of, and which; None if its name is not a shard's."""
    match = re.fullmatch(r"(.+)\.([1-9]\d*)-of-([1-9]\d*)\.h5", path.name)
    if match is None or int(match[2]) > int(match[3]):
        return None
    return path.with_name(f"{match[1]}.h5"), Shard(int(match[2]), int(match[3]))


def merge_caches(
    paths: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str] | None = None
) -> tuple[Path, int]:
    """Write one cache with the images of several, which are left as they are.

    Args:
        paths: Two or more caches of one data set, made with the same settings, without common
            images; of shards, all of them.
        out: The cache to write; may be None for shards, which name the cache they belong to.

    Returns:
        The file that was written, and its number of images.

    Raises:
        CacheError: A file is damaged, or the caches do not belong together; the message tells why.
        UsageError: A shard is missing, ``out`` exists already, or another process is writing it.
        OSError: The disk is full or not writable.
    """
    files = [Path(path) for path in paths]
    if len(files) < 2:
        raise UsageError("give two or more caches to merge")
    whole = _cache_of_shards(files)
    target = whole if out is None else Path(out)
    if target is None:
        raise UsageError("these are not shards of one cache: give `out`, the file to write")
    require_short_name(target)
    require_absent(target)
    return target, _merge(files, target)


def _merge(paths: Sequence[Path], target: Path) -> int:
    """Write the merged cache; return its number of images."""
    caches = [read_cache(path) for path in paths]
    first = caches[0]
    for other in caches[1:]:
        _require_same_kind(first, other)
    order = np.argsort(np.concatenate([cache.images.id for cache in caches]), kind="stable")
    columns = zip(*(vars(cache.images).values() for cache in caches), strict=True)
    images = ImageTable(*map(np.concatenate, columns)).take(order)
    duplicates = images.id[1:][images.id[1:] == images.id[:-1]]
    if len(duplicates):
        raise CacheError(
            f"{duplicates[0].decode()!r} is in two of the caches: give each cache once"
        )
    mixed = [] if first.header.image_level_split else split_conflicts(images).tolist()
    if mixed:
        raise CacheError(
            f"the caches have {count_noun(len(mixed), 'patient')} in different splits, patient "
            f"{mixed[0].decode()!r} the first: extract them again from one data set. The "
            "embeddings are kept"
        )
    if len(shared := study_conflicts(images)):
        raise CacheError(
            f"the caches have {count_noun(len(shared), 'study')} of different patients, study "
            f"{shared[0].decode()!r} the first: extract them again from one data set. The "
            "embeddings are kept"
        )
    rows = [len(cache.images) for cache in caches]
    source = np.repeat(np.arange(len(caches), dtype=np.int32), rows)[order]
    row = np.concatenate([np.arange(n, dtype=np.int32) for n in rows])[order]
    failures = {image: reason for cache in caches for image, reason in cache.failures.items()}
    failed = positions(images.id, to_utf8(list(failures))) < 0
    with cache_lock(target):
        require_absent(target)
        write_cache(
            target,
            header=replace(
                first.header,
                libraries=_all_libraries(caches),
                listed=_listed([cache.header for cache in caches]),
                imported={
                    name: sha256
                    for cache in caches
                    for name, sha256 in cache.header.imported.items()
                },
                table={},
                extraction=_without_shard(first.header.extraction),
            ),
            images=images,
            dim=first.dim,
            embedding=lambda start, stop: gather_rows(
                source[start:stop],
                row[start:stop],
                dim=first.dim,
                read=lambda number, low, high: caches[number].read_rows(low, high),
            ),
            labels=Labels(
                first.labels.names, np.concatenate([cache.labels.cells for cache in caches])[order]
            ),
            texts=first.texts,
            failures=dict(compress(failures.items(), failed)),
        )
    return len(images)


def _all_libraries(caches: Sequence[Cache]) -> tuple[Mapping[str, str], ...]:
    libraries: list[Mapping[str, str]] = []
    for cache in caches:
        libraries += [versions for versions in cache.header.libraries if versions not in libraries]
    return tuple(libraries)


def _listed(headers: Sequence[Header]) -> Listed | None:
    """Return what the data sets of several caches list; patients may be in several of them."""
    listed = [header.listed for header in headers]
    if headers[0].table and all(header.table == headers[0].table for header in headers):
        return listed[0]  # shards state those of the whole
    known = [counts for counts in listed if counts is not None]
    if len(known) < len(listed):
        return None
    return Listed(images=sum(counts["images"] for counts in known), patients=None)


def _without_shard(extraction: Extraction) -> Extraction:
    return {**extraction, "shard": None} if extraction else extraction


def _cache_of_shards(paths: Sequence[Path]) -> Path | None:
    """Return the cache that all of these are shards of; None if they are not.

    Raises:
        UsageError: A shard is missing.
    """
    names = map(shard_of, paths)
    shards = [name for name in names if name is not None]
    if len(shards) < len(paths) or len({(whole, shard.count) for whole, shard in shards}) > 1:
        return None
    whole, shard = shards[0]
    missing = set(range(1, shard.count + 1)) - {present.number for _, present in shards}
    if missing:
        first = Shard(min(missing), shard.count)
        raise UsageError(
            f"{len(missing)} of {shard.count} shards are missing, the first is "
            f"{first.path(whole)}: extract shard {first.number}/{first.count}, or give it too"
        )
    return whole


def _require_same_kind(first: Cache, other: Cache) -> None:
    both = f"{first.path} and {other.path} cannot be merged"
    if difference := spec_difference(first.header.encoder_spec, other.header.encoder_spec):
        raise CacheError(f"{both}: they were made with different settings ({difference})")
    tables = [cache.header.table for cache in (first, other)]
    if all(tables) and tables[0] != tables[1]:
        names = sorted({*tables[0], *tables[1]})
        differ = [name for name in names if tables[0].get(name) != tables[1].get(name)]
        raise CacheError(
            f"{both}: they are shards of different data sets, whose {' and '.join(differ)} differ: "
            "extract all shards again from the same data set. The embeddings are kept"
        )
    for name in (
        *("dataset", "collection", "model", "image_level_split", "exposed", "trained_on"),
        *("bit_depth", "policy"),
    ):
        values = [getattr(cache.header, name) for cache in (first, other)]
        if values[0] != values[1]:
            raise CacheError(f"{both}: their {name} differs ({values[0]!r}, {values[1]!r})")
    if first.labels.names != other.labels.names:
        raise CacheError(
            f"{both}: their labels are {', '.join(first.labels.names)} and "
            f"{', '.join(other.labels.names)}"
        )
    if text_fingerprints(first.texts) != text_fingerprints(other.texts):
        raise CacheError(f"{both}: their prompts differ; extract both with the same prompts")
