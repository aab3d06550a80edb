"""Find stored embeddings of images that were moved, renamed or exported again, by their content."""

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import CacheError, FeaturecacheWarning
from featurecache.extraction.decode import ImageTask, decode_ahead
from featurecache.extraction.plan import FileStates, current_rows, require_kept_content
from featurecache.extraction.sample import evenly_spaced
from featurecache.io.fingerprint import first_difference
from featurecache.progress import Progress
from featurecache.store.builder import CacheBuilder, StoredRows
from featurecache.store.cache import BLOCK_ROWS
from featurecache.store.chunks import EncodedRows
from featurecache.store.content import StoredContent
from featurecache.store.merge import shard_of
from featurecache.store.reader import read_cache
from featurecache.store.records import Utf8

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset

SAMPLE_FILES: Final = 16
"""Files that are hashed although their paths, sizes and modification times are unchanged."""


class FileHashes:
    """SHA-256 of the N files of a data set. Each is read when it is needed, and once.

    Args:
        dataset: The data set.
        ids: Ids of its images.
        states: States of its files; updated when a file is read.
        workers: Number of threads that read.
        image_timeout: Maximum time to read one file, in seconds.
        progress: Called with the number of files that were read and of all that were to be read so
            far.

    Attributes:
        states: See above.
        sha256: In hex, (N,); empty for a file that was not read or cannot be.
    """

    def __init__(
        self,
        dataset: "Dataset",
        ids: Utf8,
        states: FileStates,
        *,
        workers: int,
        image_timeout: float,
        progress: Progress | None = None,
    ) -> None:
        self._dataset = dataset
        self._ids = ids
        self._workers = workers
        self._timeout = image_timeout
        self._progress = progress
        self._was_read = np.zeros(len(ids), dtype=np.bool_)
        self._n_reported = 0
        self.states = states
        self.sha256: Utf8 = np.zeros(len(ids), dtype="S64")

    def read(self, rows: NDArray[np.intp], *, silent: bool = False) -> NDArray[np.bool_]:
        """Hash the files of these rows that were not read before; return which have a hash.

        Args:
            rows: The rows, (n,).
            silent: Report no progress.
        """
        new = rows[~self._was_read[rows]]
        self._was_read[new] = True
        n_before = self._n_reported
        self._n_reported += 0 if silent else len(new)
        paths = self._dataset.images["path"]
        tasks = (
            ImageTask(int(row), self._ids[row].decode(), self._dataset.root / paths.iloc[row], ())
            for row in new
        )
        files = decode_ahead(
            tasks, {}, workers=self._workers, window=4 * self._workers, timeout=self._timeout
        )
        with closing(files):
            for n_read, file in enumerate(files, start=n_before + 1):
                # An image that cannot be used has no hash; why not is recorded when it is encoded.
                self.sha256[file.row] = file.sha256.encode()
                if file.reason is None:
                    self.states.size[file.row] = file.size
                    self.states.mtime_ns[file.row] = file.mtime_ns
                if self._progress is not None and not silent:
                    self._progress(n_read, n_before + len(new))
        readable: NDArray[np.bool_] = self.sha256[rows] != b""
        return readable

    def look_up(self, content: StoredContent, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the index in some content of each row's file, (n,); -1 where it is not stored.

        Only files of a size that is stored are read.
        """
        index = np.full(len(rows), -1, dtype=np.intp)
        candidates = np.flatnonzero(np.isin(self.states.size[rows], content.size))
        candidates = candidates[self.read(rows[candidates])]
        index[candidates] = content.find(self.sha256[rows[candidates]])
        return index


def find_current(
    builder: CacheBuilder,
    hashes: FileHashes,
    requested: NDArray[np.bool_],
    *,
    prune: bool,
    rehash: bool,
) -> NDArray[np.bool_]:
    """Return which images of a data set have an up-to-date embedding under their id, (N,).

    Args:
        builder: The cache, in which only the states of moved and rewritten files are updated.
        hashes: Hashes of the data set's files. Only those are read whose content may be stored.
        requested: Which images are to be embedded, (N,).
        prune: Accept that the cache loses content.
        rehash: Trust no modification time.

    Raises:
        UsageError: The cache would lose most of its content.
        CacheError: Images have left the data set.
    """
    stored, states = builder.stored, hashes.states
    current = current_rows(states, stored, rehash=rehash)
    if not _sample_is_unchanged(stored, hashes, np.flatnonzero(current & (states.size >= 0))):
        current = current_rows(states, stored, rehash=True)
    rows = np.flatnonzero(stored.present() & ~current & (stored.size == states.size))
    rows = rows[hashes.read(rows) & (hashes.sha256[rows] == stored.sha256[rows])]
    stored.touch(
        rows, path=states.path[rows], size=states.size[rows], mtime_ns=states.mtime_ns[rows]
    )
    current[rows] = True
    if not prune:
        for content in builder.contents:
            hashes.look_up(content, _rows_to_look_up(builder, requested, current))
        require_kept_content(builder, current, hashes.sha256)
    return current


def _sample_is_unchanged(stored: StoredRows, hashes: FileHashes, rows: NDArray[np.intp]) -> bool:
    """Return whether a few files that seem unchanged have the bytes that they had.

    Archives and copies may give all files one modification time, so that those of another data set
    with the same names, such as that of another hospital, look like those that are cached.
    """
    sample = rows[evenly_spaced(len(rows), SAMPLE_FILES)]
    sample = sample[hashes.read(sample, silent=True)]
    return bool((hashes.sha256[sample] == stored.sha256[sample]).all())


def reuse_embeddings(
    builder: CacheBuilder,
    hashes: FileHashes,
    requested: NDArray[np.bool_],
    current: NDArray[np.bool_],
) -> tuple[NDArray[np.bool_], Mapping[str, int]]:
    """Take embeddings of the same files that are stored under other ids or in other caches.

    Args:
        builder: The cache that they are added to; they are on the disk afterwards.
        hashes: Hashes of the data set's files.
        requested: Which images are to be embedded, (N,).
        current: See ``find_current``.

    Returns:
        Which images have an up-to-date embedding now, (N,), and the number of those taken, by the
        cache that they came from.

    Raises:
        CacheError: The cache itself is damaged; other damaged caches are skipped with a warning.
    """
    done = current.copy()
    numbers = Counter[str]()

    def reuse(content: StoredContent, rows: NDArray[np.intp], path: Path) -> None:
        found = _add_content(builder, content, hashes, rows)
        done[found] = True
        numbers[str(path)] += len(found)

    for content in builder.contents:
        reuse(content, _rows_to_look_up(builder, requested, done), builder.path)
    if not done[requested].all():
        for content in _other_caches(builder):
            try:
                reuse(content, np.flatnonzero(requested & ~done), content.path)
            except (CacheError, OSError) as error:
                _warn_of_unused(content.path, error)
    return done, dict(+numbers)


def _warn_of_unused(path: Path, error: Exception) -> None:
    message = f"embeddings of {path} are not reused: {error}"
    warnings.warn(message, FeaturecacheWarning, stacklevel=2)


def _rows_to_look_up(
    builder: CacheBuilder, requested: NDArray[np.bool_], done: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """Return the rows whose content may be stored in the cache under another id."""
    # If ids have disappeared, any row may have their content, also one that is not requested.
    wanted = requested | builder.stored.present() | bool(len(builder.outside))
    return np.flatnonzero(wanted & ~done)


def _add_content(
    builder: CacheBuilder, content: StoredContent, hashes: FileHashes, rows: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Add the embeddings of those rows whose content is stored; return these rows."""
    states = hashes.states
    index = hashes.look_up(content, rows)
    order = np.argsort(index, kind="stable")
    order = order[index[order] >= 0]
    rows, index = rows[order], index[order]
    # In blocks of the file, so that little is read in between and memory does not grow with it.
    blocks = content.row[index] // BLOCK_ROWS
    for block in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(blocks)) + 1):
        if len(block):
            builder.add(
                EncodedRows(
                    id=builder.stored.id[rows[block]],
                    sha256=content.sha256[index[block]],
                    perceptual_hash=content.perceptual_hash[index[block]],
                    path=states.path[rows[block]],
                    size=states.size[rows[block]],
                    mtime_ns=states.mtime_ns[rows[block]],
                    embedding=content.embedding(index[block]),
                )
            )
    builder.flush()
    return rows


def _other_caches(builder: CacheBuilder) -> Iterator[StoredContent]:
    """Yield what the other caches of the same encoder in the folder of caches hold."""
    path = builder.path
    name = _whole_name(path)
    for file in sorted(path.parent.parent.glob("*/*.h5")):
        if file == path or _whole_name(file) != name:
            continue
        try:
            cache = read_cache(file)
        except (CacheError, OSError) as error:
            _warn_of_unused(file, error)
            continue
        header = cache.header
        if header.imported:
            continue  # which does not show how the embeddings were made
        same_encoder = not first_difference(header.encoder_spec, builder.header.encoder_spec)
        # Without a bit depth, every file that was encoded defines the range of its values.
        if same_encoder and header.bit_depth in (None, builder.header.bit_depth):
            yield StoredContent.of_cache(cache)


def _whole_name(path: Path) -> str:
    """Return the name of a cache file, without the number of its shard."""
    shard = shard_of(path)
    return path.name if shard is None else shard[0].name
