"""Byte-identical files."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from featurecache.io.fingerprint import sha256_of_file

Key = TypeVar("Key", bound=Hashable)


def identical_files(paths: Sequence[Path]) -> list[list[Path]]:
    """The groups of two or more files with the same bytes, in the order of ``paths``.

    Only files of equal size are read. Empty files are broken rather than copies of each other,
    and make no group.

    Raises:
        OSError: a file cannot be read.
    """
    by_size = _groups((path.stat().st_size, path) for path in paths)
    return [
        group
        for size, candidates in by_size.items()
        if size > 0
        for group in _groups((sha256_of_file(path), path) for path in candidates).values()
    ]


def _groups(keyed: Iterable[tuple[Key, Path]]) -> dict[Key, list[Path]]:
    """The paths that share a key with another path, by key."""
    groups: defaultdict[Key, list[Path]] = defaultdict(list)
    for key, path in keyed:
        groups[key].append(path)
    return {key: group for key, group in groups.items() if len(group) > 1}
