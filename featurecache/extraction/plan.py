"""Decide which images have to be read: those without an up-to-date embedding."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import CacheError
from featurecache.images.read import FileState
from featurecache.store.builder import CacheBuilder, StoredRows
from featurecache.store.records import Utf8, to_utf8
from featurecache.wording import count_noun

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset


@dataclass(frozen=True)
class FileStates:
    """Path, size and modification time of the N files of a data set.

    Attributes:
        path: Paths relative to the root of the data set, or keyed hashes of them where ids are
            pseudonymized, (N,).
        size: Sizes in bytes, (N,); -1 for a missing file.
        mtime_ns: Modification times in nanoseconds, (N,); -1 likewise.
    """

    path: Utf8
    size: NDArray[np.int64]
    mtime_ns: NDArray[np.int64]


def file_states(dataset: "Dataset") -> FileStates:
    """Return the state of every image file, without opening any."""
    states = np.full((len(dataset.images), 2), -1, dtype=np.int64)
    paths = dataset.images["path"]
    for row, path in enumerate(paths):
        try:
            state = FileState.of((dataset.root / path).stat())
        except (OSError, ValueError):
            continue  # the reason is recorded when the file is read
        states[row] = state.size, state.mtime_ns
    names = paths if dataset.key is None else paths.map(dataset.key.hash_path)
    return FileStates(to_utf8(names), states[:, 0].copy(), states[:, 1].copy())


def current_rows(
    states: FileStates, stored: StoredRows, *, rehash: bool = False
) -> NDArray[np.bool_]:
    """Return which images have an embedding of the file that the data set has now, (N,).

    A file with the path, size and modification time that it had when it was encoded has not
    changed. One that is missing keeps its embedding.

    Args:
        states: States of the data set's files.
        stored: Stored embeddings of the same rows.
        rehash: Trust no modification time.
    """
    missing = states.size < 0
    unchanged = (states.size == stored.size) & (states.mtime_ns == stored.mtime_ns)
    if rehash:
        unchanged[:] = False
    current: NDArray[np.bool_] = (
        stored.present() & (states.path == stored.path) & (unchanged | missing)
    )
    return current


@dataclass(frozen=True)
class Plan:
    """The work for one cache.

    Attributes:
        rows: Data set rows to read, ascending.
        reused: Number of requested rows that have an embedding already.
    """

    rows: NDArray[np.intp]
    reused: int

    def includes(self, row: int) -> bool:
        """Return whether a data set row has to be read."""
        position = int(np.searchsorted(self.rows, row))
        return position < len(self.rows) and int(self.rows[position]) == row


class LostContentError(CacheError):
    """A cache would lose images that the data set does not have.

    Args:
        loss: What it would lose; ``loss`` of the error.
        advice: What to do with arguments of ``extract``.
    """

    def __init__(self, loss: str, advice: str) -> None:
        super().__init__(f"{loss}{advice}")
        self.loss = loss


def require_kept_content(builder: CacheBuilder, current: NDArray[np.bool_], sha256: Utf8) -> None:
    """Require that a cache keeps the content that it holds, under any id.

    A cache that would lose most of it was likely made from another data set with the same name,
    such as the ``train.csv`` of another hospital.

    Args:
        builder: The cache.
        current: Which of the data set's N images have an up-to-date embedding.
        sha256: SHA-256 of the data set's files, in hex, (N,); empty for files that were not read
            because their content is not stored.

    Raises:
        LostContentError: Most images have another content now, or images have left the data set.
    """
    stored = builder.stored
    kept = np.concatenate([stored.sha256[current], sha256])
    changed = stored.present() & ~current
    replaced = ~np.isin(stored.sha256[changed], kept)
    removed = ~np.isin(builder.outside_sha256, kept)
    total = int(stored.present().sum()) + len(removed)
    lost = int(replaced.sum() + removed.sum())
    if replaced.any() and 2 * lost > total:
        raise LostContentError(
            f"{builder.path} would lose {lost} of its {count_noun(total, 'image')}, because their "
            "files have another content or are gone",
            ". If this is another data set, give it another `name` or another `cache_dir`; to "
            "replace the images, give `prune`",
        )
    # An id that took the content of one that is gone has lost its own, which is then the one gone.
    taken = replaced & np.isin(sha256[changed], builder.outside_sha256)
    if n_gone := int(removed.sum() + taken.sum()):
        first = builder.outside[removed] if removed.any() else builder.outside
        raise LostContentError(
            f"{builder.path} holds {count_noun(n_gone, 'image')} no longer in the data set, "
            f"{first[0].decode()!r} the first",
            ": give `prune` to drop them, or another `name` or `cache_dir`",
        )
