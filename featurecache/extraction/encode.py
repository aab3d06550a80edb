"""Decode images ahead of the encoders, encode them in batches, and report every result."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
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
    """A batch of B images was encoded by one network.

    Attributes:
        row: Rows of the images in the data set, (B,).
        sha256: Hexadecimal sha256 of their files, (B,).
        perceptual_hash: Hashes of the decoded images, (B, 32).
        size: Sizes of their files in bytes, (B,).
        mtime_ns: Modification times of their files in nanoseconds, (B,).
        embeddings: Their embeddings, (B, D), not normalized, by the index of each encoder of the
            network that needs any of them.
    """

    row: NDArray[np.intp]
    sha256: Utf8
    perceptual_hash: NDArray[np.uint8]
    size: NDArray[np.int64]
    mtime_ns: NDArray[np.int64]
    embeddings: Mapping[int, NDArray[np.float32]]


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

    Encoders of one network, with different features, share a forward pass.

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
    networks = networks_of(encoders)
    batches: dict[Encoder, list[DecodedImage]] = {network: [] for network in networks}

    def submit(network: "Encoder") -> None:
        members = {i: encoders[i] for i, shared in enumerate(networks) if shared is network}
        threads.submit(partial(_encode, network, members, batches[network]))
        batches[network] = []

    images = decode_ahead(
        tasks,
        dict(enumerate(networks)),
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
            needed_by = {networks[index] for index in image.pixels}
            for network in batches:
                if segment_ended and batches[network]:
                    submit(network)
                if network in needed_by:
                    batches[network].append(image)
                if len(batches[network]) == batch_size:
                    submit(network)
            yield from threads.completed()
            yield ImageResult(image.row, image.reason)
        for network, batch in batches.items():
            if batch:
                submit(network)
        yield from threads.drain()


def networks_of(encoders: Sequence["Encoder"]) -> list["Encoder"]:
    """Return, for each encoder, the first one that has the same image network."""
    first: dict[str, Encoder] = {}
    return [
        encoder if (network := encoder.network_id) is None else first.setdefault(network, encoder)
        for encoder in encoders
    ]


def _encode(
    network: "Encoder", members: Mapping[int, "Encoder"], batch: Sequence[DecodedImage]
) -> EncodedBatch:
    """Encode a batch by a network, for those of its encoders that need any image of it."""
    pixels = np.stack(
        [next(image.pixels[index] for index in members if index in image.pixels) for image in batch]
    )
    # The features of all, also where only some need them, so that the same network computes them.
    features = [encoder.features for encoder in members.values()]
    embeddings = dict(zip(members, network.embed_features(pixels, features), strict=True))
    needed_by = set[int]().union(*(image.pixels for image in batch))
    return EncodedBatch(
        row=np.array([image.row for image in batch], dtype=np.intp),
        sha256=to_utf8([image.sha256 for image in batch]),
        perceptual_hash=np.stack(
            [image.perceptual_hash for image in batch if image.perceptual_hash is not None]
        ),
        size=np.array([image.size for image in batch], dtype=np.int64),
        mtime_ns=np.array([image.mtime_ns for image in batch], dtype=np.int64),
        embeddings={index: one for index, one in embeddings.items() if index in needed_by},
    )


def with_wait_times(events: Iterable[Event]) -> Iterator[tuple[Event, float]]:
    """Yield each event with the seconds spent waiting for it."""
    start = time.monotonic()
    for event in events:
        yield event, time.monotonic() - start
        start = time.monotonic()
