"""The image loop: decoded pixels in, encoded batches out to the caches."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.extraction.decode import Decoded, Item, decode_ahead
from featurecache.extraction.plan import Plan
from featurecache.lanes import open_lanes
from featurecache.store.builder import CacheBuilder
from featurecache.store.contents import UNSTORABLE, Strings, to_storable
from featurecache.store.parts import EncodedRows

if TYPE_CHECKING:
    from featurecache.datasets.manifest import Manifest
    from featurecache.encoders.encoder import Encoder

Progress = Callable[[int, int], None]
"""Called with the number of images finished and the number there are to do."""

FLUSH_SECONDS = 30.0
"""The most work, in time, that a kill can cost."""
MOST_LANES: Final = 4
"""Each lane holds a batch and its activations in memory."""


@dataclass
class Job:
    """One encoder, the cache it fills, and what came of it.

    Attributes:
        failures: image id to the reason why it has no embedding.
        touched: image id to the (size, mtime_ns) of a file that changed but holds the same bytes.
    """

    encoder: "Encoder"
    builder: CacheBuilder
    plan: Plan
    batch: list[Decoded] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    touched: dict[str, tuple[int, int]] = field(default_factory=dict)
    done: int = 0
    read_seconds: float = 0.0
    encode_seconds: float = 0.0
    write_seconds: float = 0.0
    flushed: float = field(default_factory=time.monotonic)


def _items(manifest: "Manifest", jobs: Sequence[Job], ids: Strings) -> Iterator[Item]:
    wanted: dict[int, dict[int, str]] = {}
    for number, job in enumerate(jobs):
        at = job.builder.stored.find(ids[job.plan.todo])
        for row, position in zip(job.plan.todo.tolist(), at.tolist(), strict=True):
            known = str(job.builder.stored.sha256[position]) if position >= 0 else ""
            wanted.setdefault(row, {})[number] = known
    paths = manifest.images["path"]
    for row in sorted(wanted):
        yield Item(row, manifest.root / paths.iloc[row], wanted.pop(row))


def encode_images(
    manifest: "Manifest",
    jobs: Sequence[Job],
    ids: Strings,
    *,
    batch_size: int,
    workers: int,
    progress: Progress | None,
) -> None:
    """Read, decode, encode and store what the jobs' plans ask for, each image read once."""
    rows: NDArray[np.intp] = np.unique(np.concatenate([job.plan.todo for job in jobs]))
    wants = [np.isin(rows, job.plan.todo) for job in jobs]
    decoded = decode_ahead(
        _items(manifest, jobs, ids),
        {number: job.encoder.preprocess for number, job in enumerate(jobs)},
        workers=workers,
        window=batch_size + 2 * workers,
    )
    device = "cpu" if any(job.encoder.device == "cpu" for job in jobs) else jobs[0].encoder.device
    # Closed at once when an interrupt ends the loop, so that no thread goes on reading.
    with closing(decoded), open_lanes(device, most=MOST_LANES) as lanes:
        try:
            if progress is not None:
                progress(0, len(rows))
            waiting = time.monotonic()
            for finished, image in enumerate(decoded, start=1):
                waited = time.monotonic() - waiting
                for number, job in enumerate(jobs):
                    job.read_seconds += waited
                    if wants[number][finished - 1]:
                        _take(job, number, image, ids)
                    if len(job.batch) == batch_size:
                        lanes.submit(_encoding(job, number))
                        _store(lanes.ready(), ids)
                if progress is not None:
                    progress(finished, len(rows))
                waiting = time.monotonic()
            for number, job in enumerate(jobs):
                if job.batch:
                    lanes.submit(_encoding(job, number))
        finally:
            # An interrupt must not cost the batches that are on their way.
            _store(lanes.rest(), ids)


def _take(job: Job, number: int, image: Decoded, ids: Strings) -> None:
    """Put an image into its job's batch, or note why it needs no encoding."""
    image_id = str(ids[image.row])
    if image.reason is not None:
        job.failures[image_id] = image.reason
    elif number in image.pixels:
        job.batch.append(image)
    else:
        job.touched[image_id] = (image.size, image.mtime_ns)


@dataclass(frozen=True)
class _Encoded:
    """One batch with its embeddings."""

    job: Job
    batch: list[Decoded]
    embedding: NDArray[np.float32]


def _encoding(job: Job, number: int) -> Callable[[], _Encoded]:
    """The encoding of a job's batch, to be done; the job begins a new batch."""
    batch, job.batch = job.batch, []

    def encode() -> _Encoded:
        pixels = np.stack([image.pixels[number] for image in batch])
        return _Encoded(job, batch, job.encoder.encode_images(pixels))

    return encode


def _store(encoded: Iterator[_Encoded], ids: Strings) -> None:
    """Give batches to their builders as they come."""
    start = time.monotonic()
    for one in encoded:
        came = time.monotonic()
        one.job.encode_seconds += came - start
        _store_batch(one, ids)
        start = time.monotonic()
        one.job.write_seconds += start - came


def _store_batch(encoded: _Encoded, ids: Strings) -> None:
    job, batch = encoded.job, encoded.batch
    half, usable = to_storable(encoded.embedding)
    for image in (batch[row] for row in np.flatnonzero(~usable)):
        job.failures[str(ids[image.row])] = UNSTORABLE
    kept = [batch[row] for row in np.flatnonzero(usable)]
    if kept:
        job.builder.add(
            EncodedRows(
                id=ids[[image.row for image in kept]],
                sha256=np.array([image.sha256 for image in kept], dtype=np.str_),
                size=np.array([image.size for image in kept], dtype=np.int64),
                mtime_ns=np.array([image.mtime_ns for image in kept], dtype=np.int64),
                embedding=half[usable],
            )
        )
        if time.monotonic() - job.flushed > FLUSH_SECONDS:
            job.builder.flush()
            job.flushed = time.monotonic()
    job.done += len(kept)
