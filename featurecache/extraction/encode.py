"""Decode images ahead of the encoders, encode them in batches, and report every result."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.concurrency import OrderedThreadPool
from featurecache.extraction.decode import DecodedImage, ImageTask, JournalEntry, decode_ahead
from featurecache.store.records import Utf8, to_utf8

if TYPE_CHECKING:
    from featurecache.encoders.encoder import Encoder

SEGMENT_BATCHES: Final = 4
"""Number of batches in a segment of the data set. No batch crosses the end of a segment, so a
segment that is encoded alone has the same batches as in an extraction of the whole data set. This
matters because the last bits of an embedding may depend on the number of images in its batch."""

MAX_ENCODER_THREADS: Final = 4
"""Every encoder thread holds a batch and its activations in memory."""


def segment_of(row: int, batch_size: int) -> int:
    """Return the number of the segment that a row of the data set belongs to."""
    return row // (SEGMENT_BATCHES * batch_size)


def common_device(encoders: Sequence["Encoder"]) -> str:
    """Return the device that limits how many batches can be encoded at once."""
    return "cpu" if any(encoder.device == "cpu" for encoder in encoders) else encoders[0].device


@dataclass(frozen=True)
class ImageResult:
    """An image was read.

    Attributes:
        row: Row of the image in the data set.
        reason: Why the image cannot be used; None if it can.
    """

    row: int
    reason: str | None


@dataclass(frozen=True)
class EncodedBatch:
    """A batch of B images was encoded by one encoder.

    Attributes:
        encoder: Index of the encoder.
        row: Rows of the images in the data set, (B,).
        sha256: Hexadecimal sha256 of their files, (B,).
        perceptual_hash: Hashes of the decoded images, (B, 32).
        size: Sizes of their files in bytes, (B,).
        mtime_ns: Modification times of their files in nanoseconds, (B,).
        embedding: Their embeddings, (B, D), not normalized.
    """

    encoder: int
    row: NDArray[np.intp]
    sha256: Utf8
    perceptual_hash: NDArray[np.uint8]
    size: NDArray[np.int64]
    mtime_ns: NDArray[np.int64]
    embedding: NDArray[np.float32]


Event = ImageResult | EncodedBatch
EventHandler = Callable[[Event, float], None]
"""Called with each event and the seconds spent waiting for it."""


def encode_ahead(
    tasks: Iterable[ImageTask],
    encoders: Sequence["Encoder"],
    threads: OrderedThreadPool[EncodedBatch],
    *,
    batch_size: int,
    workers: int,
    image_timeout: float,
    journal_entry: JournalEntry,
) -> Generator[Event, None, None]:
    """Read each image once and encode batches of them in threads.

    Args:
        tasks: The images, in order of their rows.
        encoders: The encoders, in the order of the indices that the tasks use.
        threads: Where batches are encoded. Batches that are left in it when the generator is closed
            have not been yielded yet.
        batch_size: Number of images per forward pass.
        workers: Number of decoding threads.
        image_timeout: Maximum time to read one image, in seconds.
        journal_entry: Entered while an image is decoded.

    Yields:
        An ``ImageResult`` for each task, and an ``EncodedBatch`` for each batch.
    """
    batches: list[list[DecodedImage]] = [[] for _ in encoders]

    def submit(index: int) -> None:
        threads.submit(partial(_encode, index, encoders[index], batches[index]))
        batches[index] = []

    images = decode_ahead(
        tasks,
        dict(enumerate(encoders)),
        workers=workers,
        window=batch_size + 2 * workers,
        timeout=image_timeout,
        journal_entry=journal_entry,
    )
    segment = -1
    # Closed at once when an interrupt ends the loop, so that no thread keeps reading.
    with closing(images):
        for image in images:
            segment_ended = segment_of(image.row, batch_size) != segment
            segment = segment_of(image.row, batch_size)
            for index, batch in enumerate(batches):
                if segment_ended and batch:
                    submit(index)
                if index in image.pixels:
                    batches[index].append(image)
                if len(batches[index]) == batch_size:
                    submit(index)
            yield from threads.completed()
            yield ImageResult(image.row, image.reason)
        for index, batch in enumerate(batches):
            if batch:
                submit(index)
        yield from threads.drain()


def _encode(index: int, encoder: "Encoder", batch: Sequence[DecodedImage]) -> EncodedBatch:
    pixels = np.stack([image.pixels[index] for image in batch])
    return EncodedBatch(
        encoder=index,
        row=np.array([image.row for image in batch], dtype=np.intp),
        sha256=to_utf8([image.sha256 for image in batch]),
        perceptual_hash=np.stack(
            [image.perceptual_hash for image in batch if image.perceptual_hash is not None]
        ),
        size=np.array([image.size for image in batch], dtype=np.int64),
        mtime_ns=np.array([image.mtime_ns for image in batch], dtype=np.int64),
        embedding=encoder.embed_pixels(pixels),
    )


def with_wait_times(events: Iterable[Event]) -> Iterator[tuple[Event, float]]:
    """Yield each event with the seconds spent waiting for it."""
    start = time.monotonic()
    for event in events:
        yield event, time.monotonic() - start
        start = time.monotonic()
