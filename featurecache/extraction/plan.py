"""Decide which images have to be read: those without an up-to-date embedding."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import CacheError, UsageError
from featurecache.images.read import FileState
from featurecache.io.fingerprint import sha256_of_file
from featurecache.store.builder import StoredRows
from featurecache.store.records import Utf8

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset

MIN_REPLACED: Final = 20
"""Changed files from which on they can be another data set rather than corrections."""
_N_HASHED: Final = 16


@dataclass(frozen=True)
class FileStates:
    """Size and modification time of the N files of a data set; -1 for a missing file.

    Attributes:
        size: Sizes in bytes, (N,).
        mtime_ns: Modification times in nanoseconds, (N,).
    """

    size: NDArray[np.int64]
    mtime_ns: NDArray[np.int64]


def file_states(dataset: "Dataset") -> FileStates:
    """Return size and modification time of every image file, without opening any."""
    states = np.full((len(dataset.images), 2), -1, dtype=np.int64)
    for row, path in enumerate(dataset.images["path"]):
        try:
            state = FileState.of((dataset.root / path).stat())
        except (OSError, ValueError):
            continue  # the reason is recorded when the file is read
        states[row] = state.size, state.mtime_ns
    return FileStates(states[:, 0], states[:, 1])


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


def make_plan(states: FileStates, stored: StoredRows, *, limit: int | None = None) -> Plan:
    """Compare the files of a data set with the stored embeddings.

    An image is read again when the size or the modification time of its file has changed; it is
    encoded again only if its bytes have. A file that is missing keeps the embedding it has.

    Args:
        states: File states of the data set's N rows.
        stored: Stored embeddings of the same rows.
        limit: Consider only the first rows.

    Returns:
        The rows to read.
    """
    unchanged = (states.size == stored.size) & (states.mtime_ns == stored.mtime_ns)
    missing = states.size < 0
    done = (stored.present() & (unchanged | missing))[:limit]
    return Plan(rows=np.flatnonzero(~done), reused=int(done.sum()))


def require_no_removed_images(removed: Utf8, path: Path) -> None:
    """Require that every stored image is still in the data set.

    Args:
        removed: Ids of stored images that the data set does not have any more.
        path: The cache.

    Raises:
        CacheError: There are removed images.
    """
    if len(removed):
        raise CacheError(
            f"{path} holds {len(removed)} images that are no longer in the data set, "
            f"{removed[0].decode()!r} the first: give `prune` to drop them, or use another "
            "`cache_dir`"
        )


def require_same_images(
    dataset: "Dataset", states: FileStates, stored: StoredRows, path: Path
) -> None:
    """Require that most stored images still have the content that was encoded.

    If not, this is likely another data set with the same name and ids, such as the ``train.csv``
    of another hospital. A file of another size has changed; of those with another modification
    time only, a few are read.

    Args:
        dataset: The data set, of N images.
        states: The states of its files.
        stored: Stored embeddings of the same rows.
        path: The cache.

    Raises:
        UsageError: Most images have changed.
    """
    kept = stored.present() & (states.size >= 0)
    resized = kept & (states.size != stored.size)
    touched = np.flatnonzero(kept & ~resized & (states.mtime_ns != stored.mtime_ns))
    replaced = float(resized.sum())
    if 2 * (replaced + len(touched)) <= kept.sum():
        return
    if len(touched):
        hashed = touched[:: len(touched) // _N_HASHED + 1]
        changed = 0
        for row in hashed.tolist():
            with suppress(OSError):  # the reason is recorded when the file is read
                sha256 = sha256_of_file(dataset.root / dataset.images["path"].iloc[row])
                changed += sha256.encode() != stored.sha256[row]
        replaced += len(touched) * changed / len(hashed)
    if replaced >= MIN_REPLACED and 2 * replaced > kept.sum():
        raise UsageError(
            f"{path} holds other images with the same ids: about {replaced:.0f} of {kept.sum()} "
            "files have another content. If this is another data set, use another `cache_dir`; to "
            "replace the images, give `prune`"
        )
