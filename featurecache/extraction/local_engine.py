"""The engine that decodes and encodes in this process."""

from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from featurecache.concurrency import worker_threads
from featurecache.extraction.decode import ImageTask, JournalEntry
from featurecache.extraction.encode import (
    MAX_ENCODER_THREADS,
    EventHandler,
    common_device,
    encode_ahead,
    with_wait_times,
)

if TYPE_CHECKING:
    from featurecache.encoders.encoder import Encoder


def encode_locally(
    tasks: Iterable[ImageTask],
    encoders: Sequence["Encoder"],
    handle: EventHandler,
    *,
    batch_size: int,
    workers: int,
    image_timeout: float,
    journal_entry: JournalEntry,
) -> None:
    """Encode on all cores of this machine, or on its GPU; see ``Engine``."""
    with worker_threads(common_device(encoders), max_workers=MAX_ENCODER_THREADS) as threads:
        events = encode_ahead(
            tasks,
            encoders,
            threads,
            batch_size=batch_size,
            workers=workers,
            image_timeout=image_timeout,
            journal_entry=journal_entry,
        )
        with closing(events):
            try:
                for event, seconds in with_wait_times(events):
                    handle(event, seconds)
            finally:
                # An interrupt must not lose the batches that are being encoded.
                for event, seconds in with_wait_times(threads.drain()):
                    handle(event, seconds)
