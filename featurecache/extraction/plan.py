"""What is still to do: which images of a manifest have no embedding that is still true."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import CacheError
from featurecache.images.decode import FileState
from featurecache.store.builder import StoredRows
from featurecache.store.records import Utf8

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset


@dataclass(frozen=True)
class FileStates:
    """Size in bytes and modification time of each file of a manifest; -1 where it is missing."""

    size: NDArray[np.int64]
    mtime_ns: NDArray[np.int64]


def file_states(manifest: "Dataset") -> FileStates:
    """Look at every file of a manifest, without opening any."""
    states = np.full((len(manifest.images), 2), -1, dtype=np.int64)
    for row, path in enumerate(manifest.images["path"]):
        try:
            state = FileState.of((manifest.root / path).stat())
        except (OSError, ValueError):
            continue  # reading it will record the reason
        states[row] = state.size, state.mtime_ns
    return FileStates(states[:, 0], states[:, 1])


@dataclass(frozen=True)
class Plan:
    """The work for one cache.

    Attributes:
        todo: manifest rows to read, in order of id.
        reused: how many of the rows asked for have an embedding already.
    """

    todo: NDArray[np.intp]
    reused: int

    def asks_for(self, row: int) -> bool:
        """Whether a manifest row is to be read."""
        at = int(np.searchsorted(self.todo, row))
        return at < len(self.todo) and int(self.todo[at]) == row


def plan(states: FileStates, stored: StoredRows, *, limit: int | None = None) -> Plan:
    """Compare a manifest with what is stored.

    An image is read again when its file's size or modification time changed; it is encoded again
    only if its bytes did. A file that is gone keeps the embedding it has.

    Args:
        states: of the manifest's N rows.
        stored: what has an embedding, of the same rows.
        limit: look at the first rows only.
    """
    same = (states.size == stored.size) & (states.mtime_ns == stored.mtime_ns)
    gone = states.size < 0
    done = (stored.present() & (same | gone))[:limit]
    return Plan(todo=np.flatnonzero(~done), reused=int(done.sum()))


def require_inside_root(outside: Utf8, path: object) -> None:
    """Stored images that the data set no longer has are dropped on the user's word only.

    Raises:
        CacheError: there are some.
    """
    if len(outside):
        raise CacheError(
            f"{path} holds {len(outside)} images that the data set does not have any more, "
            f"{outside[0].decode()!r} the first: give --prune to drop them, or use another --cache"
        )
