"""Encode images behind their decoding, in batches, and tell what came of each."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.concurrency import OrderedThreadPool
from featurecache.extraction.decode import Decoded, Item, Mark, decode_ahead
from featurecache.store.records import Utf8, to_utf8

if TYPE_CHECKING:
    from featurecache.encoders.encoder import Encoder

RUN_BATCHES: Final = 4
"""A run is as many rows of the manifest as this many batches hold. No batch reaches over its end:
whoever encodes one run alone forms the batches of an extraction of all. That matters, for an
embedding may differ in its last bits with the number of images beside it."""


MOST_LANES: Final = 4
"""Each lane holds a batch and its activations in memory."""


def run_of(row: int, batch_size: int) -> int:
    """The number of the run that a row of the manifest belongs to."""
    return row // (RUN_BATCHES * batch_size)


def device_of(encoders: Sequence["Encoder"]) -> str:
    """The device whose share of cores and memory encoders need together."""
    return "cpu" if any(encoder.device == "cpu" for encoder in encoders) else encoders[0].device


@dataclass(frozen=True)
class Seen:
    """An image that was read.

    Attributes:
        row: its row in the manifest.
        size: of the file, in bytes, as ``mtime_ns`` is its time of change.
        encoders: the numbers of those that must encode it.
        reason: why it cannot be used; None where it can.
    """

    row: int
    size: int
    mtime_ns: int
    encoders: frozenset[int]
    reason: str | None


@dataclass(frozen=True)
class Encoded:
    """One encoder's batch: its images, (B,) each, and their embeddings, (B, D) float32.

    Attributes:
        encoder: the encoder's number.
        row: the images' rows in the manifest.
    """

    encoder: int
    row: NDArray[np.intp]
    sha256: Utf8
    size: NDArray[np.int64]
    mtime_ns: NDArray[np.int64]
    embedding: NDArray[np.float32]


Event = Seen | Encoded
Take = Callable[[Event, float], None]
"""Called with each event and the seconds that were spent waiting for it."""


def encode_ahead(
    items: Iterable[Item],
    encoders: Sequence["Encoder"],
    lanes: OrderedThreadPool[Encoded],
    *,
    batch_size: int,
    workers: int,
    image_timeout: float,
    mark: Mark,
) -> Generator[Event, None, None]:
    """Read each image once and encode it in the lanes, one batch behind another.

    Args:
        items: in order of their rows.
        encoders: they have the numbers that the items call them by.
        lanes: where batches are encoded; what is left in them when this is closed is still to come.
        batch_size: images an encoder sees at once.
        workers: decoding threads.
        image_timeout: that reading an image may take.
        mark: entered while an image is decoded.
    """
    batches: list[list[Decoded]] = [[] for _ in encoders]

    def submit(number: int) -> None:
        lanes.submit(partial(_encode, number, encoders[number], batches[number]))
        batches[number] = []

    decoded = decode_ahead(
        items,
        dict(enumerate(encoders)),
        workers=workers,
        window=batch_size + 2 * workers,
        seconds=image_timeout,
        mark=mark,
    )
    run = -1
    # Closed at once when an interrupt ends the loop, so that no thread goes on reading.
    with closing(decoded):
        for image in decoded:
            ended = run_of(image.row, batch_size) != run
            run = run_of(image.row, batch_size)
            for number, batch in enumerate(batches):
                if ended and batch:
                    submit(number)
                if number in image.pixels:
                    batches[number].append(image)
                if len(batches[number]) == batch_size:
                    submit(number)
            yield from lanes.ready()
            yield Seen(image.row, image.size, image.mtime_ns, frozenset(image.pixels), image.reason)
        for number, batch in enumerate(batches):
            if batch:
                submit(number)
        yield from lanes.rest()


def _encode(number: int, encoder: "Encoder", batch: Sequence[Decoded]) -> Encoded:
    pixels = np.stack([image.pixels[number] for image in batch])
    return Encoded(
        encoder=number,
        row=np.array([image.row for image in batch], dtype=np.intp),
        sha256=to_utf8([image.sha256 for image in batch]),
        size=np.array([image.size for image in batch], dtype=np.int64),
        mtime_ns=np.array([image.mtime_ns for image in batch], dtype=np.int64),
        embedding=encoder.embed_pixels(pixels),
    )


def timed(events: Iterable[Event]) -> Iterator[tuple[Event, float]]:
    """Each event with the seconds that were spent waiting for it."""
    start = time.monotonic()
    for event in events:
        yield event, time.monotonic() - start
        start = time.monotonic()
