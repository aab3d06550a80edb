"""Find byte-identical files."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from featurecache.io.fingerprint import sha256_of_file

Key = TypeVar("Key", bound=Hashable)


def identical_files(paths: Sequence[Path]) -> list[list[Path]]:
    """Group files with identical bytes.

    Only files of equal size are read. Empty files are broken rather than copies of each other, so
    they are not grouped.

    Args:
        paths: The files.

    Returns:
        Groups of two or more identical files, each in the order of ``paths``.

    Raises:
        OSError: If a file cannot be read.
    """
    by_size = _group((path.stat().st_size, path) for path in paths)
    return [
        group
        for size, candidates in by_size.items()
        if size > 0
        for group in _group((sha256_of_file(path), path) for path in candidates).values()
    ]


def _group(keyed: Iterable[tuple[Key, Path]]) -> dict[Key, list[Path]]:
    """Group paths by key, and keep groups of at least two."""
    groups: defaultdict[Key, list[Path]] = defaultdict(list)
    for key, path in keyed:
        groups[key].append(path)
    return {key: group for key, group in groups.items() if len(group) > 1}
