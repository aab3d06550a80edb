"""The image loop: what the caches lack goes to an engine, and what comes back to the caches."""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from featurecache.extraction.crash_journal import CrashJournal
from featurecache.extraction.decode import Item, Mark
from featurecache.extraction.encode import Encoded, Event, Seen, Take
from featurecache.extraction.plan import Plan
from featurecache.images.subprocess_decoder import CRASHED
from featurecache.progress import Progress
from featurecache.store.builder import CacheBuilder
from featurecache.store.chunks import EncodedRows
from featurecache.store.records import NON_FINITE_EMBEDDING, Utf8, to_float16_checked

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset
    from featurecache.encoders.encoder import Encoder

_log = logging.getLogger(__name__)

FLUSH_SECONDS = 30.0
"""The most work, in time, that a kill can cost."""


class Engine(Protocol):
    """Reads, decodes and encodes images, here or elsewhere."""

    def __call__(
        self,
        items: Iterable[Item],
        encoders: Sequence["Encoder"],
        take: Take,
        *,
        batch_size: int,
        workers: int,
        image_timeout: float,
        mark: Mark,
    ) -> None:
        """Give ``take``, in this thread, what came of every item.

        All engines form the same batches, so that embeddings are equal to the last bit; the order
        of the runs that they come in may differ.

        Args:
            items: in order of their rows.
            encoders: they have the numbers that the items call them by.
            take: is given one ``Seen`` for each item, and ``Encoded`` for what it must encode.
            batch_size: images an encoder sees at once.
            workers: decoding threads, for each process that decodes.
            image_timeout: that reading an image may take; one that takes longer has failed.
            mark: entered while an image is decoded in this process; an engine whose processes are
                others has marks of its own.
        """


@dataclass
class Job:
    """One encoder, the cache it fills, and what came of it.

    Attributes:
        failures: image id to the reason why it has no embedding.
        touched: how many files changed but hold the same bytes.
    """

    encoder: "Encoder"
    builder: CacheBuilder
    plan: Plan
    failures: dict[str, str] = field(default_factory=dict)
    touched: int = 0
    done: int = 0
    read_seconds: float = 0.0
    encode_seconds: float = 0.0
    write_seconds: float = 0.0
    flushed: float = field(default_factory=time.monotonic)


def _items(
    manifest: "Dataset",
    jobs: Sequence[Job],
    ids: Utf8,
    rows: NDArray[np.intp],
    bookmarks: CrashJournal,
) -> Iterator[Item]:
    paths = manifest.images["path"]
    crashed = set[bytes]().union(*(job.builder.failed(CRASHED) for job in jobs))
    for row in rows:
        known = {
            number: job.builder.stored.sha256[row].decode()
            for number, job in enumerate(jobs)
            if job.plan.asks_for(row)
        }
        image = ids[row].decode()
        apart = bookmarks.suspects(image) or ids[row] in crashed
        yield Item(int(row), image, manifest.root / paths.iloc[row], known, apart)


def encode_images(
    manifest: "Dataset",
    jobs: Sequence[Job],
    ids: Utf8,
    *,
    engine: Engine,
    batch_size: int,
    workers: int,
    image_timeout: float,
    progress: Progress | None,
) -> None:
    """Read, decode, encode and store what the jobs' plans ask for, each image read once."""
    rows: NDArray[np.intp] = np.unique(np.concatenate([job.plan.todo for job in jobs]))
    finished = 0

    def take(event: Event, seconds: float) -> None:
        nonlocal finished
        if isinstance(event, Encoded):
            _store(jobs[event.encoder], event, seconds, ids)
            return
        if event.reason is not None:
            _log.warning(f"failed: {ids[event.row].decode()}: {event.reason}")
        for number, job in enumerate(jobs):
            job.read_seconds += seconds
            if job.plan.asks_for(event.row):
                _note(job, number, event, ids)
        finished += 1
        if progress is not None:
            progress(finished, len(rows))

    if progress is not None:
        progress(0, len(rows))
    files = [job.builder.bookmarks for job in jobs if len(job.plan.todo)]
    with closing(CrashJournal(files)) as bookmarks:
        engine(
            _items(manifest, jobs, ids, rows, bookmarks),
            [job.encoder for job in jobs],
            take,
            batch_size=batch_size,
            workers=workers,
            image_timeout=image_timeout,
            mark=bookmarks.at,
        )


def _note(job: Job, number: int, image: Seen, ids: Utf8) -> None:
    """Keep why an image that the job asked for needs no encoding, if so."""
    if image.reason is not None:
        job.failures[ids[image.row].decode()] = image.reason
    elif number not in image.encoders:
        job.builder.touch(image.row, image.size, image.mtime_ns)
        job.touched += 1


def _store(job: Job, batch: Encoded, seconds: float, ids: Utf8) -> None:
    start = time.monotonic()
    half, usable = to_float16_checked(batch.embedding)
    for row in batch.row[~usable]:
        job.failures[ids[row].decode()] = NON_FINITE_EMBEDDING
        _log.warning(f"failed: {ids[row].decode()}: {job.encoder.name}: {NON_FINITE_EMBEDDING}")
    if usable.any():
        job.builder.add(
            EncodedRows(
                id=ids[batch.row[usable]],
                sha256=batch.sha256[usable],
                size=batch.size[usable],
                mtime_ns=batch.mtime_ns[usable],
                embedding=half[usable],
            )
        )
        if time.monotonic() - job.flushed > FLUSH_SECONDS:
            job.builder.flush()
            job.flushed = time.monotonic()
    job.done += int(usable.sum())
    job.encode_seconds += seconds
    job.write_seconds += time.monotonic() - start
