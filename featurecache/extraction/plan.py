"""What is still to do: which images of a manifest have no embedding that is still true."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import CacheError
from featurecache.store.builder import StoredRows
from featurecache.store.contents import Strings

if TYPE_CHECKING:
    from featurecache.datasets.manifest import Manifest


@dataclass(frozen=True)
class FileStates:
    """Size in bytes and modification time of each file of a manifest; -1 where it is missing."""

    size: NDArray[np.int64]
    mtime_ns: NDArray[np.int64]


def file_states(manifest: "Manifest") -> FileStates:
    """Look at every file of a manifest, without opening any."""
    states = np.full((len(manifest.images), 2), -1, dtype=np.int64)
    for row, path in enumerate(manifest.images["path"]):
        try:
            status = (manifest.root / path).stat()
        except OSError:
            continue  # reading it will record the reason
        states[row] = status.st_size, status.st_mtime_ns
    return FileStates(states[:, 0], states[:, 1])


@dataclass(frozen=True)
class Plan:
    """The work for one cache.

    Attributes:
        todo: manifest rows to read, in order of id.
        reused: how many of the rows asked for have an embedding already.
        outside: stored ids that the manifest does not have.
    """

    todo: NDArray[np.intp]
    reused: int
    outside: Strings

    def asks_for(self, row: int) -> bool:
        """Whether a manifest row is to be read."""
        at = int(np.searchsorted(self.todo, row))
        return at < len(self.todo) and int(self.todo[at]) == row


def plan(ids: Strings, states: FileStates, stored: StoredRows, *, limit: int | None = None) -> Plan:
    """Compare a manifest with what is stored.

    An image is read again when its file's size or modification time changed; it is encoded again
    only if its bytes did. A file that is gone keeps the embedding it has.

    Args:
        ids: (N,) the manifest's image ids, sorted.
        states: of the same rows.
        stored: what has an embedding.
        limit: look at the first rows only.
    """
    rows = np.arange(len(ids) if limit is None else min(limit, len(ids)))
    at = stored.find(ids[rows])
    there = at >= 0
    same = there.copy()
    same[there] = (states.size[rows][there] == stored.size[at[there]]) & (
        states.mtime_ns[rows][there] == stored.mtime_ns[at[there]]
    )
    gone = there & (states.size[rows] < 0)
    done = same | gone
    return Plan(
        todo=rows[~done],
        reused=int(done.sum()),
        outside=stored.id[~np.isin(stored.id, ids)],
    )


def refuse_outside(outside: Strings, path: object) -> None:
    """Stored images that the data set no longer has are dropped on the user's word only.

    Raises:
        CacheError: there are some.
    """
    if len(outside):
        raise CacheError(
            f"{path} holds {len(outside)} images that the data set does not have any more, "
            f"{str(outside[0])!r} the first: give --prune to drop them, or use another --cache"
        )
