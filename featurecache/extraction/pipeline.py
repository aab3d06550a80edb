"""The image loop: send missing images to an engine and store the embeddings that come back."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from featurecache.extraction.crash_journal import CrashJournal
from featurecache.extraction.decode import ImageTask, JournalEntry
from featurecache.extraction.encode import EncodedBatch, Event, EventHandler
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

FLUSH_SECONDS: Final = 30.0
"""Maximum time between writes to disk, and so the most work that a kill can cost."""


class Engine(Protocol):
    """Reads, decodes and encodes images, in this process or elsewhere."""

    def __call__(
        self,
        tasks: Iterable[ImageTask],
        encoders: Sequence["Encoder"],
        handle: EventHandler,
        *,
        batch_size: int,
        workers: int,
        image_timeout: float,
        journal_entry: JournalEntry,
    ) -> None:
        """Pass the result of every task to ``handle``, called in this thread.

        All engines form the same batches, so that embeddings are equal to the last bit; only the
        order in which segments of the data set arrive may differ.

        Args:
            tasks: The images, in order of their rows.
            encoders: The encoders, in the order of the indices that the tasks use.
            handle: Receives an ``ImageResult`` for each task, and an ``EncodedBatch`` for each
                batch of images that had to be encoded.
            batch_size: Number of images per forward pass.
            workers: Number of decoding threads in each process that decodes.
            image_timeout: Maximum time to read one image, in seconds; one that takes longer has
                failed.
            journal_entry: Entered while an image is decoded in this process. An engine that decodes
                in other processes keeps journals of its own.
        """


@dataclass
class Job:
    """One encoder, the cache that it fills, and what happened so far.

    Attributes:
        encoder: The encoder.
        builder: Its cache.
        plan: Which images it needs.
        reused_by_content: See ``ExtractionSummary``.
        failures: Reason why an image has no embedding, by image id.
        done: Number of images that were encoded.
        read_seconds: Time spent waiting for pixels.
        encode_seconds: Time spent encoding.
        write_seconds: Time spent writing.
        last_flush: When embeddings were last written to disk.
    """

    encoder: "Encoder"
    builder: CacheBuilder
    plan: Plan
    reused_by_content: Mapping[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    done: int = 0
    read_seconds: float = 0.0
    encode_seconds: float = 0.0
    write_seconds: float = 0.0
    last_flush: float = field(default_factory=time.monotonic)


def encode_images(
    dataset: "Dataset",
    jobs: Sequence[Job],
    ids: Utf8,
    paths: Utf8,
    *,
    engine: Engine,
    batch_size: int,
    workers: int,
    image_timeout: float,
    progress: Progress | None,
) -> None:
    """Read each image that a job needs once, encode it, and store the embeddings.

    Args:
        dataset: The images.
        jobs: One for each encoder.
        ids: The ids of the data set's images.
        paths: Their paths, as they are stored; see ``FileStates``.
        engine: Decodes and encodes.
        batch_size: See ``Engine``.
        workers: See ``Engine``.
        image_timeout: See ``Engine``.
        progress: Called with the number of finished images and of all images to read.
    """
    rows: NDArray[np.intp] = np.unique(np.concatenate([job.plan.rows for job in jobs]))
    finished = 0

    def handle(event: Event, seconds: float) -> None:
        nonlocal finished
        if isinstance(event, EncodedBatch):
            for index, embedding in event.embeddings.items():
                _store_batch(jobs[index], event, embedding, seconds, ids, paths)
            return
        if event.reason is not None:
            _log.warning(f"failed: {ids[event.row].decode()}: {event.reason}")
        for job in jobs:
            job.read_seconds += seconds
            if event.reason is not None and job.plan.includes(event.row):
                job.failures[ids[event.row].decode()] = event.reason
        finished += 1
        if progress is not None:
            progress(finished, len(rows))

    if progress is not None:
        progress(0, len(rows))
    journal_files = [job.builder.crash_journal for job in jobs if len(job.plan.rows)]
    with closing(CrashJournal(journal_files)) as journal:
        engine(
            _image_tasks(dataset, jobs, ids, rows, journal),
            [job.encoder for job in jobs],
            handle,
            batch_size=batch_size,
            workers=workers,
            image_timeout=image_timeout,
            journal_entry=journal.entry,
        )


def _image_tasks(
    dataset: "Dataset",
    jobs: Sequence[Job],
    ids: Utf8,
    rows: NDArray[np.intp],
    journal: CrashJournal,
) -> Iterator[ImageTask]:
    paths = dataset.images["path"]
    crashed = set[bytes]().union(*(job.builder.failed(CRASHED) for job in jobs))
    for row in rows:
        needed_by = tuple(index for index, job in enumerate(jobs) if job.plan.includes(row))
        image_id = ids[row].decode()
        isolated = journal.is_suspect(image_id) or ids[row] in crashed
        path = dataset.root / paths.iloc[row]
        yield ImageTask(int(row), image_id, path, needed_by, isolated, dataset.bit_depth)


def _store_batch(
    job: Job,
    batch: EncodedBatch,
    embedding: NDArray[np.float32],
    seconds: float,
    ids: Utf8,
    paths: Utf8,
) -> None:
    start = time.monotonic()
    stored, usable = to_float16_checked(embedding)
    # Another encoder of the network may have needed more of the images.
    needed = np.array([job.plan.includes(row) for row in batch.row.tolist()], dtype=np.bool_)
    for row in batch.row[needed & ~usable]:
        job.failures[ids[row].decode()] = NON_FINITE_EMBEDDING
        _log.warning(f"failed: {ids[row].decode()}: {job.encoder.name}: {NON_FINITE_EMBEDDING}")
    usable &= needed
    if usable.any():
        job.builder.add(
            EncodedRows(
                id=ids[batch.row[usable]],
                sha256=batch.sha256[usable],
                perceptual_hash=batch.perceptual_hash[usable],
                path=paths[batch.row[usable]],
                size=batch.size[usable],
                mtime_ns=batch.mtime_ns[usable],
                embedding=stored[usable],
            )
        )
        if time.monotonic() - job.last_flush > FLUSH_SECONDS:
            job.builder.flush()
            job.last_flush = time.monotonic()
    job.done += int(usable.sum())
    job.encode_seconds += seconds
    job.write_seconds += time.monotonic() - start
